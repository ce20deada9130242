"""Every process is killed at every failpoint and every server is broken once; nothing is lost, nothing comes twice."""

from typing import Final

import pytest

from tests.chaos.harness import run
from tests.chaos.terms import short

SEEDS: Final = (20261122,)
"""Runs that have found something are kept here."""
_LETTING_GO_S: Final = 30.0


@pytest.mark.timeout(short(0).limit_s + _LETTING_GO_S)
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_or_repeated_whatever_is_killed_or_broken(seed: int) -> None:
    """Each accepted broadcast is in every inbox exactly once and in no other; each stream showed it once.

    And every failpoint has killed, every fault has happened, ledgers add up, nothing arrived after a cancel, and
    stats and analytics count the people whom a recount finds.
    """
    report = await run(short(seed))
    assert report.is_clean, "\n".join(report.lines())
