"""The ordered log on a real Postgres: whoever appends and whenever, a reader sees a prefix without gaps."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import asyncpg
import pytest

from shared.cleaning import Batch, Hasty
from shared.clock import SystemClock
from shared.database import Database, connect
from shared.ordered_log import LogTruncated, OrderedLog
from tests.integration.shared.schemas import make_schema


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on a database with an empty log in the schema `ledger`."""
    connection = await asyncpg.connect(database_url)
    await make_schema(connection, "ledger", "ordered_log_template.sql")
    await connection.close()
    database = await connect(database_url, application_name="test", max_size=12)
    yield database
    await database.close()


@pytest.fixture
def log(database: Database) -> OrderedLog:
    """The empty log."""
    return OrderedLog(database, "ledger")


async def append(database: Database, log: OrderedLog, count: int) -> int:
    """Append `count` entries in one transaction."""
    async with database.transaction() as transaction:
        return await log.append_many(transaction, [("test", str(number).encode()) for number in range(count)])


async def append_in_vain(database: Database, log: OrderedLog, count: int) -> None:
    """Append in a transaction that is then rolled back."""
    with suppress(RuntimeError):
        async with database.transaction() as transaction:
            await log.append_many(transaction, [("test", b"in vain")] * count)
            raise RuntimeError


async def test_entries_are_read_as_they_were_appended(database: Database, log: OrderedLog) -> None:
    """Positions count from 1; kind, body and order are those of the appends."""
    assert await log.head() == 0
    assert await log.read(0) == []
    async with database.transaction() as transaction:
        assert await log.append(transaction, "joined", b"\0a") == 1
        assert await log.append_many(transaction, [("left", b"b"), ("joined", b"c")]) == 3
        assert await log.append_many(transaction, []) == 3
    found = [(entry.position, entry.kind, entry.body) for entry in await log.read(0)]
    assert found == [(1, "joined", b"\0a"), (2, "left", b"b"), (3, "joined", b"c")]
    assert [entry.position for entry in await log.read(1, limit=1)] == [2]
    assert await log.read(3) == []
    assert await log.head() == 3


async def test_a_rollback_leaves_no_gap(database: Database, log: OrderedLog) -> None:
    """The position of a transaction that was rolled back goes to the next one."""
    await append_in_vain(database, log, 3)
    assert await append(database, log, 1) == 1


async def test_taken_positions_are_consecutive(database: Database) -> None:
    """take_positions answers the last of so many, for owners with tables of their own."""
    assert await database.fetchval("SELECT ledger.take_positions(5)") == 5
    assert await database.fetchval("SELECT ledger.take_positions(2)") == 7
    assert await database.fetchval("SELECT ledger.take_positions(0)") == 7


async def write(database: Database, log: OrderedLog, seed: int) -> None:
    """25 transactions of one to four entries `seed.turn.number`, with one now and then that is rolled back."""
    chance = random.Random(seed)
    for turn in range(25):
        if chance.random() < 0.2:
            await append_in_vain(database, log, 2)
        async with database.transaction() as transaction:
            entries = [("test", f"{seed}.{turn}.{number}".encode()) for number in range(chance.randint(1, 4))]
            await log.append_many(transaction, entries)


async def follow(log: OrderedLog, writers: list[asyncio.Task[None]]) -> list[str]:
    """Everything that a reader sees from the start until the writers have ended; LogTruncated if there is a gap."""
    seen: list[str] = []
    while True:
        finished = all(writer.done() for writer in writers)
        entries = await log.read(len(seen), limit=7)
        seen += [entry.body.decode() for entry in entries]
        if finished and not entries:
            return seen


async def test_readers_always_see_a_gapless_prefix(database: Database, log: OrderedLog) -> None:
    """Eight writers, some rolling back; two readers meanwhile never miss, repeat or reorder an entry."""
    async with asyncio.TaskGroup() as tasks:
        writers = [tasks.create_task(write(database, log, seed)) for seed in range(8)]
        readers = [tasks.create_task(follow(log, writers)) for _ in range(2)]
    seen = readers[0].result()
    assert readers[1].result() == seen
    assert len(set(seen)) == len(seen) == await log.head()
    by_writer = [
        [tuple(map(int, body.split("."))) for body in seen if body.startswith(f"{n}.")] for n in range(8)
    ]
    assert by_writer == [sorted(entries) for entries in by_writer]
    assert all(len({turn for _, turn, _ in entries}) == 25 for entries in by_writer)


async def test_an_appender_waits_for_the_one_before(database: Database, log: OrderedLog) -> None:
    """While a position is not committed nobody gets a later one, so nobody can see one."""
    async with database.transaction() as transaction:
        await log.append(transaction, "test", b"first")
        second = asyncio.create_task(append(database, log, 1))
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        assert await log.read(0) == []
    assert await second == 2


async def test_a_tail_wakes_and_misses_nothing(database: Database, log: OrderedLog) -> None:
    """A hint brings the next batch long before the poll would; batches join up."""
    await append(database, log, 5)
    wake = asyncio.Event()
    tail = log.tail(1, wake, poll_s=60.0, limit=3)
    async with asyncio.timeout(10):
        assert [entry.position for entry in await anext(tail)] == [2, 3, 4]
        assert [entry.position for entry in await anext(tail)] == [5]
        upcoming = asyncio.ensure_future(anext(tail))
        await append(database, log, 2)
        wake.set()
        assert [entry.position for entry in await upcoming] == [6, 7]
    await tail.aclose()


async def test_a_tail_polls_when_the_hint_is_lost(database: Database, log: OrderedLog) -> None:
    """Without a wake-up the entry arrives all the same."""
    tail = log.tail(0, asyncio.Event(), poll_s=0.05)
    async with asyncio.timeout(10):
        upcoming = asyncio.ensure_future(anext(tail))
        await append(database, log, 1)
        assert [entry.position for entry in await upcoming] == [1]
    await tail.aclose()


async def grow_old(database: Database, *positions: int) -> None:
    """As if these entries were two days old."""
    query = "UPDATE ledger.log SET at = now() - interval '2 days' WHERE position = ANY ($1)"
    await database.execute(query, list(positions))


async def test_what_was_removed_is_told_and_not_skipped(database: Database, log: OrderedLog) -> None:
    """As many go as are counted; a reader from before the oldest gets LogTruncated, and from there on reads as ever."""
    await append(database, log, 10)
    await grow_old(database, 1, 2, 3, 4)
    chore, hasty = log.retention(timedelta(days=1)), Hasty(database, SystemClock())
    assert await chore.count() == 4
    assert await chore.remove(hasty, 3) == Batch(3, is_last=False)
    assert await chore.remove(hasty, 3) == Batch(1, is_last=True)
    assert (await chore.count(), await chore.remove(hasty, 3)) == (0, Batch(0, is_last=True))
    assert [entry.position for entry in await log.read(4)] == [5, 6, 7, 8, 9, 10]
    with pytest.raises(LogTruncated):
        await log.read(3)
    await grow_old(database, *range(1, 11))
    assert await chore.remove(hasty, 100) == Batch(6, is_last=True)
    assert await log.read(10) == []
    with pytest.raises(LogTruncated):
        await log.read(9)
    assert await append(database, log, 1) == 11


async def test_removal_leaves_no_hole_behind_a_clock_that_was_put_right(
    database: Database, log: OrderedLog
) -> None:
    """An entry with a time from the future stays, and so does everything that follows it."""
    await append(database, log, 6)
    await grow_old(database, 1, 2, 4, 5)
    chore = log.retention(timedelta(days=1))
    assert await chore.count() == 2
    assert await chore.remove(Hasty(database, SystemClock()), 5) == Batch(2, is_last=True)
    assert [entry.position for entry in await log.read(2)] == [3, 4, 5, 6]


async def test_a_position_from_another_log_is_refused(database: Database, log: OrderedLog) -> None:
    """A position beyond the head, as after a restored backup, is told rather than waited for."""
    await append(database, log, 1)
    with pytest.raises(LogTruncated):
        await log.read(2)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO ledger.log_head (singleton, position) VALUES (false, 1)", asyncpg.CheckViolationError),
        ("INSERT INTO ledger.log_head (position) VALUES (1)", asyncpg.UniqueViolationError),
        ("UPDATE ledger.log_head SET position = -1", asyncpg.CheckViolationError),
        ("INSERT INTO ledger.log VALUES (0, 'a', '', now())", asyncpg.CheckViolationError),
    ],
)
async def test_the_schema_keeps_its_invariants(
    database: Database, statement: str, error: type[Exception]
) -> None:
    """One head, no negative position, no entry at 0: the tables refuse them whatever the code does."""
    with pytest.raises(error):
        await database.execute(statement)
