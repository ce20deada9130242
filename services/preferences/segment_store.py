"""Owns the table of segments: one method a query, and each change with its place in the directory's log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from services.preferences.changes import segments_changed
from services.preferences.rows import from_segment, to_segment
from services.preferences.segments import NAME_TAKEN, Segment, SegmentValues
from shared.database import Database, Row, Transaction
from shared.errors import InvalidField, NotFound
from shared.ordered_log import OrderedLog
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_NAME_ONCE: Final = "segments_name_once"


class SegmentStore:
    """Reads as the login of calls; changes as the worker, each in its turn and, last, with its place in the log."""

    def __init__(self, called: Database, worked: Database, log: OrderedLog) -> None:
        self._called = called
        self._worked = worked
        self._log = log

    async def find(self, segment_id: UUID) -> Segment:
        """A segment. Raises NotFound."""
        return _segment(await self._called.fetchrow(_QUERIES["find_segment"], segment_id))

    async def list_after(self, name: str, count: int) -> list[Segment]:
        """Up to `count` segments by name, from the one that follows `name` on."""
        rows = await self._called.fetch(_QUERIES["list_segments_after"], name, count)
        return [to_segment(row) for row in rows]

    async def take_turn(self, transaction: Transaction, actor: str) -> None:
        """Begin a change of the directory; `actor` is who is on record for it."""
        await transaction.execute(_QUERIES["take_directory_turn"], actor)

    async def find_to_change(self, transaction: Transaction, segment_id: UUID) -> Segment:
        """A segment as it is in the turn that the transaction has taken. Raises NotFound."""
        return _segment(await transaction.fetchrow(_QUERIES["find_segment"], segment_id))

    async def add(self, transaction: Transaction, values: SegmentValues, user_count: int) -> Segment:
        """A new segment. Raises InvalidField for a name that is taken."""
        with _name_free():
            row = await transaction.fetchrow(_QUERIES["add_segment"], *from_segment(values), user_count)
        return await self._logged(transaction, _segment(row))

    async def change(
        self, transaction: Transaction, segment_id: UUID, values: SegmentValues, user_count: int
    ) -> Segment:
        """The next version of a segment. Raises InvalidField for a name that is taken."""
        arguments = (segment_id, *from_segment(values), user_count)
        with _name_free():
            row = await transaction.fetchrow(_QUERIES["change_segment"], *arguments)
        return await self._logged(transaction, _segment(row))

    async def remove(self, transaction: Transaction, segment: Segment) -> None:
        """Remove a segment."""
        await transaction.execute(_QUERIES["remove_segment"], segment.segment_id)
        await self._logged(transaction, segment)

    async def due_counts(self, older_than_s: float) -> list[UUID]:
        """Segments that were counted longer ago, or never; the longest first."""
        rows = await self._worked.fetch(_QUERIES["list_due_counts"], older_than_s)
        return [row["segment_id"] for row in rows]

    async def keep_count(self, segment_id: UUID, version: int, user_count: int) -> None:
        """How many meet the criteria of this version; nothing is kept when it is another by now."""
        await self._worked.execute(_QUERIES["keep_count"], segment_id, version, user_count)

    async def _logged(self, transaction: Transaction, segment: Segment) -> Segment:
        await self._log.append_many(transaction, [segments_changed([segment.segment_id])])
        return segment


def _segment(row: Row | None) -> Segment:
    if row is None:
        raise NotFound("There is no such segment.")
    return to_segment(row)


@contextmanager
def _name_free() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != _NAME_ONCE:
            raise
        raise InvalidField(violations=[NAME_TAKEN]) from error
