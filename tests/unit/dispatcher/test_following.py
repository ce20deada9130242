"""Which changes concern a decision: those that came after it, for as long as its chunk may not be seen yet."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.following import Memory
from services.dispatcher.work import Changes
from shared.audience import Audience

WEDDING = UUID(int=1)


def changes(version: int, *people: int, anybody: bool = False, weddings: tuple[UUID, ...] = ()) -> Changes:
    """A stretch of the log up to a version."""
    return Changes(version, Audience.of(people), frozenset(weddings), anybody)


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), max_size=200), st.integers(0, 200))
def test_a_decision_is_judged_by_all_that_came_after_it(log: list[set[int]], version: int) -> None:
    """Nobody who changed later is missing, however much was heard; while it is little, nobody else is named either."""
    memory = Memory()
    for place, people in enumerate(log, 1):
        memory.add(changes(place, *people), now=0.0)
    found = next((each for later, each in reversed(memory.since()) if later > version), None)
    later = set().union(*log[version:])
    if len(log) <= 64:
        assert (set(found.people.to_list()) if found else set()) == later
    else:
        assert later <= (set(found.people.to_list()) if found else set())


def test_nothing_that_has_changed_is_nothing_to_look_for() -> None:
    """An empty stretch of the log is not kept, so nobody looks through what is held because of it."""
    memory = Memory()
    memory.add(changes(5), now=0.0)
    assert not memory
    memory.add(changes(6, weddings=(WEDDING,)), now=0.0)
    assert memory.since() == [(6, changes(6, weddings=(WEDDING,)))]


def test_what_may_be_about_anybody_stays_so_when_it_is_joined() -> None:
    """A log that was read anew concerns every decision before it."""
    memory = Memory()
    memory.add(changes(5, anybody=True), now=0.0)
    memory.add(changes(6, 1), now=0.0)
    assert [each.is_anybody for _, each in memory.since()] == [False, True]


def test_changes_are_forgotten_after_a_minute() -> None:
    """By then what was decided before them is committed, and was looked through."""
    memory = Memory()
    memory.add(changes(5, 1), now=0.0)
    memory.add(changes(6, 2), now=30.0)
    memory.forget(60.0)
    assert [version for version, _ in memory.since()] == [6, 5]
    memory.forget(61.0)
    assert [version for version, _ in memory.since()] == [6]
    memory.clear()
    assert not memory
