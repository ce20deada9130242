"""What each login sees of the sender's tables: by whom its transaction names, policy by policy."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from stack.provision import SuiteDatabase

OWN, TEAMS, FOREIGN = uuid4(), uuid4(), uuid4()
WEDDING = uuid4()
ME, SOMEBODY = str(uuid4()), str(uuid4())


@dataclass(frozen=True, slots=True)
class Tables:
    """An administrator's connection in a transaction that is rolled back; roles are taken on within it."""

    admin: asyncpg.Connection

    @asynccontextmanager
    async def role(self, name: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
        """Acts as a login, with these settings named; what it does is forgotten."""
        transaction = self.admin.transaction()
        await transaction.start()
        await self.admin.execute(f"SET LOCAL ROLE {name}")
        for setting, value in settings.items():
            await self.admin.execute("SELECT set_config($1, $2, true)", f"sender.{setting}", value)
        try:
            yield self.admin
        finally:
            await transaction.rollback()

    async def visible(self, role: str = "sender_api", **settings: str) -> set[UUID]:
        """The broadcasts that a login sees."""
        async with self.role(role, **settings) as connection:
            rows = await connection.fetch("SELECT broadcast_id FROM broadcasts")
        return {row["broadcast_id"] for row in rows} & {OWN, TEAMS, FOREIGN}

    async def listed(self, caller: str, reads_all: bool = False, weddings: Sequence[UUID] = ()) -> set[UUID]:
        """The broadcasts that a call lists, whose service says this of its caller."""
        nothing = ", ".join(["NULL"] * 11)
        async with self.role("sender_api") as connection:
            rows = await connection.fetch(
                f"SELECT broadcast_id FROM list_broadcasts($1, $2, $3, {nothing}, 100)",  # noqa: S608
                caller,
                reads_all,
                weddings,
            )
        return {row["broadcast_id"] for row in rows} & {OWN, TEAMS, FOREIGN}

    async def stoppable(self, **settings: str) -> set[UUID]:
        """The broadcasts that a call may note to be stopped."""
        async with self.role("sender_api", **settings) as connection:
            rows = await connection.fetch(
                "UPDATE broadcasts SET cancel_requested_at = now() RETURNING broadcast_id"
            )
        return {row["broadcast_id"] for row in rows} & {OWN, TEAMS, FOREIGN}

    async def drop(self, policy: str, table: str) -> None:
        """Take a policy away for the rest of the test."""
        await self.admin.execute(f"DROP POLICY {policy} ON {table}")

    async def add(self, connection: asyncpg.Connection, broadcast_id: UUID, author: str) -> None:
        """A broadcast of this author."""
        await connection.execute(
            """
            INSERT INTO broadcasts (
                broadcast_id, type, priority, title, message, everyone, user_ids, roles, tiers, segment_ids,
                wedding_ids, scheduled_for, created_by, created_by_service, created_at, targeted, state
            )
            VALUES (
                $1, 'form.locked', 3, 't', 'm', true, '{}', '{}', '{}', '{}', '{}', now(), $2, false, now(), 1,
                'pending'
            )
            """,
            broadcast_id,
            author,
        )


@pytest.fixture
async def tables(sender_database: SuiteDatabase) -> AsyncIterator[Tables]:
    """A broadcast of mine, one about a wedding, and one that is none of my business."""
    admin = await asyncpg.connect(sender_database.admin_url)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("SET LOCAL search_path TO sender")
    found = Tables(admin)
    for broadcast_id, author in ((OWN, ME), (TEAMS, SOMEBODY), (FOREIGN, SOMEBODY)):
        await found.add(admin, broadcast_id, author)
    await admin.execute("INSERT INTO walls (broadcast_id, wedding_id) VALUES ($1, $2)", TEAMS, WEDDING)
    await admin.execute(
        "INSERT INTO requests (caller, method, request_id, body_hash, response) VALUES ($1, 'Send', $2, $3, '')",
        SOMEBODY,
        FOREIGN,
        bytes(32),
    )
    yield found
    await transaction.rollback()
    await admin.close()


async def test_nobody_named_sees_nothing(tables: Tables) -> None:
    """A call that forgets to say for whom it asks gets no row, and stops none."""
    assert await tables.visible() == set()
    assert await tables.visible(caller="", reads_all="", weddings="") == set()
    assert await tables.stoppable() == set()


async def test_author_sees_own(tables: Tables) -> None:
    """By read_own, and by nothing else."""
    assert await tables.visible(caller=ME) == {OWN}
    await tables.drop("read_own", "broadcasts")
    assert await tables.visible(caller=ME) == set()


async def test_admin_sees_all(tables: Tables) -> None:
    """By read_all, and by nothing else."""
    assert await tables.visible(caller=ME, reads_all="true") == {OWN, TEAMS, FOREIGN}
    assert await tables.visible(caller=ME, reads_all="false") == {OWN}
    await tables.drop("read_all", "broadcasts")
    assert await tables.visible(caller=ME, reads_all="true") == {OWN}


async def test_coordinator_sees_what_is_about_own_weddings(tables: Tables) -> None:
    """By read_about_own_weddings, and by nothing else."""
    assert await tables.visible(caller=ME, weddings=f"{{{WEDDING},{uuid4()}}}") == {OWN, TEAMS}
    assert await tables.visible(caller=ME, weddings=f"{{{uuid4()}}}") == {OWN}
    assert await tables.visible(caller=ME, weddings="{}") == {OWN}
    await tables.drop("read_about_own_weddings", "broadcasts")
    assert await tables.visible(caller=ME, weddings=f"{{{WEDDING}}}") == {OWN}


async def test_lists_are_bound_by_the_same_policies(tables: Tables) -> None:
    """What a list asks for decides only where it looks; without its policy, nothing is there."""
    assert await tables.listed("") == set()
    assert await tables.listed(ME) == {OWN}
    assert await tables.listed(ME, weddings=[WEDDING, uuid4()]) == {OWN, TEAMS}
    assert await tables.listed(ME, weddings=[uuid4()]) == {OWN}
    assert await tables.listed("billing", reads_all=True) == {OWN, TEAMS, FOREIGN}
    await tables.drop("read_about_own_weddings", "broadcasts")
    assert await tables.listed(ME, weddings=[WEDDING]) == {OWN}
    await tables.drop("read_own", "broadcasts")
    assert await tables.listed(ME) == set()
    await tables.drop("read_all", "broadcasts")
    assert await tables.listed("billing", reads_all=True) == set()


async def test_author_stops_own(tables: Tables) -> None:
    """By stop_own; seeing another's is not enough."""
    assert await tables.stoppable(caller=ME, weddings=f"{{{WEDDING}}}", reads_all="true") == {OWN}
    await tables.drop("stop_own", "broadcasts")
    assert await tables.stoppable(caller=ME) == set()


async def test_admin_stops_all(tables: Tables) -> None:
    """By stop_all, with reading."""
    assert await tables.stoppable(caller=ME, reads_all="true", stops_all="true") == {OWN, TEAMS, FOREIGN}
    await tables.drop("stop_all", "broadcasts")
    assert await tables.stoppable(caller=ME, reads_all="true", stops_all="true") == {OWN}


async def test_nobody_sends_in_anothers_name(tables: Tables) -> None:
    """By send_in_own_name; without it nothing could be sent at all."""
    async with tables.role("sender_api", caller=ME) as connection:
        await tables.add(connection, uuid4(), ME)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role("sender_api", caller=ME) as connection:
            await tables.add(connection, uuid4(), SOMEBODY)
    await tables.drop("send_in_own_name", "broadcasts")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role("sender_api", caller=ME) as connection:
            await tables.add(connection, uuid4(), ME)


KEEP = (
    "INSERT INTO requests (caller, method, request_id, body_hash, response) VALUES ($1, 'Send', $2, $3, '')"
)


async def test_answers_are_kept_in_own_name(tables: Tables) -> None:
    """By remember_own; without it nothing could be kept at all."""
    async with tables.role("sender_api", caller=ME) as connection:
        await connection.execute(KEEP, ME, uuid4(), bytes(32))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role("sender_api", caller=ME) as connection:
            await connection.execute(KEEP, SOMEBODY, uuid4(), bytes(32))
    await tables.drop("remember_own", "requests")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role("sender_api", caller=ME) as connection:
            await connection.execute(KEEP, ME, uuid4(), bytes(32))


async def test_answers_are_read_by_their_caller(tables: Tables) -> None:
    """By replay_own, and by nothing else."""

    async def seen(caller: str) -> int:
        async with tables.role("sender_api", caller=caller) as connection:
            return int(
                await connection.fetchval("SELECT count(*) FROM requests WHERE request_id = $1", FOREIGN)
            )

    assert (await seen(SOMEBODY), await seen(ME), await seen("")) == (1, 0, 0)
    await tables.drop("replay_own", "requests")
    assert await seen(SOMEBODY) == 0


COUNT = """
    INSERT INTO counted_sends (caller, type, priority, wedding_id, at, ordinal)
    VALUES ($1, 'form.locked', 3, $2, now(), 1)
"""
COUNTED_BEFORE = COUNT.replace("now()", "now() - make_interval(hours => $3)")


async def test_sends_are_counted_in_own_name(tables: Tables) -> None:
    """By count_own; without it nothing could be counted, and so nothing sent, at all."""
    async with tables.role("sender_api", caller=ME) as connection:
        await connection.execute(COUNT, ME, WEDDING)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role("sender_api", caller=ME) as connection:
            await connection.execute(COUNT, SOMEBODY, WEDDING)
    await tables.drop("count_own", "counted_sends")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role("sender_api", caller=ME) as connection:
            await connection.execute(COUNT, ME, WEDDING)


async def test_counts_are_read_by_their_sender(tables: Tables) -> None:
    """By read_own_counts, and by nothing else: what others send, and about which weddings, stays theirs."""
    await tables.admin.execute(COUNT, SOMEBODY, WEDDING)

    async def seen(caller: str) -> int:
        query = "SELECT count(*) FROM counted_sends WHERE wedding_id = $1"
        async with tables.role("sender_api", caller=caller, reads_all="true") as connection:
            return int(await connection.fetchval(query, WEDDING))

    assert (await seen(SOMEBODY), await seen(ME), await seen("")) == (1, 0, 0)
    await tables.drop("read_own_counts", "counted_sends")
    assert await seen(SOMEBODY) == 0


async def test_only_what_counts_no_more_is_cleared_away(tables: Tables) -> None:
    """By forget_past_counts, whatever the worker asks for."""
    for hours in (23, 25):
        await tables.admin.execute(COUNTED_BEFORE, ME, WEDDING, hours)
    async with tables.role("sender_worker") as connection:
        await connection.execute("DELETE FROM counted_sends")
        await connection.execute("RESET ROLE")
        rows = await connection.fetch("SELECT now() - at AS age FROM counted_sends WHERE caller = $1", ME)
    assert [row["age"] for row in rows] == [timedelta(hours=23)]


async def test_a_quota_is_read_in_own_name(tables: Tables) -> None:
    """The function that names the caller shows them theirs, whatever was named before."""
    await tables.admin.execute(COUNT, SOMEBODY, WEDDING)
    query = "SELECT hour_used, day_used FROM read_quota($1, 'form.locked', 3, $2, 25, 100)"
    for caller, used in ((SOMEBODY, (1, 1)), (ME, (0, 0))):
        async with tables.role("sender_api", caller=SOMEBODY) as connection:
            assert tuple(await connection.fetchrow(query, caller, WEDDING)) == used


AGE = "UPDATE requests SET at = now() - $1::interval WHERE request_id = $2"
DAY = timedelta(hours=24)


async def test_callers_free_what_holds_no_longer_of_their_own(tables: Tables) -> None:
    """By free_own: not another's, and not one that still holds."""

    async def freed(caller: str) -> str:
        async with tables.role("sender_api", caller=caller) as connection:
            return await connection.execute("DELETE FROM requests WHERE request_id = $1", FOREIGN)

    await tables.admin.execute(AGE, DAY - timedelta(microseconds=1), FOREIGN)
    assert await freed(SOMEBODY) == "DELETE 0"
    await tables.admin.execute(AGE, DAY, FOREIGN)
    assert (await freed(ME), await freed(SOMEBODY)) == ("DELETE 0", "DELETE 1")
    await tables.drop("free_own", "requests")
    assert await freed(SOMEBODY) == "DELETE 0"


async def test_worker_carries_any_broadcast(tables: Tables) -> None:
    """By read_to_dispatch and move_state; a call's login does not get there by naming nobody."""
    move = "UPDATE broadcasts SET state = 'dispatching' WHERE broadcast_id = $1"
    assert await tables.visible("sender_worker") == {OWN, TEAMS, FOREIGN}
    async with tables.role("sender_worker") as connection:
        assert await connection.execute(move, FOREIGN) == "UPDATE 1"
    await tables.drop("move_state", "broadcasts")
    async with tables.role("sender_worker") as connection:
        assert await connection.execute(move, FOREIGN) == "UPDATE 0"
    await tables.drop("read_to_dispatch", "broadcasts")
    assert await tables.visible("sender_worker") == set()


async def test_worker_removes_what_is_over_and_nothing_else(tables: Tables) -> None:
    """By remove_what_is_over: nothing that is under way, ended less than a week ago, or is critical."""
    remove = "DELETE FROM broadcasts WHERE broadcast_id = ANY ($1)"

    async def removed() -> str:
        async with tables.role("sender_worker") as connection:
            return str(await connection.execute(remove, [OWN, TEAMS, FOREIGN]))

    assert await removed() == "DELETE 0"
    await tables.admin.execute(
        """
        UPDATE broadcasts SET state = 'rejected', decided_by = 'reviewer', decided_at = now()
        WHERE broadcast_id = ANY ($1)
        """,
        [OWN, TEAMS],
    )
    assert await removed() == "DELETE 0"
    await tables.admin.execute(
        "UPDATE broadcasts SET ended_at = now() - interval '8 days' WHERE state = 'rejected'"
    )
    assert await removed() == "DELETE 2"
    await tables.admin.execute("UPDATE broadcasts SET priority = 1 WHERE broadcast_id = $1", TEAMS)
    assert await removed() == "DELETE 1"
    await tables.drop("remove_what_is_over", "broadcasts")
    assert await removed() == "DELETE 0"


async def test_worker_sees_and_removes_old_answers_and_not_what_they_say(tables: Tables) -> None:
    """By find_what_is_old and remove_what_is_old: an answer of the last day stays, whoever asks."""
    remove = "DELETE FROM requests WHERE at < now() - interval '24 hours'"

    async def removed() -> str:
        async with tables.role("sender_worker") as connection:
            return str(await connection.execute(remove))

    before = await removed()
    await tables.admin.execute(
        "UPDATE requests SET at = now() - interval '25 hours' WHERE request_id = $1", FOREIGN
    )
    assert (before, await removed()) == ("DELETE 0", "DELETE 1")
    await tables.drop("remove_what_is_old", "requests")
    assert await removed() == "DELETE 0"


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("sender_api", "DELETE FROM broadcasts"),
        ("sender_api", "UPDATE broadcasts SET state = 'sent'"),
        ("sender_api", "UPDATE broadcasts SET title = 'other'"),
        ("sender_api", "UPDATE broadcasts SET created_by = 'other'"),
        ("sender_api", "UPDATE broadcasts SET decided_by = 'other'"),
        ("sender_api", "UPDATE requests SET response = ''"),
        ("sender_api", "DELETE FROM counted_sends"),
        ("sender_api", "UPDATE counted_sends SET at = at - interval '1 day'"),
        ("sender_api", "UPDATE count_identity SET identity = gen_random_uuid()"),
        ("sender_api", "SELECT payload FROM outbox"),
        ("sender_api", "UPDATE outbox SET state = 'done'"),
        ("sender_worker", "DELETE FROM walls"),
        ("sender_worker", "DELETE FROM broadcasts USING requests WHERE response = ''"),
        ("sender_worker", "UPDATE broadcasts SET title = 'other'"),
        ("sender_worker", "UPDATE broadcasts SET created_by = 'other'"),
        ("sender_worker", "UPDATE broadcasts SET user_ids = '{}'"),
        ("sender_worker", "SELECT caller FROM requests"),
        ("sender_worker", "SELECT response FROM requests"),
        ("sender_worker", "UPDATE requests SET at = now()"),
        ("sender_worker", "SELECT caller FROM counted_sends"),
        ("sender_api", "CREATE TABLE more ()"),
        ("sender_worker", "ALTER TABLE broadcasts DISABLE ROW LEVEL SECURITY"),
    ],
)
async def test_login_cannot(tables: Tables, role: str, statement: str) -> None:
    """What no code of ours does is not possible either."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with tables.role(role, caller=ME, reads_all="true", stops_all="true") as connection:
            await connection.execute(statement)


async def test_without_policies_everything_would_leak(tables: Tables) -> None:
    """The tests above see the policies at work, and not a login without a right to read."""
    await tables.admin.execute("ALTER TABLE broadcasts DISABLE ROW LEVEL SECURITY")
    assert await tables.visible() == {OWN, TEAMS, FOREIGN}
