"""The first admin: made once, by whoever has the administrative database, and known to services that run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from wedsync.broadcast.v1 import directory_pb2

from stack.errors import StackError
from stack.first_admin import FirstAdminRefused, Newcomer, UnknownPerson, make_first_admin
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase, provision_streams
from tests.conftest import MakeSuite
from tests.integration.preferences.inbox import told_inbox
from tests.integration.preferences.site import preferences_site

ADA = Newcomer("Ada", "Europe/Vienna")
_PEOPLE = "SELECT user_id, role, display_name, time_zone, number FROM preferences.recipients ORDER BY number"


@pytest.fixture
async def suite(make_suite: MakeSuite) -> SuiteDatabase:
    """A database with an empty directory."""
    return await make_suite("preferences")


@pytest.fixture
async def admin(suite: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's look at it."""
    connection = await asyncpg.connect(suite.admin_url)
    yield connection
    await connection.close()


async def _add(admin: asyncpg.Connection, role: str = "venue", *, is_erased: bool = False) -> UUID:
    user_id: UUID = await admin.fetchval(
        """
        INSERT INTO preferences.recipients (user_id, display_name, role, user_type, tier, time_zone, erased_at)
        VALUES (gen_random_uuid(), 'Somebody', $1, 'supplier', 'free', 'UTC', CASE WHEN $2 THEN now() END)
        RETURNING user_id
        """,
        role,
        is_erased,
    )
    return user_id


async def _state(admin: asyncpg.Connection) -> tuple[object, ...]:
    head = await admin.fetchval("SELECT position FROM preferences.log_head")
    return head, *await admin.fetch(_PEOPLE)


async def test_somebody_new_is_made_the_first_admin(suite: SuiteDatabase, admin: asyncpg.Connection) -> None:
    """With a name and a zone, as one of WedSync's own."""
    user_id = uuid4()
    made = await make_first_admin(suite.admin_url, user_id, ADA)
    (row,) = await admin.fetch(_PEOPLE)
    assert tuple(row) == (user_id, "admin", "Ada", "Europe/Vienna", made.number)
    assert made.is_new


async def test_somebody_known_becomes_the_first_admin_and_stays_who_they_are(
    suite: SuiteDatabase, admin: asyncpg.Connection
) -> None:
    """Name and zone of the directory stand, whatever is said now; the number is the one that they have."""
    await _add(admin)
    user_id = await _add(admin)
    made = await make_first_admin(suite.admin_url, user_id, ADA)
    assert [(row["role"], row["display_name"], row["time_zone"]) for row in await admin.fetch(_PEOPLE)] == [
        ("venue", "Somebody", "UTC"),
        ("admin", "Somebody", "UTC"),
    ]
    assert (made.is_new, made.number) == (False, 2)


async def test_the_first_admin_is_on_record(suite: SuiteDatabase, admin: asyncpg.Connection) -> None:
    """For the audit log, as done by the command and by nobody in the directory, known before or not."""
    user_id = await _add(admin)
    await make_first_admin(suite.admin_url, user_id, ADA)
    await admin.execute("UPDATE preferences.recipients SET role = 'venue'")
    newcomer = uuid4()
    await make_first_admin(suite.admin_url, newcomer, ADA)
    events = await admin.fetch(
        """
        SELECT action, user_id, role_before, role_after FROM preferences.audit_events
        WHERE actor = 'broadcast admin bootstrap' ORDER BY position
        """
    )
    assert list(map(tuple, events)) == [
        ("role_changed", user_id, "venue", "admin"),
        ("role_changed", newcomer, None, "admin"),
    ]


async def test_a_second_one_is_refused_and_nothing_changes(
    suite: SuiteDatabase, admin: asyncpg.Connection
) -> None:
    """Neither for somebody else, known or not, nor for the same person."""
    first, somebody = uuid4(), await _add(admin)
    await make_first_admin(suite.admin_url, first, ADA)
    before = await _state(admin)
    for user_id in (first, somebody, uuid4()):
        with pytest.raises(FirstAdminRefused, match="There is an admin already"):
            await make_first_admin(suite.admin_url, user_id, ADA)
    assert await _state(admin) == before


async def test_whoever_was_erased_is_nobody(suite: SuiteDatabase, admin: asyncpg.Connection) -> None:
    """An admin who was erased is not in the way of another one, and cannot be brought back."""
    gone = await _add(admin, "admin", is_erased=True)
    before = await _state(admin)
    with pytest.raises(FirstAdminRefused, match="was erased"):
        await make_first_admin(suite.admin_url, gone, ADA)
    assert await _state(admin) == before
    assert (await make_first_admin(suite.admin_url, uuid4(), ADA)).is_new


async def test_whoever_left_no_more_than_a_digest_is_not_taken_in_again(
    suite: SuiteDatabase, admin: asyncpg.Connection
) -> None:
    """The directory has no user id of the erased any more, and knows them all the same."""
    gone = uuid4()
    statement = "INSERT INTO preferences.erased_users (user_hash) VALUES (preferences.user_hash($1))"
    await admin.execute(statement, gone)
    before = await _state(admin)
    with pytest.raises(FirstAdminRefused, match="was erased"):
        await make_first_admin(suite.admin_url, gone, ADA)
    assert await _state(admin) == before


async def test_somebody_unknown_without_a_name_is_not_made_up(
    suite: SuiteDatabase, admin: asyncpg.Connection
) -> None:
    """A mistyped id must not become an admin."""
    before = await _state(admin)
    with pytest.raises(UnknownPerson, match="add --name"):
        await make_first_admin(suite.admin_url, uuid4(), None)
    assert await _state(admin) == before


async def test_of_many_at_once_one_is_made(suite: SuiteDatabase, admin: asyncpg.Connection) -> None:
    """Whoever comes second waits for the first and then finds an admin."""
    known = [await _add(admin) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(
            make_first_admin(suite.admin_url, user_id, ADA)
            for user_id in (*known, *(uuid4() for _ in range(4)))
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "FirstAdmin",
        *["FirstAdminRefused"] * 7,
    ]
    assert [row["role"] for row in await admin.fetch(_PEOPLE)].count("admin") == 1


async def test_a_service_that_runs_knows_the_first_admin_before_its_next_answer(
    suite: SuiteDatabase, tmp_path: Path, nats_server: NatsAccess
) -> None:
    """The role is in the answer right after the command, and gives the right that it gives."""
    await provision_streams(nats_server)
    async with told_inbox() as inbox, preferences_site(tmp_path, suite, nats_server, inbox) as site:
        somebody, other = await site.someone(role="venue"), await site.someone(role="venue")
        assert (await site.count(roles=["admin"])).targeted == 0
        await make_first_admin(suite.admin_url, UUID(somebody.user_id), None)
        assert (await site.count(roles=["admin"])).targeted == 1
        found = await site.directory.GetRecipient(
            directory_pb2.GetRecipientRequest(user_id=other.user_id), metadata=site.person(somebody.user_id)
        )
        assert found.recipient.user_id == other.user_id


async def test_an_administrator_who_is_no_superuser_makes_one_too(
    suite: SuiteDatabase, admin: asyncpg.Connection
) -> None:
    """Policies hide every row from them as themselves; they are let in by the role that they have made."""
    await make_first_admin(suite.admin_url, uuid4(), ADA)
    await admin.execute(
        """
        CREATE ROLE hosted_administrator LOGIN CREATEROLE PASSWORD 'hosted';
        GRANT preferences_worker TO hosted_administrator WITH ADMIN TRUE, SET FALSE, INHERIT FALSE
        """
    )
    try:
        database = await admin.fetchval("SELECT current_database()")
        await admin.execute(f"GRANT CONNECT ON DATABASE {database} TO hosted_administrator")
        host = suite.admin_url.rpartition("@")[2]
        hosted = f"postgresql://hosted_administrator:hosted@{host}"
        with pytest.raises(FirstAdminRefused):
            await make_first_admin(hosted, uuid4(), ADA)
        await admin.execute("UPDATE preferences.recipients SET role = 'venue'")
        assert (await make_first_admin(hosted, uuid4(), ADA)).is_new
    finally:
        await admin.execute("DROP OWNED BY hosted_administrator; DROP ROLE hosted_administrator")


async def test_a_login_of_a_service_cannot_make_one(suite: SuiteDatabase) -> None:
    """Whoever steals one may write the directory, and is told that this takes more."""
    with pytest.raises(StackError, match="may not write to the directory"):
        await make_first_admin(suite.url("preferences"), uuid4(), ADA)
