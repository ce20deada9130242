"""Owns reading the ordered log: entries at positions that became visible in order and without gaps.

The tables and functions are in `sql/ordered_log_template.sql`, which the owning schema's migration copies.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from shared.backoff import backoff_s
from shared.cleaning import RowChore
from shared.database import Database, Queryable
from shared.errors import DependencyUnavailable
from shared.queries import load
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_SQL: Final = Path(__file__).parent / "sql" / "ordered_log.sql"
_RETRY_FIRST_S: Final = 0.05
_RETRY_CEILING_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change: what kind it is, what it says, and its place in the order."""

    position: int
    kind: str
    body: bytes
    at: datetime


class LogTruncated(LookupError):
    """The log does not hold what comes after this position: it was pruned, or the log is not the one it came from."""

    def __init__(self, after: int, head: int) -> None:
        super().__init__(f"the log ends at {head} and no longer goes back to {after}")
        self.after = after
        self.head = head


class OrderedLog:
    """The log of one schema. Readers never see an entry before all that precede it."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database = database
        self._schema = schema
        self._queries = load(_SQL, schema=schema)

    async def head(self) -> int:
        """The last position; 0 when nothing was ever appended."""
        return int(await self._database.fetchval(self._queries["find_head"]))

    async def append(self, transaction: Queryable, kind: str, body: bytes) -> int:
        """Add an entry in the caller's transaction; its position. Everyone else who appends waits for that commit."""
        return int(await transaction.fetchval(self._queries["append"], kind, body))

    async def append_many(self, transaction: Queryable, entries: Sequence[tuple[str, bytes]]) -> int:
        """Add `(kind, body)` entries in order in the caller's transaction; the last position."""
        kinds, bodies = [kind for kind, _ in entries], [body for _, body in entries]
        return int(await transaction.fetchval(self._queries["append_many"], kinds, bodies))

    async def read(self, after: int, limit: int = 1000) -> list[LogEntry]:
        """Up to `limit` entries that follow position `after`, in order; none at the end. Raises LogTruncated."""
        rows = await self._database.fetch(self._queries["read_after"], after, limit)
        head = rows[0]["head"]
        if rows[0]["position"] is None:
            if after != head:
                raise LogTruncated(after, head)
            return []
        if rows[0]["position"] != after + 1:
            raise LogTruncated(after, head)
        return [LogEntry(row["position"], row["kind"], row["body"], row["at"]) for row in rows]

    async def tail(
        self, after: int, wake: asyncio.Event, poll_s: float = 1.0, limit: int = 1000
    ) -> AsyncIterator[list[LogEntry]]:
        """Batches of what follows `after`, without end: read when `wake` is set, and every `poll_s` in any case.

        `wake` belongs to this reader alone. An outage of the database is waited out. Raises LogTruncated.
        """
        failures = 0
        while True:
            wake.clear()
            try:
                entries = await self.read(after, limit)
            except DependencyUnavailable as error:
                failures += 1
                log.warning("log_tail_interrupted", schema=self._schema, failures=failures, error=str(error))
                await asyncio.sleep(backoff_s(failures, _RETRY_FIRST_S, _RETRY_CEILING_S))
                continue
            failures = 0
            if entries:
                after = entries[-1].position
                yield entries
            if len(entries) < limit:
                await wait_for_hint(wake, poll_s)

    def retention(self, kept_for: timedelta) -> RowChore:
        """Removes the oldest entries; a reader that is further behind is told LogTruncated."""
        counts, removes = self._queries["count_old"], self._queries["remove_old"]
        return RowChore("log", kept_for, self._database, counts, removes)
