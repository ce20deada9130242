"""Owns this node's place in the log: what was read last is kept, for streams that start from there."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import structlog

from services.inbox.changes import Change, Changes, Need
from services.inbox.entries import Entry, read_entry
from services.inbox.past import Past, Stretch
from services.inbox.waking import Waking
from shared.audience import Audience
from shared.backoff import backoff_s
from shared.errors import DependencyUnavailable
from shared.ordered_log import LogEntry, LogTruncated, OrderedLog

log = structlog.get_logger(__name__)

_KEPT: Final = 2_048
_BATCH: Final = 256
# So many changes are looked through in memory; the database does better with more.
_FEW: Final = 256
MOST_BEHIND: Final = 200_000
"""Entries of the log: a night of a busy platform."""

_RETRY_FIRST_S: Final = 0.05
_RETRY_CEILING_S: Final = 2.0

Deliver = Callable[[Change], None]


class Tail:
    """The end of the log as this node knows it. Each change is delivered to everybody before the next."""

    def __init__(
        self,
        ordered_log: OrderedLog,
        changes: Changes,
        waking: Waking,
        *,
        most_behind: int = MOST_BEHIND,
        poll_s: float = 1.0,
    ) -> None:
        """Streams go on from up to `most_behind` entries back."""
        self._log = ordered_log
        self._changes = changes
        self._waking = waking
        self._poll_s = poll_s
        self._recent: deque[Change] = deque(maxlen=_KEPT)
        self._past = Past(ordered_log, self._changes_of, most_behind)
        self._waiting: dict[asyncio.Future[None], int] = {}
        self.position = 0

    async def load(self) -> None:
        """Read the last part of the log, for streams that go on from where they were on another node."""
        head = await self._log.head()
        self.position = max(head - _KEPT, 0)
        while self.position < head:
            try:
                entries = await self._log.read(self.position, _BATCH)
            except LogTruncated:
                # Pruned to somewhere behind this place.
                self.position = min(self.position + _BATCH, head)
                continue
            for entry, change in await self._understand(entries):
                if entry is not None:
                    self._changes.apply(entry)
                self._recent.append(change)
                self.position = change.position
        self._waking.note_read(self.position)

    async def follow(self, *delivers: Deliver) -> None:
        """Deliver what comes, in order, for good. Raises LogTruncated when the log was pruned beyond this node."""
        async for entries in self._log.tail(self.position, self._waking.wake, self._poll_s, _BATCH):
            for entry, change in await self._understand(entries):
                if entry is not None:
                    self._changes.apply(entry)
                self._recent.append(change)
                self.position = change.position
                if change.need is Need.END:
                    self._silence(change.members)
                if change.need is Need.END or change.rewritten is not None:
                    self._past.forget()
                for deliver in delivers:
                    deliver(change)
            self._waking.note_read(self.position)
            self._wake_waiting()

    async def reach(self, position: int) -> None:
        """Return once everything up to a position, which the database has shown already, is delivered."""
        if self.position >= position:
            return
        self._waking.wake.set()
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = position
        try:
            await reached
        finally:
            self._waiting.pop(reached, None)

    async def reach_end(self) -> None:
        """Return once everything that is committed by now is delivered."""
        await self.reach(await self._log.head())

    def was_quiet_for(self, recipient_number: int, after: int, until: int) -> bool:
        """Whether this node knows that nothing concerned a recipient after a position, at least up to another."""
        missing = self.position - after
        if not after <= until <= self.position or missing > min(_FEW, len(self._recent)):
            return False
        return not any(
            change.is_dark or recipient_number in change.members
            for change in islice(reversed(self._recent), missing)
        )

    def since(self, position: int) -> Sequence[Change] | None:
        """What follows a position up to where this node is; None when it does not keep all of it."""
        if not self.keeps(position):
            return None
        missing = self.position - position
        return list(islice(self._recent, len(self._recent) - max(missing, 0), None))

    def keeps(self, position: int) -> bool:
        """Whether this node keeps all that follows a position."""
        return self.position - position <= len(self._recent)

    async def further_back(self, recipient_number: int, position: int) -> Stretch:
        """Some of what follows a position that this node does not keep.

        Raises LogTruncated when it is no longer there, or lies too far back.
        """
        return await self._past.read(recipient_number, position, self.position)

    async def _changes_of(self, entries: Sequence[LogEntry]) -> list[Change]:
        return [change for _, change in await self._understand(entries)]

    async def _understand(self, entries: Sequence[LogEntry]) -> list[tuple[Entry | None, Change]]:
        """Entries with the changes that they are."""
        read = [_read(entry) for entry in entries]
        known = await self._read_changes([entry for entry in read if entry is not None])
        changes = {change.position: change for change in known}
        return [
            (one, changes.get(entry.position) or Change.dark(entry.position))
            for one, entry in zip(read, entries, strict=True)
        ]

    async def _read_changes(self, entries: Sequence[Entry]) -> list[Change]:
        """What entries are to streams, however long the database takes to say it."""
        failures = 0
        while True:
            try:
                return await self._changes.read(entries)
            except DependencyUnavailable as error:
                failures += 1
                log.warning("live_interrupted", failures=failures, error=str(error))
                await asyncio.sleep(backoff_s(failures, _RETRY_FIRST_S, _RETRY_CEILING_S))

    def _silence(self, gone: Audience) -> None:
        """Keep nothing to show that was for these alone."""
        for place, change in enumerate(self._recent):
            if change.shows_something and change.members.issubset(gone):
                self._recent[place] = replace(change, event=None, events=None)

    def _wake_waiting(self) -> None:
        for reached, position in list(self._waiting.items()):
            if self.position >= position and not reached.done():
                reached.set_result(None)


def _read(entry: LogEntry) -> Entry | None:
    """What an entry says; None for what only a newer version of this service understands."""
    try:
        return read_entry(entry)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("log_entry_not_understood", position=entry.position, kind=entry.kind, error=str(error))
        return None
