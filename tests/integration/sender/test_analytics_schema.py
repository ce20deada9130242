"""What the tables of analytics refuse by themselves, and what each login sees of them and may do."""

import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from shared.migrations import migrate
from stack.provision import SuiteDatabase, provision_database
from stack.servers import Place
from tests.integration.sender.records import Recorded, put_on_record

_MIGRATIONS = Path(__file__).parents[3] / "services" / "sender" / "migrations"
(_ANALYTICS,) = _MIGRATIONS.glob("*_analytics.sql")
DAY = date(2026, 11, 22)
OWN, TEAMS, FOREIGN = uuid4(), uuid4(), uuid4()
ALL = {OWN, TEAMS, FOREIGN}
WEDDING = uuid4()
ME, SOMEBODY = str(uuid4()), str(uuid4())
GOOD: dict[str, Any] = {
    "day": DAY,
    "type": "feature.released",
    "priority": 3,
    "created_by": SOMEBODY,
    "targeted": 10,
    "delivered": 8,
    "read": 6,
    "acknowledged": 6,
    "clicked": 6,
    "time_to_read_us": 60_000_000,
}
NOTHING = {"targeted": 0, "delivered": 0, "read": 0, "acknowledged": 0, "clicked": 0, "time_to_read_us": 0}


@pytest.fixture
async def tables(sender_database: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A day of mine, one about a wedding, one that is none of my business; changes are forgotten after the test."""
    connection = await asyncpg.connect(sender_database.admin_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SET LOCAL search_path TO sender")
    for broadcast_id, author in ((OWN, ME), (TEAMS, SOMEBODY), (FOREIGN, SOMEBODY)):
        await insert(connection, broadcast_id=broadcast_id, created_by=author)
    await connection.execute("INSERT INTO analytics_walls VALUES ($1, $2)", TEAMS, WEDDING)
    yield connection
    await transaction.rollback()
    await connection.close()


async def insert(tables: asyncpg.Connection, **changes: object) -> None:
    """Add the good day with some columns otherwise."""
    row = {"broadcast_id": uuid4()} | GOOD | changes
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await tables.execute(
        f"INSERT INTO daily_analytics ({', '.join(row)}) VALUES ({places})",  # noqa: S608 names of ours
        *row.values(),
    )


@pytest.mark.parametrize(
    "changes",
    [{}, NOTHING, NOTHING | {"targeted": 10}, {"delivered": 10, "read": 10}, {"time_to_read_us": 0}],
)
async def test_what_may_be_is_kept(tables: asyncpg.Connection, changes: dict[str, object]) -> None:
    """The rows that the others are one step away from."""
    await insert(tables, **changes)


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("type_is_a_name", {"type": "Feature released"}),
        ("type_is_a_name", {"type": "a." + "b" * 63}),
        ("priority_is_known", {"priority": 0}),
        ("priority_is_known", {"priority": 5}),
        ("author_has_a_name", {"created_by": ""}),
        ("author_has_a_name", {"created_by": "x" * 65}),
        ("delivered_were_targeted", {"targeted": 7}),
        ("delivered_were_targeted", NOTHING | {"targeted": -1, "delivered": -1}),
        ("readers_had_it", {"delivered": 5}),
        ("acknowledged_were_readers", {"acknowledged": 7}),
        ("acknowledged_were_readers", {"acknowledged": -1}),
        ("clicked_were_readers", {"clicked": 7}),
        ("clicked_were_readers", {"clicked": -1}),
        ("reading_takes_readers_time", {"time_to_read_us": -1}),
        ("reading_takes_readers_time", NOTHING | {"time_to_read_us": 1}),
    ],
)
async def test_what_cannot_be_is_refused(
    tables: asyncpg.Connection, constraint: str, changes: dict[str, object]
) -> None:
    """Each invariant by its name."""
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(tables, **changes)
    assert refused.value.constraint_name == constraint


async def test_every_constraint_is_provoked_here(tables: asyncpg.Connection) -> None:
    """A new CHECK without a test of it fails this one."""
    rows = await tables.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'daily_analytics'::regclass"
    )
    marks = test_what_cannot_be_is_refused.pytestmark
    assert {row["conname"] for row in rows} == {case[0] for case in marks[0].args[1]}


async def test_a_day_of_a_broadcast_and_a_wall_are_there_once(tables: asyncpg.Connection) -> None:
    """By their keys."""
    with pytest.raises(asyncpg.UniqueViolationError):
        async with tables.transaction():
            await insert(tables, broadcast_id=OWN)
    with pytest.raises(asyncpg.UniqueViolationError):
        await tables.execute("INSERT INTO analytics_walls VALUES ($1, $2)", TEAMS, WEDDING)


async def test_a_tally_is_of_a_broadcast_and_counts(tables: asyncpg.Connection) -> None:
    """One that there is; nobody is targeted less than nobody."""
    add = "INSERT INTO tallies (broadcast_id, targeted) VALUES ($1, $2)"
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with tables.transaction():
            await tables.execute(add, uuid4(), 1)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await tables.execute(add, uuid4(), -1)
    assert refused.value.constraint_name == "targeted_is_a_count"


@asynccontextmanager
async def role(tables: asyncpg.Connection, name: str, **named: str) -> AsyncIterator[asyncpg.Connection]:
    """Acts as a login, with these settings named; what it does is forgotten."""
    transaction = tables.transaction()
    await transaction.start()
    await tables.execute(f"SET LOCAL ROLE {name}")
    for setting, value in named.items():
        await tables.execute("SELECT set_config($1, $2, true)", f"sender.{setting}", value)
    try:
        yield tables
    finally:
        await transaction.rollback()


async def visible(tables: asyncpg.Connection, name: str = "sender_api", **named: str) -> set[UUID]:
    """The broadcasts of which a login sees days."""
    async with role(tables, name, **named) as connection:
        rows = await connection.fetch("SELECT broadcast_id FROM daily_analytics")
    return {row["broadcast_id"] for row in rows} & ALL


async def reported(
    tables: asyncpg.Connection, caller: str, reads_all: bool = False, weddings: Sequence[UUID] = ()
) -> tuple[set[UUID], int]:
    """What a call is told whose service says this of its caller: alone, and how many days there are in sums."""
    asked = (caller, reads_all, weddings, DAY, DAY, list(ALL))
    async with role(tables, "sender_api") as connection:
        rows = await connection.fetch(
            "SELECT broadcast_id FROM list_analytics($1, $2, $3, $4, $5, $6, NULL, NULL, NULL, NULL, NULL, NULL, 99)",
            *asked,
        )
        total = await connection.fetchval(
            "SELECT sum(targeted) / 10 FROM sum_analytics("
            "$1, $2, $3, $4, $5, $6, NULL, NULL, NULL, NULL, true, NULL, NULL, 99)",
            *asked,
        )
    return {row["broadcast_id"] for row in rows}, int(total or 0)


async def drop(tables: asyncpg.Connection, policy: str) -> None:
    """Take a policy away for the rest of the test."""
    await tables.execute(f"DROP POLICY {policy} ON daily_analytics")


async def test_nobody_named_sees_nothing(tables: asyncpg.Connection) -> None:
    """A call that forgets to say for whom it asks is told of nothing."""
    assert await visible(tables) == set()
    assert await visible(tables, caller="", reads_all="", weddings="") == set()
    assert await reported(tables, "") == (set(), 0)


async def test_author_sees_own_days(tables: asyncpg.Connection) -> None:
    """By read_own_analytics, and by nothing else."""
    assert await visible(tables, caller=ME) == {OWN}
    assert await reported(tables, ME) == ({OWN}, 1)
    await drop(tables, "read_own_analytics")
    assert await visible(tables, caller=ME) == set()
    assert await reported(tables, ME) == (set(), 0)


async def test_admin_sees_all_days(tables: asyncpg.Connection) -> None:
    """By read_all_analytics, and by nothing else."""
    assert await visible(tables, caller=ME, reads_all="true") == ALL
    assert await visible(tables, caller=ME, reads_all="false") == {OWN}
    assert await reported(tables, "billing", reads_all=True) == (ALL, 3)
    await drop(tables, "read_all_analytics")
    assert await visible(tables, caller=ME, reads_all="true") == {OWN}
    assert await reported(tables, "billing", reads_all=True) == (set(), 0)


async def test_coordinator_sees_days_about_own_weddings(tables: asyncpg.Connection) -> None:
    """By read_analytics_about_own_weddings, and by nothing else."""
    assert await visible(tables, caller=ME, weddings=f"{{{WEDDING},{uuid4()}}}") == {OWN, TEAMS}
    assert await visible(tables, caller=ME, weddings=f"{{{uuid4()}}}") == {OWN}
    assert await reported(tables, ME, weddings=[WEDDING]) == ({OWN, TEAMS}, 2)
    await drop(tables, "read_analytics_about_own_weddings")
    assert await visible(tables, caller=ME, weddings=f"{{{WEDDING}}}") == {OWN}
    assert await reported(tables, ME, weddings=[WEDDING]) == ({OWN}, 1)


async def test_worker_counts_any_broadcast(tables: asyncpg.Connection) -> None:
    """By read_to_count, add_days and raise_counts, each for itself."""
    more = "UPDATE daily_analytics SET delivered = 9 WHERE broadcast_id = $1"
    async with role(tables, "sender_worker") as connection:
        await insert(connection)
        assert await connection.execute(more, FOREIGN) == "UPDATE 1"
    await drop(tables, "raise_counts")
    async with role(tables, "sender_worker") as connection:
        assert await connection.execute(more, FOREIGN) == "UPDATE 0"
    await drop(tables, "add_days")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with role(tables, "sender_worker") as connection:
            await insert(connection)
    assert await visible(tables, "sender_worker") == ALL
    await drop(tables, "read_to_count")
    assert await visible(tables, "sender_worker") == set()


async def test_without_policies_everything_would_leak(tables: asyncpg.Connection) -> None:
    """The tests above see the policies at work, and not a login without a right to read."""
    await tables.execute("ALTER TABLE daily_analytics DISABLE ROW LEVEL SECURITY")
    assert await visible(tables) == ALL
    assert (await reported(tables, "billing", reads_all=True))[0] == ALL


@pytest.mark.parametrize(
    ("login", "statement"),
    [
        ("sender_api", "INSERT INTO analytics_walls VALUES (gen_random_uuid(), gen_random_uuid())"),
        ("sender_api", "UPDATE daily_analytics SET read = 0"),
        ("sender_api", "DELETE FROM daily_analytics"),
        ("sender_api", "SELECT broadcast_id FROM tallies"),
        ("sender_api", "UPDATE tallies SET due_at = now()"),
        ("sender_worker", "DELETE FROM daily_analytics"),
        ("sender_worker", "TRUNCATE daily_analytics"),
        ("sender_worker", "UPDATE daily_analytics SET created_by = 'other'"),
        ("sender_worker", "UPDATE daily_analytics SET targeted = 1000"),
        ("sender_worker", "DELETE FROM analytics_walls"),
    ],
)
async def test_login_cannot(tables: asyncpg.Connection, login: str, statement: str) -> None:
    """What no code of ours does is not possible either: what was counted is kept for good."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with role(tables, login, caller=ME, reads_all="true") as connection:
            await connection.execute(statement)


async def test_what_was_sent_before_there_were_analytics_is_counted_too(
    make_database: Callable[[str], str], place: Place, tmp_path: Path
) -> None:
    """From its day on, as long as the truth about it is there; what is over, is to come, or went to nobody is not."""
    suite = await provision_database(make_database("before"), place.secrets.password)
    for file in sorted(_MIGRATIONS.iterdir()):
        if file.name < _ANALYTICS.name:
            shutil.copy(file, tmp_path)
    admin = await asyncpg.connect(suite.admin_url)
    await migrate(admin, "sender", tmp_path)
    now = datetime.now(UTC)
    sent, under_way, old, ahead, failed = (
        Recorded(ME, now - timedelta(days=days), state=state)
        for days, state in ((5, "sent"), (0, "dispatching"), (90, "sent"), (-1, "cancelled"), (1, "failed"))
    )
    await put_on_record(admin, [sent, under_way, old, ahead, failed])
    shutil.copy(_ANALYTICS, tmp_path)
    await migrate(admin, "sender", tmp_path)
    rows = await admin.fetch("SELECT broadcast_id, next_day FROM sender.tallies")
    assert {row["broadcast_id"]: row["next_day"] for row in rows} == {
        each.broadcast_id: each.created_at.date() for each in (sent, under_way)
    }
    assert await admin.fetchval(
        "SELECT relforcerowsecurity FROM pg_class WHERE oid = 'sender.broadcasts'::regclass"
    )
    await admin.close()
