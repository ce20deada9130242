"""Cleaning on a real Postgres: nothing that it does holds a lock for long, whoever else is at the same rows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from shared.cleaning import Batch, Cleaner, Hasty, RowChore, TookTooLong, opening
from shared.clock import SystemClock
from shared.database import Database, connect

COUNT = "SELECT count(*) FROM attic.things WHERE at < now() - $1::interval"
REMOVE = """
    WITH gone AS (
        DELETE FROM attic.things
        WHERE id = ANY (ARRAY(
            SELECT id FROM attic.things WHERE at < now() - $1::interval ORDER BY at LIMIT $2::integer
        ))
        RETURNING id
    )
    SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone
"""
OLD, YOUNG = 5_000, 20


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with things of which most are old."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("DROP SCHEMA IF EXISTS attic CASCADE; CREATE SCHEMA attic")
    await connection.execute("CREATE TABLE attic.things (id bigint PRIMARY KEY, at timestamptz NOT NULL)")
    await connection.execute("CREATE INDEX ON attic.things (at)")
    await connection.execute(
        "INSERT INTO attic.things SELECT n, now() - CASE WHEN n <= $1 THEN interval '91 days' ELSE '1 day' END"
        " FROM generate_series(1, $2::integer) AS n",
        OLD,
        OLD + YOUNG,
    )
    yield connection
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The pool that everything else goes over."""
    database = await connect(database_url, application_name="test")
    yield database
    await database.close()


def things(database: Database) -> RowChore:
    """Things go after 90 days."""
    return RowChore("things", timedelta(days=90), database, COUNT, REMOVE)


async def test_what_a_dry_run_counts_is_what_a_run_removes(
    admin: asyncpg.Connection, database: Database, database_url: str
) -> None:
    """Nothing by the one, all of it and no more by the other; what is young stays."""
    cleaner = Cleaner([things(database)], opening(database_url, "attic"), SystemClock(), 3600.0)
    (counted,) = await cleaner.clean_up(dry_run=True)
    assert await admin.fetchval("SELECT count(*) FROM attic.things") == OLD + YOUNG
    (removed,) = await cleaner.clean_up()
    assert (counted.count, removed.count, removed.error) == (OLD, OLD, "")
    assert await admin.fetchval("SELECT count(*) FROM attic.things") == YOUNG


async def test_processes_that_clean_at_once_share_the_work(
    admin: asyncpg.Connection, database: Database, database_url: str
) -> None:
    """Each row is removed, and counted, once."""
    cleaners = [
        Cleaner([things(database)], opening(database_url, "attic"), SystemClock(), 3600.0) for _ in range(3)
    ]
    runs = await asyncio.gather(*(each.clean_up() for each in cleaners))
    left = await admin.fetchval("SELECT count(*) FROM attic.things")
    assert sum(cleaned.count for (cleaned,) in runs) == OLD + YOUNG - left
    (rest,) = await cleaners[0].clean_up()
    assert (left - rest.count, rest.error) == (YOUNG, "")


async def test_a_batch_that_meets_somebody_elses_lock_gives_up_with_its_own(
    admin: asyncpg.Connection, database_url: str
) -> None:
    """The server breaks it off: what it had locked is free again, and nothing of it is done."""
    database = await opening(database_url, "attic")()
    try:
        async with admin.transaction():
            await admin.execute("UPDATE attic.things SET at = at WHERE id = 40")
            with pytest.raises(TookTooLong):
                await Hasty(database, SystemClock()).run(REMOVE, timedelta(days=90), 50)
            held = await admin.fetchval(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE application_name = 'attic-cleaning' AND locktype IN ('transactionid', 'tuple')"
            )
            assert held == 0
        done = await Hasty(database, SystemClock()).run(REMOVE, timedelta(days=90), 50)
        assert done == Batch(50, is_last=False)
    finally:
        await database.close()


async def test_the_connection_for_batches_waits_for_no_disk_and_looks_through_no_table(
    admin: asyncpg.Connection, database_url: str
) -> None:
    """As the server has it: broken off in less than 100 ms, no wait for the disk, no reading from end to end."""
    database = await opening(database_url, "attic")()
    settings = {}
    for name in ("statement_timeout", "synchronous_commit", "enable_seqscan"):
        settings[name] = await database.fetchval("SELECT current_setting($1)", name)
    await database.close()
    assert settings == {"statement_timeout": "80ms", "synchronous_commit": "off", "enable_seqscan": "off"}
