"""Owns what retention asks of the sender's tables, as the worker's login."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from shared.cleaning import Batch, Hasty, RowChore
from shared.database import Database
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
# A day, for which they count, and an hour for whoever took the time before that and counts now.
_COUNTS_KEPT_FOR: Final = timedelta(hours=25)


@dataclass(frozen=True, slots=True)
class Over:
    """A broadcast that is over for long enough, and whether an inbox might show it all the same."""

    broadcast_id: str
    ended_at: datetime
    may_be_shown: bool


_BEFORE_ALL: Final = Over(str(UUID(int=0)), datetime.min.replace(tzinfo=UTC), may_be_shown=False)


class RetentionStore:
    """What is old, and its removal. A broadcast that has expired is old after another time than one that has not."""

    def __init__(self, database: Database, expired_term: timedelta, other_term: timedelta) -> None:
        self._database = database
        self._terms = (expired_term, other_term)

    async def find_over(self, after: Over | None, limit: int) -> list[Over]:
        """Those that are over for long enough, in the order of their ends, behind one of them; none at the end."""
        place = after or _BEFORE_ALL
        rows = await self._database.fetch(
            _QUERIES["find_over"], *self._terms, place.ended_at, place.broadcast_id, limit
        )
        return [Over(str(row["broadcast_id"]), row["ended_at"], row["may_be_shown"]) for row in rows]

    async def remove_over(self, hasty: Hasty, broadcast_ids: Sequence[str]) -> Batch:
        """Remove these, unless something has happened to them."""
        return await hasty.run(_QUERIES["remove_over"], *self._terms, broadcast_ids)

    def past_sends(self) -> RowChore:
        """Removes sends that count for no limit any more."""
        counts, removes = _QUERIES["count_past_sends"], _QUERIES["remove_past_sends"]
        return RowChore("counted sends", _COUNTS_KEPT_FOR, self._database, counts, removes)
