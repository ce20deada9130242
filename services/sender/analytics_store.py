"""Owns the tables of analytics: what is to be counted, what was counted, and who is shown what of it."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from services.sender.analytics import Counted, Counts, Days, Group, Page, Place, Question, Row, Tally
from services.sender.domain import Priority, State
from services.sender.rights import Caller
from shared.database import Database
from shared.database import Row as Record
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_MICROSECOND: Final = timedelta(microseconds=1)


class TallyStore:
    """What is counted, of any broadcast, as the worker's login."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, limit: int, lease_s: float) -> list[Tally]:
        """Up to `limit` broadcasts that are due to be counted; what is not kept before the lease ends is due again."""
        rows = await self._database.fetch(_QUERIES["claim_tallies"], limit, lease_s)
        return [_tally(row) for row in rows]

    async def keep(self, counted: Sequence[Counted]) -> None:
        """Keep what was counted, and when each is looked at again. To keep it twice, or what is older, does no harm."""
        if not counted:
            return
        await self._database.execute(
            _QUERIES["keep_tallies"],
            [each.tally.broadcast_id for each in counted],
            [each.tally.day if each.counts is not None else None for each in counted],
            [each.tally.targeted for each in counted],
            *_columns([each.counts for each in counted]),
            [each.next_day for each in counted],
            [each.due_at for each in counted],
            min(each.tally.now for each in counted),
        )


class AnalyticsStore:
    """What a caller may see of what was counted, as the login under personal policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self, caller: Caller, question: Question, days: Days, after: Place | None, count: int
    ) -> Page:
        """Up to `count` rows that are this caller's to see, the newest day first, from the one that follows `after`."""
        # First, so that it says no more of the rows than is true of them.
        counted_through: date = await self._database.fetchval(_QUERIES["find_counted_through"])
        asked = (
            caller.author.name,
            caller.reads_all,
            caller.team_weddings,
            days.first,
            days.last,
            question.broadcast_ids or None,
            question.types,
            question.priorities or None,
            question.created_by or None,
            question.wedding_id,
        )
        following = (after and after.day, after and after.key, count)
        if question.group is Group.BROADCAST:
            rows = await self._database.fetch(_QUERIES["list_analytics"], *asked, *following)
            return Page([_broadcast_row(row) for row in rows], counted_through)
        by_type = question.group is Group.TYPE
        rows = await self._database.fetch(_QUERIES["sum_analytics"], *asked, by_type, *following)
        return Page([_group_row(row, by_type=by_type) for row in rows], counted_through)


def _tally(row: Record) -> Tally:
    return Tally(
        broadcast_id=str(row["broadcast_id"]),
        begun_at=row["begun_at"],
        day=row["next_day"],
        now=row["now"],
        targeted=row["targeted"],
        is_over=State(row["state"]).is_final,
    )


def _columns(counts: Sequence[Counts | None]) -> list[list[int | None]]:
    """From `delivered` to `time_to_read_us`, None where there are none."""
    rows = [(None,) * 5 if each is None else _values(each) for each in counts]
    return [[row[column] for row in rows] for column in range(5)]


def _values(counts: Counts) -> tuple[int, ...]:
    taken = counts.time_to_read // _MICROSECOND
    return (counts.delivered, counts.read, counts.acknowledged, counts.clicked, taken)


def _broadcast_row(row: Record) -> Row:
    broadcast_id = str(row["broadcast_id"])
    return Row(row["day"], broadcast_id, _counts(row), broadcast_id, row["type"], Priority(row["priority"]))


def _group_row(row: Record, *, by_type: bool) -> Row:
    if by_type:
        return Row(row["day"], row["key"], _counts(row), type=row["key"])
    return Row(row["day"], row["key"], _counts(row), priority=Priority(int(row["key"])))


def _counts(row: Record) -> Counts:
    return Counts(
        targeted=row["targeted"],
        delivered=row["delivered"],
        read=row["read"],
        acknowledged=row["acknowledged"],
        clicked=row["clicked"],
        time_to_read=row["time_to_read_us"] * _MICROSECOND,
    )
