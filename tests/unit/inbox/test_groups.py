"""Doing things in groups."""

import asyncio
from collections.abc import Sequence

import pytest

from services.inbox.groups import Group, apart
from shared.errors import DependencyUnavailable


class Committed:
    """Commits groups when a test lets it, and remembers them."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, group: Sequence[int]) -> list[int]:
        self.groups.append(list(group))
        await self.gate.wait()
        if 13 in group:
            raise ValueError("13")
        if 99 in group:
            raise DependencyUnavailable
        return [asked * 10 for asked in group]


async def test_one_alone_does_not_wait_for_company() -> None:
    """Each is a group of its own when nothing is under way."""
    committed = Committed()
    group = Group(committed.commit, 10)
    assert [await group.ask(1), await group.ask(2)] == [10, 20]
    assert committed.groups == [[1], [2]]


async def test_what_comes_during_a_commit_makes_up_the_next() -> None:
    """In the order of asking, and not more than the largest group."""
    committed = Committed()
    committed.gate.clear()
    group = Group(committed.commit, 3)
    asks = [asyncio.create_task(group.ask(number)) for number in range(8)]
    while not committed.groups:
        await asyncio.sleep(0)
    asks += [asyncio.create_task(group.ask(number)) for number in (8, 9)]
    await asyncio.sleep(0)
    committed.gate.set()
    assert await asyncio.gather(*asks) == [number * 10 for number in range(10)]
    assert [len(each) for each in committed.groups] == [3, 3, 3, 1]
    assert [number for each in committed.groups for number in each] == list(range(10))


async def test_what_is_asked_together_is_committed_together() -> None:
    """As far as a group takes it, with what was asked before; its answers come in order."""
    committed = Committed()
    committed.gate.clear()
    group = Group(committed.commit, 3)
    first = asyncio.create_task(group.ask(0))
    while not committed.groups:
        await asyncio.sleep(0)
    rest = [asyncio.create_task(group.ask_all([1, 2])), asyncio.create_task(group.ask_all([3, 4, 5]))]
    await asyncio.sleep(0)
    committed.gate.set()
    assert await asyncio.gather(first, *rest) == [0, [10, 20], [30, 40, 50]]
    assert committed.groups == [[0], [1, 2, 3], [4, 5]]


async def test_a_defect_in_one_of_several_is_raised_once_the_others_are_committed() -> None:
    """Whoever asked for all of them asks again, which the others bear."""
    committed = Committed()
    group = Group(committed.commit, 10)
    with pytest.raises(ValueError, match="13"):
        await group.ask_all([1, 13, 2])
    while committed.groups[-1] != [2]:
        await asyncio.sleep(0)
    assert await group.ask_all([1, 2]) == [10, 20]


async def test_a_defect_fails_only_whose_it_is() -> None:
    """The others are committed without it."""
    committed = Committed()
    group = Group(committed.commit, 10)
    results = await asyncio.gather(*(group.ask(number) for number in (1, 13, 2)), return_exceptions=True)
    assert [results[0], type(results[1]), results[2]] == [10, ValueError, 20]


async def test_an_outage_is_everybodys() -> None:
    """It is not tried one by one, and the next group is tried."""
    committed = Committed()
    group = Group(committed.commit, 10)
    results = await asyncio.gather(*(group.ask(number) for number in (1, 99)), return_exceptions=True)
    assert {type(result) for result in results} == {DependencyUnavailable}
    assert committed.groups == [[1, 99]]
    assert await group.ask(3) == 30


async def test_somebody_who_gives_up_does_not_disturb_the_others() -> None:
    """What they asked may be done all the same."""
    committed = Committed()
    committed.gate.clear()
    group = Group(committed.commit, 10)
    asks = [asyncio.create_task(group.ask(number)) for number in (1, 2, 3)]
    while not committed.groups:
        await asyncio.sleep(0)
    asks[1].cancel()
    committed.gate.set()
    assert await asks[0] == 10
    assert await asks[2] == 30
    with pytest.raises(asyncio.CancelledError):
        await asks[1]


def test_what_clashes_is_kept_apart_in_its_order() -> None:
    """Each in the first round after all that it clashes with."""
    rounds = apart(["a1", "b1", "a2", "c1", "a3", "b2"], lambda one, other: one[0] == other[0])
    assert rounds == [[(0, "a1"), (1, "b1"), (3, "c1")], [(2, "a2"), (5, "b2")], [(4, "a3")]]
    assert apart([], lambda one, other: True) == []
