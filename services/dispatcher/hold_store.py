"""Owns what is asked of the rows about holds: letting go those that have ended, and looking through the others."""

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from services.dispatcher import rows
from services.dispatcher.domain import Priority
from services.dispatcher.work import Release, WaitingChunk
from shared.database import Database
from shared.failpoints import declare, failpoint
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_PAGE: Final = 64
_COARSE_AT_ONCE: Final = 16
# Before the first: no hold ends earlier, and no turn is smaller.
_START: Final = (datetime(1, 1, 1, tzinfo=UTC), -1, UUID(int=0), -1)

declare("dispatcher.let_go.before", "dispatcher.let_go.after_commit")


class HoldStore:
    """The worker's rows of what is held."""

    def __init__(self, database: Database) -> None:
        """`database` is that of the worker login."""
        self._database = database

    async def let_go(self, release_per_second: int, most_chunks: int) -> Release:
        """End the holds whose turn has come, in all lanes, and look at no more than so many chunks of each."""
        await failpoint("dispatcher.let_go.before")
        row = await self._database.fetchrow(_QUERIES["let_go"], release_per_second, most_chunks)
        if row is None:
            raise LookupError("a function that answers one row answered none")
        if row["released"]:
            await failpoint("dispatcher.let_go.after_commit")
        return Release(row["released"], row["next_s"], frozenset(map(Priority, row["lanes"] or ())))

    async def coarse(self, lanes: Collection[Priority], part: int) -> list[WaitingChunk]:
        """Some chunks of more than `part` people that are due within a minute."""
        found = await self._database.fetch(_QUERIES["find_coarse"], list(lanes), part, _COARSE_AT_ONCE)
        return [rows.held_chunk(row) for row in found]

    async def is_any_asleep(self, lanes: Collection[Priority]) -> bool:
        """Whether anything is held in these lanes that is not due yet."""
        return bool(await self._database.fetchval(_QUERIES["is_any_asleep"], list(lanes)))

    async def oldest_decision(self, lanes: Collection[Priority]) -> int | None:
        """The directory version of the oldest decision by which something is held that is not due; None for none."""
        version: int | None = await self._database.fetchval(_QUERIES["find_oldest_decision"], list(lanes))
        return version

    async def pages(self, lane: Priority) -> AsyncIterator[list[WaitingChunk]]:
        """All that is held in a lane and not due yet, some at a time."""
        place: tuple[object, ...] = _START
        while page := await self._database.fetch(_QUERIES["list_asleep"], lane, *place, _PAGE):
            yield [rows.held_chunk(row) for row in page]
            last = page[-1]
            place = (last["release_at"], last["turn"], last["broadcast_id"], last["chunk"])

    async def within(self, broadcast_ids: Collection[UUID], weddings: Collection[UUID]) -> set[UUID]:
        """Those of these broadcasts that one of these weddings' teams bounds."""
        if not broadcast_ids or not weddings:
            return set()
        found = await self._database.fetch(_QUERIES["list_walls"], list(broadcast_ids), list(weddings))
        return {row["broadcast_id"] for row in found}
