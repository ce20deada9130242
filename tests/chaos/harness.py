"""Owns one run from start to verdict, on a site of its own."""

import asyncio
import time
from pathlib import Path
from random import Random

from tests.chaos.arming import Arming
from tests.chaos.crew import working_on
from tests.chaos.processes import Death
from tests.chaos.report import Report
from tests.chaos.site import Site
from tests.chaos.storm import weather
from tests.chaos.terms import Terms
from tests.chaos.verdict import judge


async def run(terms: Terms, *, keep: bool = False) -> Report:
    """One run; its folder stays when it was not clean, or did not get to its end, and with `keep`.

    Whatever happens once the suite is up ends in a report, within `terms.limit_s`: a build so broken that it cannot be
    healed, drained or asked is told so, with what is missing.
    """
    began = time.time()
    deaths: list[Death] = []

    def arming(log: Path) -> Arming:
        return Arming(Random(f"{terms.seed}:arming"), log)

    site = Site(terms.recipients, arming, deaths.append)
    report: Report | None = None
    try:
        async with asyncio.timeout(terms.limit_s), site, working_on(site, terms) as crew:
            course = await weather(site, crew, terms)
            report = await judge(site, crew, terms, course, deaths, began)
    except Exception:
        if report is None or report.is_clean:  # otherwise the report is what matters, not how letting go went
            raise
    assert report is not None
    if report.is_clean and not keep:
        site.forget()
    return report
