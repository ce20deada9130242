"""Makes what lies in inboxes old, and cleans up: tests move the times of rows instead of the clock."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID

import asyncpg

from services.inbox.retention import Leaving, RetentionTerms, own_cleaner
from shared.cleaning import Cleaned, Cleaner
from shared.clock import SystemClock
from shared.database import connect
from shared.settings import Environment
from tests.integration.inbox.stores import Stores

TERMS = RetentionTerms.read(Environment({}))


class Hints:
    """Stands in for telling other nodes that the log has grown."""

    async def announce(self, position: int = 0) -> None:
        """Nobody listens."""


def leaving(stores: Stores) -> Leaving:
    """What is to leave inboxes."""
    return Leaving(stores.worked, stores.work, Hints(), TERMS)  # type: ignore[arg-type]


def cleaner(stores: Stores) -> Cleaner:
    """The inbox's own, by the usual settings. What takes long is not broken off: machines that test may be busy."""
    own = own_cleaner(stores.worked, stores.worker_url, leaving(stores), TERMS, SystemClock())
    own._opening = partial(connect, stores.worker_url, application_name="test")
    return own


async def clean_up(stores: Stores, *, dry_run: bool = False) -> dict[str, Cleaned]:
    """Clean up once; what became of each chore."""
    cleaned = await cleaner(stores).clean_up(dry_run=dry_run)
    assert [each for each in cleaned if each.error] == []
    return {each.what: each for each in cleaned}


async def age(admin: asyncpg.Connection, days: float, ids: Iterable[UUID | str]) -> None:
    """These broadcasts arrived so long ago, and were read so long ago by those who have."""
    back, wanted = timedelta(days=days), [UUID(str(each)) for each in ids]
    for statement in (
        "UPDATE broadcasts SET kept_at = kept_at - $1::interval WHERE broadcast_id = ANY ($2)",
        "UPDATE arrivals SET arrived_at = arrived_at - $1::interval WHERE broadcast_id = ANY ($2)",
        "UPDATE blocks SET arrived_at = arrived_at - $1::interval WHERE broadcast_id = ANY ($2)",
        "UPDATE direct SET arrived_at = arrived_at - $1::interval WHERE broadcast_id = ANY ($2)",
        "UPDATE receipts SET read_at = read_at - $1::interval WHERE broadcast_id = ANY ($2)",
    ):
        await admin.execute(statement, back, wanted)


async def expire(
    admin: asyncpg.Connection, days: float, ids: Iterable[UUID | str], *, is_told: bool = True
) -> None:
    """These broadcasts expired so long ago; the log said so and has forgotten it, unless it is not told yet."""
    wanted = [UUID(str(each)) for each in ids]
    query = "UPDATE broadcasts SET expires_at = now() - $1::interval, expiry_told = $3 WHERE broadcast_id = ANY ($2)"
    await admin.execute(query, timedelta(days=days), wanted, is_told)


async def rows_of(admin: asyncpg.Connection, broadcast_id: UUID | str) -> dict[str, int]:
    """How many rows each table has about a broadcast; those that have none are left out."""
    found = {}
    for table in ("broadcasts", "arrivals", "blocks", "direct", "receipts", "retractions"):
        query = f"SELECT count(*) FROM {table} WHERE broadcast_id = $1"  # noqa: S608 tables of ours
        if count := await admin.fetchval(query, UUID(str(broadcast_id))):
            found[table] = count
    return found


@asynccontextmanager
async def forgotten_log(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """For the time of the block, as if the log did not go back beyond this moment."""
    entries = await admin.fetch("DELETE FROM log RETURNING position, kind, body, at")
    try:
        yield
    finally:
        await admin.executemany(
            "INSERT INTO log (position, kind, body, at) VALUES ($1, $2, $3, $4)",
            [tuple(entry) for entry in entries],
        )
