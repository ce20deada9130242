"""Row level security: for each policy, what it lets through and nothing more, and that it is what does so."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from stack.provision import SuiteDatabase
from tests.integration.preferences.leaks import (
    COLLEAGUE,
    GONE,
    ME,
    MINE,
    OTHERS,
    PLAIN,
    PLAIN_GONE,
    ROWS,
    STRANGER,
)


@pytest.fixture(scope="module")
async def database(make_suite: Callable[..., Awaitable[SuiteDatabase]]) -> SuiteDatabase:
    """Three people, two weddings, and everybody's settings."""
    suite = await make_suite("preferences")
    admin = await asyncpg.connect(suite.admin_url, server_settings={"search_path": "preferences"})
    await admin.execute(ROWS)
    await admin.close()
    return suite


@asynccontextmanager
async def _as(
    database: SuiteDatabase, role: str, *before: str, **settings: object
) -> AsyncIterator[asyncpg.Connection]:
    """A transaction as a login role, after statements of the administrator, that leaves nothing behind."""
    connection = await asyncpg.connect(database.admin_url, server_settings={"search_path": "preferences"})
    transaction = connection.transaction()
    await transaction.start()
    try:
        for statement in before:
            await connection.execute(statement)
        await connection.execute(f"SET LOCAL ROLE {role}")
        for name, value in settings.items():
            await connection.execute("SELECT set_config('app.' || $1, $2, true)", name, str(value))
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def _seen(connection: asyncpg.Connection, table: str, column: str) -> list[object]:
    statement = f"SELECT DISTINCT {column} AS seen FROM {table} ORDER BY seen"  # noqa: S608 names of ours
    rows = await connection.fetch(statement)
    return [row["seen"] for row in rows]


ON_TEAMS = [ME, COLLEAGUE, STRANGER]
EVERYBODY = [*ON_TEAMS, PLAIN, PLAIN_GONE, GONE]
PERSONAL = [
    # table, policy, column, settings, what is seen by it alone
    ("recipients", "people_see_themselves", "number", {"recipient": ME}, [ME]),
    (
        "recipients",
        "coordinators_see_their_teams",
        "number",
        {"recipient": COLLEAGUE, "weddings": f"{{{MINE}}}"},
        [ME, COLLEAGUE],
    ),
    ("recipients", "admins_and_services_see_everyone", "number", {"reach": "everyone"}, EVERYBODY),
    ("team_members", "people_see_where_they_belong", "wedding_id", {"recipient": ME}, [MINE]),
    (
        "team_members",
        "coordinators_see_their_teams",
        "recipient_number",
        {"weddings": f"{{{MINE}}}"},
        [ME, COLLEAGUE],
    ),
    ("preferences", "people_keep_their_own", "recipient_number", {"recipient": ME}, [ME]),
    ("role_settings", "people_keep_their_own", "recipient_number", {"recipient": ME}, [ME]),
    ("wedding_filters", "people_keep_their_own", "recipient_number", {"recipient": ME}, [ME]),
    ("requests", "people_repeat_their_own", "request_id", {"caller": "me"}, [MINE]),
]
WORKERS = [
    ("recipients", "worker_reads_and_writes", "number", EVERYBODY),
    ("weddings", "worker_reads_and_writes", "wedding_id", [MINE, OTHERS]),
    ("team_members", "worker_reads_and_writes", "recipient_number", ON_TEAMS),
    ("preferences", "worker_reads", "recipient_number", EVERYBODY),
    ("role_settings", "worker_reads", "recipient_number", [*ON_TEAMS, GONE]),
    ("wedding_filters", "worker_reads", "recipient_number", [*ON_TEAMS, GONE]),
    ("erasures", "worker_reads_and_writes", "service", ["inbox"]),
    ("log", "worker_reads_and_writes", "position", [1]),
    ("outbox", "worker_reads_and_writes", "state", ["pending"]),
    ("audit_events", "worker_adds_and_tells", "action", ["erased", "team_joined"]),
    ("requests", "worker_reads_and_writes", "request_id", [MINE, OTHERS]),
]
APPENDING = ("log", "people_add_changes")


@pytest.mark.parametrize(("table", "policy", "column", "settings", "seen"), PERSONAL)
async def test_a_personal_policy_shows_what_it_says(
    database: SuiteDatabase,
    table: str,
    policy: str,
    column: str,
    settings: dict[str, object],
    seen: list[object],
) -> None:
    """By this policy the caller sees these rows; without it they see none of them that no other policy shows."""
    others = [name for each, name, *_ in PERSONAL if each == table and name != policy]
    alone = [f"DROP POLICY {name} ON {table}" for name in others]
    async with _as(database, "preferences_api", *alone, **settings) as connection:
        assert seen == await _seen(connection, table, column)
    async with _as(
        database, "preferences_api", *alone, f"DROP POLICY {policy} ON {table}", **settings
    ) as connection:
        assert await _seen(connection, table, column) == []


@pytest.mark.parametrize(("table", "column"), sorted({(each[0], each[2]) for each in PERSONAL}))
async def test_without_row_level_security_everything_would_leak(
    database: SuiteDatabase, table: str, column: str
) -> None:
    """Row level security is what hides: switched off, the same caller sees strangers; nameless, one sees nothing."""
    async with _as(
        database,
        "preferences_api",
        f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        recipient=ME,
    ) as connection:
        leaked = await _seen(connection, table, column)
    assert {STRANGER, OTHERS} & set(leaked)
    async with _as(database, "preferences_api") as connection:
        assert await _seen(connection, table, column) == []


@pytest.mark.parametrize(("table", "policy", "column", "seen"), WORKERS)
async def test_the_worker_sees_all_by_its_own_policy(
    database: SuiteDatabase, table: str, policy: str, column: str, seen: list[object]
) -> None:
    """And nothing without it."""
    async with _as(database, "preferences_worker") as connection:
        assert seen == await _seen(connection, table, column)
    async with _as(database, "preferences_worker", f"DROP POLICY {policy} ON {table}") as connection:
        assert await _seen(connection, table, column) == []


async def test_people_add_to_the_log_and_cannot_read_it(database: SuiteDatabase) -> None:
    """An edit is logged by its policy; without it the edit fails; what others changed stays unseen."""
    append = "SELECT append_log_many('{recipients}', '{x}')"
    async with _as(database, "preferences_api", recipient=ME) as connection:
        assert await connection.fetchval(append) == 2
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT position FROM log")
    table, policy = APPENDING
    async with _as(database, "preferences_api", f"DROP POLICY {policy} ON {table}") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await connection.fetchval(append)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE preferences SET system = false WHERE recipient_number = 3",
        "DELETE FROM role_settings WHERE recipient_number = 3",
        "DELETE FROM wedding_filters WHERE recipient_number = 3",
        "DELETE FROM requests WHERE caller = 'stranger'",
    ],
)
async def test_nobody_alters_what_is_anothers(database: SuiteDatabase, statement: str) -> None:
    """The row is not there for them; without row level security it would be."""
    table = statement.split()[-5] if statement.startswith("DELETE") else "preferences"
    async with _as(database, "preferences_api", recipient=ME) as connection:
        assert (await connection.execute(statement)).endswith(" 0")
    off = f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    async with _as(database, "preferences_api", off, recipient=ME) as connection:
        assert (await connection.execute(statement)).endswith(" 1")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO role_settings (recipient_number, role) VALUES (3, 'florist')",
        "INSERT INTO wedding_filters SELECT 3, wedding_id FROM team_members WHERE recipient_number = 1",
        "UPDATE preferences SET recipient_number = 3 WHERE recipient_number = 1",
        "UPDATE requests SET caller = 'stranger'",
    ],
)
async def test_nobody_writes_in_anothers_name(database: SuiteDatabase, statement: str) -> None:
    """A row that one may not see may not be written either."""
    async with _as(database, "preferences_api", recipient=ME, caller="me") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE recipients SET number = 9 WHERE number = 1",
        "UPDATE recipients SET user_id = gen_random_uuid() WHERE number = 1",
        "DELETE FROM recipients WHERE number = 1",
    ],
)
async def test_a_number_stands_for_its_person_for_good(database: SuiteDatabase, statement: str) -> None:
    """Not even the worker can change or free one."""
    async with _as(database, "preferences_worker") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET actor = 'nobody'", "TRUNCATE audit_events"])
async def test_an_event_cannot_be_altered_on_its_way(database: SuiteDatabase, statement: str) -> None:
    """It is added, told and gone."""
    async with _as(database, "preferences_worker") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@pytest.mark.parametrize("table", ["weddings", "outbox", "settings_in_effect", "audit_events"])
async def test_people_have_no_way_into_the_workers_tables(database: SuiteDatabase, table: str) -> None:
    """Not even to what would be theirs."""
    async with _as(database, "preferences_api", recipient=ME) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT 1 FROM {table}")  # noqa: S608 names of ours
