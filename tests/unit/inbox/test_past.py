"""What lies further back than a node keeps, against a log of a list."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from services.inbox.changes import Change
from services.inbox.past import PAGE, Past
from shared.audience import Audience
from shared.ordered_log import LogEntry, LogTruncated

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HEAD = 10 * PAGE + 7


class ListedLog:
    """A log of which each entry is about one person, whose number is its body, from `first` on."""

    def __init__(self, about: dict[int, int], first: int = 1) -> None:
        self.about = about
        self.first = first
        self.reads: list[int] = []

    async def read(self, after: int, limit: int) -> list[LogEntry]:
        """As the log does."""
        self.reads.append(after)
        await asyncio.sleep(0)
        if after + 1 < self.first:
            raise LogTruncated(after, HEAD)
        positions = range(after + 1, min(after + limit, HEAD) + 1)
        return [LogEntry(each, "kind", str(self.about.get(each, 0)).encode(), NOW) for each in positions]


async def understand(entries: Sequence[LogEntry]) -> list[Change]:
    """Each is for whom it is about."""
    return [Change(each.position, Audience.of([int(each.body)])) for each in entries]


async def all_of(past: Past, number: int, after: int) -> list[int]:
    """Positions of everything that concerns somebody, up to the head."""
    found: list[int] = []
    while after < HEAD:
        stretch = await past.read(number, after, HEAD)
        assert stretch.until > after
        found += [each.position for each in stretch.changes]
        after = stretch.until
    return found


@pytest.mark.parametrize("after", [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 3, HEAD - 1])
async def test_everything_that_concerns_somebody_is_found_once(after: int) -> None:
    """From wherever they are, also when all pages are known, and in order."""
    theirs = (1, 2, PAGE, PAGE + 1, PAGE + 2, 6 * PAGE, 6 * PAGE + 5, HEAD - 3, HEAD)
    past = Past(ListedLog(dict.fromkeys(theirs, 5)), understand, 1_000_000)
    for _ in range(2):
        assert await all_of(past, 5, after) == [each for each in theirs if each > after]


async def test_pages_that_concern_nobody_who_asks_are_read_once() -> None:
    """By whoever comes first; the others read what is theirs."""
    log = ListedLog({3 * PAGE + 9: 5})
    past = Past(log, understand, 1_000_000)
    await all_of(past, 6, 0)
    before = len(log.reads)
    assert await all_of(past, 5, 4) == [3 * PAGE + 9]
    # The last page is not full yet, so nobody knows what is still to come in it.
    assert set(log.reads[before:]) <= {3 * PAGE, 10 * PAGE}


async def test_those_who_come_together_read_each_page_once() -> None:
    """However many they are."""
    log = ListedLog({each: each % 50 for each in range(HEAD)})
    past = Past(log, understand, 1_000_000)
    found = await asyncio.gather(*(all_of(past, number, number) for number in range(1, 50)))
    assert all(each == [one for one in range(HEAD) if one % 50 == number and one > number]
               for number, each in enumerate(found, 1))  # fmt: skip
    assert max(log.reads.count(each * PAGE) for each in range(10)) == 1


async def test_what_is_left_of_a_page_is_read_from_where_somebody_is() -> None:
    """The log may have been pruned within it; where nothing follows any more, that is told."""
    log = ListedLog({2 * PAGE + 50: 5}, first=2 * PAGE + 20)
    past = Past(log, understand, 1_000_000)
    assert await all_of(past, 5, 2 * PAGE + 30) == [2 * PAGE + 50]
    for after in (2 * PAGE, 2 * PAGE + 10, PAGE):
        with pytest.raises(LogTruncated):
            await all_of(past, 5, after)


async def test_whoever_is_too_far_behind_is_told_without_a_look() -> None:
    """A snapshot is the better start."""
    log = ListedLog({})
    past = Past(log, understand, PAGE)
    with pytest.raises(LogTruncated):
        await past.read(5, HEAD - PAGE - 1, HEAD)
    assert log.reads == []
    await past.read(5, HEAD - PAGE, HEAD)


async def test_what_is_forgotten_is_read_again() -> None:
    """Also what was being read at that moment."""
    log = ListedLog({7: 5})
    past = Past(log, understand, 1_000_000)
    reading = asyncio.create_task(past.read(5, 0, HEAD))
    while not log.reads:
        await asyncio.sleep(0)
    past.forget()
    await reading
    for _ in range(2):
        await past.read(5, 0, HEAD)
        assert log.reads.count(0) == 2


async def test_an_error_is_everybodys_who_waits_and_nobodys_later() -> None:
    """The page is asked for again."""
    log = ListedLog({7: 5})
    failures = [ConnectionError("away")]

    async def fail_once(entries: Sequence[LogEntry]) -> list[Change]:
        if failures:
            raise failures.pop()
        return await understand(entries)

    past = Past(log, fail_once, 1_000_000)
    outcomes = await asyncio.gather(*(past.read(5, 0, HEAD) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [ConnectionError] * 3
    assert [each.position for each in (await past.read(5, 0, HEAD)).changes] == [7]
