"""Who may touch what in the inbox's tables: facts of the catalog, and what each policy keeps from whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.inbox.domain import Filter, ReceiptAction, Team
from services.inbox.work_store import ReceiptCall
from shared.audience import Audience
from shared.replays import Request
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.stores import Stores

PERSONAL = {
    "arrangements",
    "blocks",
    "broadcasts",
    "changes",
    "direct",
    "receipts",
    "team_members",
    "watermarks",
}


async def test_the_personal_role_only_reads(stores: Stores) -> None:
    """And not the log, not who is who, and not the members of anything."""
    rows = await stores.admin.fetch(
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = 'inbox_api'"
    )
    assert {row["privilege_type"] for row in rows} == {"SELECT"}
    whole = {row["table_name"] for row in rows}
    impersonal = {"log_head", "log_identity", "retractions"}
    assert whole == (PERSONAL - {"blocks"}) | impersonal | {"my_arrivals", "my_items"}
    columns = await stores.admin.fetch(
        "SELECT column_name FROM information_schema.column_privileges "
        "WHERE grantee = 'inbox_api' AND table_name = 'blocks'"
    )
    assert {row["column_name"] for row in columns} == {
        "block",
        "position",
        "broadcast_id",
        "silent",
        "arrived_at",
    }
    async with as_recipient(stores, 1) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch("SELECT members FROM blocks")


async def test_without_an_identity_nothing_is_to_be_seen(stores: Stores) -> None:
    """On a fresh connection, and on one that has served somebody before."""
    number = stores.new_number()
    await stores.arrive(a_content(uuid4()), [number])
    connection = await asyncpg.connect(stores.api_url)
    for _ in range(2):
        assert await connection.fetchval("SELECT count(*) FROM my_items") == 0
        assert await connection.fetchval("SELECT count(*) FROM blocks") == 0
        assert await connection.fetchval("SELECT count(*) FROM team_members") == 0
        assert (
            await connection.fetchval(
                "SELECT unread_count FROM count_items($1, NULL, NULL, NULL, NULL, NULL, NULL)", number
            )
            == 1
        )
    await connection.close()


@dataclass(frozen=True, slots=True)
class Couple:
    """Two people, and what only the second one has: an item alone, one in a crowd, one behind a wall, and receipts."""

    me: int
    other: int
    common: UUID
    alone: UUID
    crowd: UUID
    walled: UUID


@pytest.fixture
async def couple(stores: Stores) -> Couple:
    """Two people who share one item."""
    me = stores.new_number()
    other = me + 1
    ids = [uuid4() for _ in range(4)]
    common, alone, crowd, walled = ids
    wedding = uuid4()
    await stores.work.apply_team(Team(wedding, 1, Audience.of([other])))
    await stores.arrive(a_content(common), [me, other])
    await stores.arrive(a_content(alone), [other])
    await stores.arrive(a_content(crowd), range(other, other + 20))
    await stores.arrive(a_content(walled, wall=(wedding,)), [me, other])
    request = Request(str(uuid4()), "RecordReceipts", str(uuid4()), bytes(32))
    await stores.work.record_receipts([ReceiptCall(other, (common,), ReceiptAction.DISMISSED, None, request)])
    return Couple(me, other, common, alone, crowd, walled)


LEAKS = {
    ("blocks", "own_arrivals"): "SELECT $1 IN (SELECT broadcast_id FROM my_items)",
    ("direct", "own_arrivals"): "SELECT $2 IN (SELECT broadcast_id FROM my_items)",
    ("broadcasts", "inside_the_wall"): "SELECT $3 IN (SELECT broadcast_id FROM my_items)",
    ("team_members", "own_teams"): "SELECT $3 IN (SELECT broadcast_id FROM my_items)",
    (
        "receipts",
        "own_receipts",
    ): "SELECT bool_or(dismissed_at IS NOT NULL) FROM my_items WHERE broadcast_id = $4",
    ("watermarks", "own_watermarks"): "SELECT bool_or(is_read) FROM my_items WHERE broadcast_id = $4",
    ("changes", "own_changes"): "SELECT count(*) > 0 FROM changes WHERE recipient_number = $5",
}


@pytest.mark.parametrize(("table", "policy"), LEAKS)
async def test_each_personal_policy_keeps_somebody_elses_from_me(
    stores: Stores, couple: Couple, table: str, policy: str
) -> None:
    """With it I see nothing of the other's; without it, in its place one that lets everybody in, I do."""
    await stores.work.mark_all_read(couple.other, None)
    values = (couple.crowd, couple.alone, couple.walled, couple.common, couple.other)
    seen = []
    transaction = stores.admin.transaction()
    await transaction.start()
    for drop in (False, True):
        if drop:
            await stores.admin.execute(f"DROP POLICY {policy} ON {table}")
            await stores.admin.execute(
                f"CREATE POLICY everybody ON {table} FOR SELECT TO inbox_api USING (true)"
            )
        await stores.admin.execute("SET LOCAL ROLE inbox_api")
        await stores.admin.execute("SELECT set_config('app.recipient', $1, true)", str(couple.me))
        used = LEAKS[table, policy]
        wanted = [value for place, value in enumerate(values, 1) if f"${place}" in used]
        query = used.replace(next(f"${place}" for place in range(1, 6) if f"${place}" in used), "$1")
        seen.append(bool(await stores.admin.fetchval(query, *wanted)))
        await stores.admin.execute("RESET ROLE")
    await transaction.rollback()
    assert seen == [False, True]


async def test_workers_cannot_change_what_has_happened(stores: Stores) -> None:
    """Arrivals, membership, watermarks and the log are written once; tombstones and teams stay for good."""
    connection = await asyncpg.connect(stores.worker_url)
    for statement in (
        "UPDATE arrivals SET recipients = 0",
        "DELETE FROM retractions",
        "DELETE FROM changes",
        "DELETE FROM recipients",
        "UPDATE blocks SET arrived_at = now()",
        "UPDATE direct SET silent = true",
        "UPDATE watermarks SET at = now()",
        "UPDATE log SET body = ''",
        "UPDATE broadcasts SET message = ''",
        "UPDATE recipients SET number = 0",
        "TRUNCATE blocks",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_receipts_and_text_of_a_critical_broadcast_are_never_removed(stores: Stores) -> None:
    """Not even when it has left and is emptied, whatever statement asks."""
    number = stores.new_number()
    content = a_content(uuid4(), priority=1)
    await stores.arrive(content, [number])
    await stores.work.record_receipts(
        [ReceiptCall(number, (content.broadcast_id,), ReceiptAction.ACKNOWLEDGED, None)]
    )
    transaction = stores.admin.transaction()
    await transaction.start()
    await stores.admin.execute(
        "UPDATE broadcasts SET hidden = true, left_at = now(), emptied_at = now(), delivered = 1"
        " WHERE broadcast_id = $1",
        content.broadcast_id,
    )
    await stores.admin.execute("SET LOCAL ROLE inbox_worker")
    done = [
        await stores.admin.execute(f"DELETE FROM {table} WHERE broadcast_id = $1", content.broadcast_id)  # noqa: S608
        for table in ("direct", "receipts", "arrivals", "broadcasts")
    ]
    await stores.admin.execute("RESET ROLE")
    await transaction.rollback()
    assert done == ["DELETE 1", "DELETE 0", "DELETE 1", "DELETE 0"]


@asynccontextmanager
async def as_recipient(stores: Stores, number: int) -> AsyncIterator[asyncpg.Connection]:
    """A transaction of the personal role in somebody's name."""
    connection = await asyncpg.connect(stores.api_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('app.recipient', $1, true)", str(number))
            yield connection
    finally:
        await connection.close()


async def test_pages_that_are_read_together_are_each_their_owners(stores: Stores) -> None:
    """One statement for many people shows each what their own would: identities follow one another in it."""
    numbers = [stores.new_number() for _ in range(3)]
    wedding = uuid4()
    await stores.work.apply_team(Team(wedding, 1, Audience.of([numbers[0]])))
    await stores.arrive(a_content(uuid4(), wall=(wedding,)), numbers[:2])
    for place in range(3):
        await stores.arrive(a_content(uuid4()), numbers[place:])
    together = await stores.store.list_first_pages(numbers, 2, [None] * 3)
    alone = [await stores.store.list_items(number, Filter(), None, 2, None) for number in numbers]
    assert together == alone
    assert [page.total_count for page in together] == [2, 2, 3]
    badges = [page.badge for page in alone]
    assert await stores.store.count_items_of_many(numbers, badges) == badges
