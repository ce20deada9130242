"""Owns the course of a run: faults over a steady load, then no more of them, and the load to its end."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.chaos.crew import Crew
from tests.chaos.site import Site
from tests.chaos.terms import RECOVERY_BOUND_S, Terms

_ECHO_EVERY_S: Final = 1.0
_ECHOED: Final = 4
_POLL_S: Final = 0.1
_PROVOKED: Final = ("expire", "redecide", "lease_again")
_PROVOKING: Final = ("every inbox killed", "NATS stopped")
"""What makes those places be reached that only come to pass when something is late."""
_CALM_S: Final = 1.5
_PATIENCE_S: Final = 4.0
"""How long a process may live without reaching what it is to die at, once nothing else is left to be done."""


@dataclass(slots=True)
class Course:
    """What the course has to tell: when it healed, its kills in calm weather, and what did not come to an end."""

    healed_at: float = 0.0
    solitary: list[float] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    """How long each part took, for people."""
    _since: float = field(default_factory=time.monotonic)

    def note_phase(self, name: str) -> None:
        """This part is over."""
        now = time.monotonic()
        self.phases.append(f"{name} {now - self._since:.0f} s")
        print(f"  {self.phases[-1]}", flush=True)
        self._since = now


async def weather(site: Site, crew: Crew, terms: Terms) -> Course:
    """Everything until nothing is on its way any more, or the time for that is up."""
    course = Course()
    async with _loaded(crew) as sending:
        await _storm(site, crew, terms)
        course.note_phase("storm")
        await _heal(site)
        course.healed_at = time.time()
        course.note_phase("healing")
        for _ in range(terms.solitary_kills):
            await asyncio.sleep(RECOVERY_BOUND_S)
            course.solitary.append(time.time())
            await crew.faults.kill_one()
        await asyncio.sleep(RECOVERY_BOUND_S if terms.solitary_kills else _CALM_S)
        crew.workload.stop()
        await _drain(crew, terms, sending, course)
        course.note_phase("calm and draining")
    return course


@asynccontextmanager
async def _loaded(crew: Crew) -> AsyncIterator[asyncio.Task[None]]:
    """With everybody at work; the task is the sends."""
    sending = asyncio.create_task(crew.workload.run(), name="workload")
    others = [
        asyncio.create_task(crew.changes.run(), name="changes"),
        asyncio.create_task(_echoing(crew), name="echo"),
    ]
    try:
        yield sending
        for task in others:
            if task.done():
                task.result()
    finally:
        for task in (sending, *others):
            task.cancel()
        await asyncio.gather(sending, *others, return_exceptions=True)


async def _echoing(crew: Crew) -> None:
    while True:
        await asyncio.sleep(_ECHO_EVERY_S)
        await crew.echo.repeat(_ECHOED)


async def _storm(site: Site, crew: Crew, terms: Terms) -> None:
    """Each fault once in an order of chance, then more of them until the time is up and all has fired."""
    began, random = time.monotonic(), Random(f"{terms.seed}:storm")
    site.arming.begin()
    for process in site.processes:
        process.signal(signal.SIGKILL)  # what starts from now on is armed
    names: list[str] = []
    while (passed := time.monotonic() - began) < terms.storm_most_s:
        for process in site.processes:
            process.check()
        missing = site.arming.missing()
        if not crew.faults.missing() and passed > terms.storm_s:
            if not missing:
                return
            await _chase(site, crew, missing, random)
            continue
        if site.arming.is_through():
            site.arming.again()
        if not names:
            names = random.sample(sorted(crew.faults.catalogue), len(crew.faults.catalogue))
        await crew.faults.run([names.pop()])


async def _chase(site: Site, crew: Crew, missing: list[str], random: Random) -> None:
    """Bring about what has not fired yet: by making something late, and by arming other processes with it."""
    if all(any(word in name for word in _PROVOKED) for name in missing):
        await crew.faults.run([random.choice(_PROVOKING)])
    for process in site.processes:
        if process.age_s > _PATIENCE_S and any(name.startswith(process.service) for name in missing):
            process.signal(signal.SIGKILL)
    await asyncio.sleep(_POLL_S)


async def _heal(site: Site) -> None:
    """Every process afresh, with nothing armed."""
    site.arming.end()
    for process in site.processes:
        process.release()
        process.signal(signal.SIGKILL)
    await asyncio.sleep(_POLL_S)
    await site.until_ready()


async def _drain(crew: Crew, terms: Terms, sending: asyncio.Task[None], course: Course) -> None:
    """Wait until every send has its answer, every broadcast its end, and every stream has shown what it must."""
    try:
        async with asyncio.timeout(terms.drain_s):
            await sending
            while await crew.record.unfinished():
                await asyncio.sleep(_POLL_S)
            while await crew.record.walls_that_differ():
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        sends = 0 if sending.done() else 1
        course.unfinished.append(
            f"after {terms.drain_s:g} s {await crew.record.unfinished()} broadcasts and "
            f"{await crew.record.walls_that_differ()} walls are on their way, {sends} sends unanswered"
        )
