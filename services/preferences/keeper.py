"""Owns keeping the set indexes as new as the last accepted change: built at start, then led along the log."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Final
from uuid import UUID

import structlog

from services.preferences.changes import Changes, gather, joined
from services.preferences.figures import (
    DIRECTORY_RECIPIENTS,
    DIRECTORY_VERSION,
    INDEX_APPLY_SECONDS,
    INDEX_BUILD_SECONDS,
)
from services.preferences.history import RecentChanges
from services.preferences.index import FacetKind, PeopleGroups, SetIndex
from services.preferences.store import PEOPLE_PAGE, IndexStore
from shared.audience import Audience
from shared.errors import DependencyUnavailable
from shared.ordered_log import LogEntry, LogTruncated, OrderedLog
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_READ_AT_ONCE: Final = 500
_REMEMBERED_NUMBERS: Final = 100_000


class IndexKeeper:
    """Gives the index, and applies the log up to its end before every answer."""

    def __init__(self, store: IndexStore, directory_log: OrderedLog) -> None:
        self._store = store
        self._log = directory_log
        self._index = SetIndex(0)
        self._recent = RecentChanges()
        self._numbers: OrderedDict[UUID, int] = OrderedDict()
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def build(self) -> None:
        """Read everything; nothing is answered from before this. Raises DependencyUnavailable."""
        started = time.monotonic()
        # The position comes first: what is changed while the tables are read is read again by `current`.
        index = SetIndex(await self._log.head())
        await self._read_people(index)
        weddings = await self._read_weddings(index)
        index.replace_segments((), await self._store.list_segments())
        self._index = index
        self._recent.forget()
        self._numbers.clear()
        seconds = time.monotonic() - started
        INDEX_BUILD_SECONDS.set(seconds)
        _show(index)
        log.info(
            "index_built",
            recipients=len(index.everyone),
            weddings=weddings,
            directory_version=index.version,
            ms=round(seconds * 1e3),
        )

    async def current(self) -> SetIndex:
        """The index with every change in it that was accepted before this call. Raises DependencyUnavailable.

        All who come while one pass over the log runs wait for the same next pass: the running one may have looked
        already when their change was accepted.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._pass_after(self._running), name="index_pass")
            self._next.add_done_callback(_look_at_error)
        await asyncio.shield(self._next)
        return self._index

    async def run(self, every_s: float = 1.0) -> None:
        """Apply the log now and then without being asked, until `stop`: so nobody has to wait for many changes."""
        while not self._stopping.is_set():
            await wait_for_hint(self._stopping, every_s)
            try:
                await self.current()
            except DependencyUnavailable as error:
                log.warning("index_interrupted", error=str(error))

    def stop(self) -> None:
        """Make `run` return."""
        self._stopping.set()

    async def changes_since(self, version: int) -> Changes:
        """What has changed between a directory version and the index's, as that is when this returns."""
        if version > self._index.version:
            return Changes(is_reload=True)
        read: list[Changes] = []
        # The index may move on while older entries are read, so what came meanwhile is asked for too.
        while version < self._index.version:
            recent = self._recent.since(version)
            if recent is not None:
                return joined([*read, recent])
            try:
                entries = await self._log.read(version, _READ_AT_ONCE)
            except LogTruncated:
                return Changes(is_reload=True)
            read.append(gather(entries))
            version = entries[-1].position
        return joined(read)

    async def numbers_of(self, user_ids: Collection[UUID], index: SetIndex) -> dict[UUID, int]:
        """The numbers of those of these users whom `index` knows."""
        numbers = {user_id: self._numbers[user_id] for user_id in user_ids if user_id in self._numbers}
        missing = [user_id for user_id in user_ids if user_id not in numbers]
        if missing:
            found = await self._store.find_numbers(missing)
            self._remember(found)
            numbers |= found
        known = Audience.of(numbers.values()) & index.everyone
        if len(known) == len(numbers):
            return numbers
        return {user_id: number for user_id, number in numbers.items() if number in known}

    async def names_of(self, numbers: Collection[int]) -> dict[int, tuple[UUID, str]]:
        """The user ids and names of these numbers, of those that somebody has."""
        return await self._store.find_names(numbers) if numbers else {}

    async def weddings_of(self, number: int) -> list[UUID]:
        """The weddings on whose team somebody is: at least those that the index says, and perhaps newer ones."""
        return await self._store.list_weddings_of(number)

    async def role_of(self, user_id: UUID) -> str | None:
        """The role of a user at this call; None for those whom the directory does not know."""
        index = await self.current()
        number = (await self.numbers_of([user_id], index)).get(user_id)
        return index.role_of(number) if number is not None else None

    async def _read_people(self, index: SetIndex) -> None:
        last = await self._store.find_last_number()
        for start in range(1, last + 1, PEOPLE_PAGE):
            await _replace_people(
                index, Audience(), await self._store.list_people(start, start + PEOPLE_PAGE)
            )

    async def _read_weddings(self, index: SetIndex) -> int:
        """How many there are."""
        count = 0
        async for entries in self._store.list_weddings():
            filters = await self._store.find_filters([entry.wedding_id for entry in entries])
            index.replace_weddings((), entries, filters)
            count += len(entries)
        await _prepare_weddings(index)
        return count

    async def _pass_after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        # From here on who comes needs another pass.
        self._running, self._next = self._next, None
        await self._catch_up()

    async def _catch_up(self) -> None:
        is_behind = True
        while is_behind:
            try:
                entries = await self._log.read(self._index.version, _READ_AT_ONCE)
            except LogTruncated:
                await self.build()
                continue
            is_behind = len(entries) == _READ_AT_ONCE
            changes = gather(entries)
            if changes.is_reload:
                await self.build()
            elif entries:
                await self._apply(entries, changes)

    async def _apply(self, entries: list[LogEntry], changes: Changes) -> None:
        """Read anew what the entries name; it is seen in the index all at once."""
        started = time.monotonic()
        people = await self._store.find_people(changes.recipients) if changes.recipients else PeopleGroups()
        weddings = await self._store.find_weddings(changes.weddings) if changes.weddings else []
        filters = await self._store.find_filters(changes.weddings) if changes.weddings else []
        segments = await self._store.find_segments(changes.segments) if changes.segments else []
        await _replace_people(self._index, changes.recipients, people)
        self._forget(changes.recipients & self._index.having(FacetKind.ERASED))
        self._index.replace_weddings(changes.weddings, weddings, filters)
        self._index.replace_segments(changes.segments, segments)
        self._index.version = entries[-1].position
        self._recent.add(entries)
        await _prepare_weddings(self._index)
        INDEX_APPLY_SECONDS.observe(time.monotonic() - started)
        _show(self._index)

    def _forget(self, erased: Audience) -> None:
        """Keep no user id of those who are nobody any more."""
        if erased:
            gone = [user_id for user_id, number in self._numbers.items() if number in erased]
            for user_id in gone:
                del self._numbers[user_id]

    def _remember(self, numbers: dict[UUID, int]) -> None:
        self._numbers.update(numbers)
        while len(self._numbers) > _REMEMBERED_NUMBERS:
            self._numbers.popitem(last=False)


async def _replace_people(index: SetIndex, changed: Audience, groups: PeopleGroups) -> None:
    """Put people into the index without keeping everybody else waiting; they are in it when this returns."""
    for _ in index.replace_people(changed, groups):
        await asyncio.sleep(0)


async def _prepare_weddings(index: SetIndex) -> None:
    """Make the sets that questions about weddings are answered from, without keeping everybody else waiting."""
    for _ in index.prepare_weddings():
        await asyncio.sleep(0)


def _show(index: SetIndex) -> None:
    DIRECTORY_VERSION.set(index.version)
    DIRECTORY_RECIPIENTS.set(len(index.everyone))


def _look_at_error(task: asyncio.Task[None]) -> None:
    """Who waits for a pass gets its error; when all of them have gone away, it is nobody's."""
    if not task.cancelled():
        task.exception()
