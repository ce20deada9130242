"""The pool on a real Postgres: values, identities that end with their transaction, outages told as such."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from shared.audience import Audience
from shared.database import RECIPIENT_SETTING, Database, Transaction, connect
from shared.errors import DependencyUnavailable
from shared.settings import SettingsError
from tests.integration.shared.certificates import Authority
from tests.integration.shared.outages import Relay

IDENTITY = f"SELECT nullif(current_setting('{RECIPIENT_SETTING}', true), '')"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool of two connections."""
    database = await connect(database_url, application_name="sender.api", max_size=2, acquire_timeout_s=0.5)
    yield database
    await database.close()


@pytest.fixture
async def counter(database: Database) -> AsyncIterator[str]:
    """A table with two numbered rows."""
    await database.execute("CREATE TABLE counter (id int PRIMARY KEY, value int NOT NULL)")
    await database.execute("INSERT INTO counter VALUES (1, 0), (2, 0)")
    yield "counter"
    await database.execute("DROP TABLE counter")


async def test_values_go_and_come_as_python_has_them(database: Database) -> None:
    """jsonb is Python values, uuid is UUID, a bit string is bytes."""
    value = {"a": [1, "ü", None]}
    identifier = uuid.uuid4()
    row = await database.fetchrow(
        "SELECT $1::jsonb AS a, $2::uuid AS b, $3::bit(16) AS c", value, identifier, b"\x80\x01"
    )
    assert row is not None
    assert tuple(row) == (value, identifier, b"\x80\x01")
    assert [row["n"] for row in await database.fetch("SELECT n FROM generate_series(1, 3) AS n")] == [1, 2, 3]
    assert await database.fetchval("SELECT $1::bit(16)::text", b"\x80\x01") == "1000000000000001"


async def test_an_audience_is_found_in_postgres_bits(database: Database) -> None:
    """Rows made from a partition answer get_bit for exactly the members; read back they are the audience."""
    audience = Audience.of([*range(0, 4096, 7), *range(8192, 12288), *range(20_000, 20_600, 3)])
    partition = audience.partition()
    blocks, bits = zip(*partition.dense, strict=True)
    rows = await database.fetch(
        """
        WITH held AS (SELECT block, members FROM unnest($1::int[], $2::bit(4096)[]) AS r (block, members))
        SELECT held.block, held.members, array_agg(held.block * 4096 + n ORDER BY n) AS numbers
        FROM held, generate_series(0, 4095) AS n
        WHERE get_bit(held.members, (held.block * 4096 + n) & 4095) <> 0
        GROUP BY held.block, held.members ORDER BY held.block
        """,
        blocks,
        bits,
    )
    assert [number for row in rows for number in row["numbers"]] == audience.to_list()
    assert Audience.from_blocks((row["block"], row["members"]) for row in rows) == audience


async def test_a_transaction_is_all_or_nothing(database: Database, counter: str) -> None:
    """What was done in a block that raises is undone; the error is the block's own."""
    with pytest.raises(OSError, match="the disk of somebody else"):  # noqa: PT012  # the block is what is tested
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE counter SET value = 7")
            raise OSError("the disk of somebody else")
    assert await database.fetchval("SELECT max(value) FROM counter") == 0
    async with database.transaction() as transaction:
        await transaction.executemany("UPDATE counter SET value = $2 WHERE id = $1", [(1, 5), (2, 6)])
    assert [row["value"] for row in await database.fetch("SELECT value FROM counter ORDER BY id")] == [5, 6]


async def test_a_cancelled_call_gives_its_connection_back(database: Database) -> None:
    """A caller that leaves in the middle of a statement does not use up the pool."""
    for _ in range(4):
        sleeping = asyncio.create_task(database.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0)
        sleeping.cancel()
        await asyncio.wait([sleeping])
    assert await database.fetchval("SELECT 1") == 1


async def test_an_identity_ends_with_its_transaction(database: Database) -> None:
    """Inside, policies see the recipient; the same connection afterwards is nobody's."""
    alone = database
    async with alone.as_recipient(17) as transaction:
        assert await transaction.fetchval(IDENTITY) == "17"
        process = await transaction.fetchval("SELECT pg_backend_pid()")
    assert await alone.fetchval("SELECT pg_backend_pid()") == process
    assert await alone.fetchval(IDENTITY) is None
    async with alone.identity_transaction({"app.sender": "a'; b", "app.role": "admin"}) as transaction:
        assert await transaction.fetchval("SELECT current_setting('app.sender')") == "a'; b"


async def test_a_conflict_is_tried_again(database: Database, counter: str) -> None:
    """Two transactions that lock each other's rows: Postgres ends one, and it succeeds the second time."""
    together = asyncio.Barrier(2)
    runs: list[int] = []

    def adding(first: int, second: int) -> asyncio.Task[int]:
        async def work(transaction: Transaction) -> int:
            runs.append(first)
            await transaction.execute("UPDATE counter SET value = value + 1 WHERE id = $1", first)
            if len(runs) <= 2:
                await together.wait()
            await transaction.execute("UPDATE counter SET value = value + 1 WHERE id = $1", second)
            return first

        return asyncio.create_task(database.retrying(work))

    assert await asyncio.gather(adding(1, 2), adding(2, 1)) == [1, 2]
    assert [row["value"] for row in await database.fetch("SELECT value FROM counter")] == [2, 2]
    assert len(runs) == 3


async def test_a_conflict_that_stays_is_unavailable(database: Database) -> None:
    """After the last attempt the caller is asked to come back."""
    runs = []

    async def work(transaction: Transaction) -> None:
        runs.append(1)
        await transaction.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(DependencyUnavailable, match="too busy"):
        await database.retrying(work, attempts=3)
    assert len(runs) == 3


async def test_a_statement_by_itself_is_asked_again_after_a_conflict(database: Database) -> None:
    """As a transaction is, and given up as one; a sequence counts the attempts, because it is not rolled back."""
    await database.execute("CREATE SEQUENCE attempts")
    await database.execute(
        "CREATE FUNCTION conflict_until(last bigint) RETURNS bigint LANGUAGE plpgsql AS $$ "
        "BEGIN IF nextval('attempts') < last THEN RAISE SQLSTATE '40001'; END IF; RETURN currval('attempts'); END $$"
    )
    assert [row[0] for row in await database.fetch_retrying("SELECT conflict_until(3)")] == [3]
    with pytest.raises(DependencyUnavailable, match="too busy"):
        await database.fetch_retrying("SELECT conflict_until(99)", attempts=2)
    assert await database.fetchval("SELECT nextval('attempts')") == 6


async def test_an_exhausted_pool_is_unavailable(database: Database) -> None:
    """Whoever waits for a connection longer than allowed is told so, instead of piling up."""
    async with database.transaction(), database.transaction():
        with pytest.raises(DependencyUnavailable):
            await database.fetchval("SELECT 1")
    assert await database.fetchval("SELECT 1") == 1


async def test_a_url_that_asks_for_tls_is_not_served_without(database_url: str, tmp_path: Path) -> None:
    """The server of the tests has none: nothing is sent to it, instead of everything in the clear."""
    authority = Authority(tmp_path).path
    for asked in ("sslmode=require", f"sslmode=verify-full&sslrootcert={authority}"):
        with pytest.raises(DependencyUnavailable):
            await connect(f"{database_url}?{asked}", application_name="test")


async def test_a_url_that_is_of_no_use_is_a_fault_of_the_settings(database_url: str) -> None:
    """Trying again would not help, so a supervisor is not to."""
    with pytest.raises(SettingsError, match=r"The database URL of sender-api: .*sslmode"):
        await connect(f"{database_url}?sslmode=perhaps", application_name="sender-api")


async def test_a_statement_that_takes_too_long_is_unavailable(database_url: str) -> None:
    """Postgres cancels it, and the connection lives on."""
    database = await connect(database_url, application_name="test", statement_timeout_s=0.1)
    with pytest.raises(DependencyUnavailable):
        await database.execute("SELECT pg_sleep(10)")
    assert await database.fetchval("SELECT 1") == 1
    await database.close()


async def test_a_killed_connection_is_unavailable_once(database: Database) -> None:
    """When Postgres ends the session in a transaction that call fails; the next one gets a new connection."""
    with pytest.raises(DependencyUnavailable):  # noqa: PT012  # the transaction is what is tested
        async with database.transaction() as transaction:
            process = await transaction.fetchval("SELECT pg_backend_pid()")
            await database.execute("SELECT pg_terminate_backend($1)", process)
            while True:  # until the signal has got there
                await transaction.fetchval("SELECT 1")
    assert await database.fetchval("SELECT 1") == 1


async def test_an_outage_is_unavailable_and_ends(database_url: str) -> None:
    """While Postgres cannot be reached every call says so within its bounds; afterwards the same pool works."""
    relay = await Relay.start(database_url)
    database = await connect(relay.url, application_name="test", acquire_timeout_s=0.5)
    await database.check()
    await relay.cut()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            await database.fetchval("SELECT 1")
    with pytest.raises(DependencyUnavailable):
        await database.check()
    with pytest.raises(DependencyUnavailable):
        await connect(relay.url, application_name="test")
    await relay.mend()
    await database.check()
    await database.close()
    await relay.stop()


async def test_a_closed_pool_is_unavailable(database_url: str) -> None:
    """A call that comes during the drain is told to go elsewhere."""
    database = await connect(database_url, application_name="test")
    await database.close()
    with pytest.raises(DependencyUnavailable):
        await database.fetchval("SELECT 1")


async def test_a_defect_of_ours_is_no_outage(database: Database) -> None:
    """Wrong SQL, a broken constraint and wrong arguments come as asyncpg has them."""
    with pytest.raises(asyncpg.UndefinedTableError):
        await database.fetch("SELECT 1 FROM nowhere")
    with pytest.raises(asyncpg.InterfaceError):
        await database.fetch("SELECT $1::int")


async def test_sessions_are_set_up(database: Database) -> None:
    """The name that an operator sees in pg_stat_activity, the limits and the zone."""
    settings = await database.fetch(
        "SELECT name, setting FROM pg_settings WHERE name = ANY($1)",
        ["application_name", "statement_timeout", "TimeZone", "jit"],
    )
    assert {row["name"]: row["setting"] for row in settings} == {
        "application_name": "sender.api",
        "statement_timeout": "10000",
        "TimeZone": "UTC",
        "jit": "off",
    }
