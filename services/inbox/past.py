"""Owns what of the log lies further back than this node keeps: read in pages, which all who come back share."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from services.inbox.changes import Change
from shared.audience import Audience
from shared.ordered_log import LogEntry, LogTruncated

PAGE: Final = 256
"""Entries of a page."""

_PAGES_KEPT: Final = 16
_READ_AT_ONCE: Final = 2
# Of a page that is understood in one go; everybody else on this node waits for as long.
_PART: Final = 32
_Kept = TypeVar("_Kept")


class Log(Protocol):
    """The ordered log, as far as it is used here."""

    async def read(self, after: int, limit: int) -> list[LogEntry]:
        """Raises LogTruncated."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What concerns somebody between a position and `until`."""

    changes: Sequence[Change]
    until: int


class Past:
    """Pages of the log by number, as streams take them.

    Whoever was away for a night asks for hundreds of pages, and few of them concern them: whom a page concerns is kept
    long after the page itself, so that only those few are read for them.
    """

    def __init__(
        self,
        log: Log,
        understand: Callable[[Sequence[LogEntry]], Awaitable[Sequence[Change]]],
        most_behind: int,
    ) -> None:
        """Who is more than `most_behind` entries behind does better to begin anew."""
        self._log = log
        self._understand = understand
        self._most_behind = most_behind
        self._pages: OrderedDict[int, list[Change]] = OrderedDict()
        self._concerned: OrderedDict[int, Audience] = OrderedDict()
        self._reading: dict[int, asyncio.Task[list[Change]]] = {}
        self._turns = asyncio.Semaphore(_READ_AT_ONCE)

    async def read(self, number: int, after: int, head: int) -> Stretch:
        """What of the page with the entry behind `after`, or of one that follows, concerns a recipient.

        Asked for what precedes this node's place `head`. Raises LogTruncated for who is too far behind, and for what
        the log does not hold any more.
        """
        if head - after > self._most_behind:
            raise LogTruncated(after, head)
        start = after
        while after < head:
            page, inside = divmod(after, PAGE)
            concerned = self._concerned.get(page)
            if concerned is None or number in concerned:
                if after > start:
                    break
                changes = await self._read_page(page, after)
                found = [each for each in changes if each.position > after and number in each.members]
                return Stretch(found, changes[-1].position if changes else head)
            after += PAGE - inside
        return Stretch((), min(after, head))

    def forget(self) -> None:
        """What is kept may say what it should not any more; so may what is being read."""
        self._pages = OrderedDict()

    async def _read_page(self, page: int, after: int) -> list[Change]:
        """A page, or what the log still holds of it behind `after`."""
        kept = self._pages.get(page)
        if kept is not None:
            self._pages.move_to_end(page)
            return kept
        try:
            reading = self._reading.get(page)
            if reading is None:
                reading = self._reading[page] = asyncio.create_task(self._load(page), name="inbox_past")
                reading.add_done_callback(partial(self._end_reading, page))
            return await asyncio.shield(reading)
        except LogTruncated:
            if after == page * PAGE:
                raise
            return await self._changes_after(after, (page + 1) * PAGE - after)

    def _end_reading(self, page: int, reading: asyncio.Task[list[Change]]) -> None:
        self._reading.pop(page, None)
        if not reading.cancelled():
            # Those who waited have its error; when all of them have gone away, it is nobody's.
            reading.exception()

    async def _load(self, page: int) -> list[Change]:
        pages = self._pages
        changes = await self._changes_after(page * PAGE, PAGE)
        if len(changes) == PAGE:
            _keep(pages, page, changes, _PAGES_KEPT)
            concerned = Audience.union_of(each.members for each in changes)
            _keep(self._concerned, page, concerned, self._most_behind // PAGE)
        return changes

    async def _changes_after(self, after: int, limit: int) -> list[Change]:
        async with self._turns:
            entries = await self._log.read(after, limit)
            changes: list[Change] = []
            for first in range(0, len(entries), _PART):
                changes += await self._understand(entries[first : first + _PART])
                await asyncio.sleep(0)
            return changes


def _keep(kept: OrderedDict[int, _Kept], page: int, what: _Kept, most: int) -> None:
    kept[page] = what
    kept.move_to_end(page)
    while len(kept) > most:
        kept.popitem(last=False)
