"""A part of a run that does not come to its end is told, and what follows it happens all the same."""

import asyncio

import pytest

from tests.chaos.storm import Course
from tests.chaos.terms import Terms, long, short


async def come_to_an_end() -> None:
    """As it should be."""


async def hang() -> None:
    """A build on which a fault cannot be brought about, or healed."""
    await asyncio.Event().wait()


async def fail() -> None:
    """A build that answers what nobody understands."""
    raise LookupError("no such thing")


async def test_a_part_that_fails_or_hangs_is_told_and_the_next_begins() -> None:
    """In the words of what went wrong; one that came to its end is only timed."""
    course = Course()
    await course.go("storm", hang(), 0.05)
    await course.go("healing", fail(), 60.0)
    await course.go("draining", come_to_an_end(), 60.0)
    assert course.unfinished == [
        "storm broke off: TimeoutError()",
        "healing broke off: LookupError('no such thing')",
    ]
    assert [phase.split()[0] for phase in course.phases] == ["storm", "healing", "draining"]


@pytest.mark.parametrize("terms", [short(1), long(1, minutes=20, recipients=5_000, sends_per_second=5.0)])
def test_a_run_is_given_up_only_after_each_of_its_parts_would_have_been(terms: Terms) -> None:
    """So that there is a verdict before it is."""
    parts_s = terms.storm_limit_s + 2 * terms.calm_s + 2 * terms.drain_s + terms.look_s
    assert terms.limit_s > parts_s + 100.0
