"""What each login of the dispatcher can see and do, and that every policy is needed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from services.dispatcher.call_store import BROADCAST_SETTING, CallStore
from services.dispatcher.domain import CHUNK_TRANSITIONS, ChunkState, Priority
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Report
from shared.database import Database, Transaction
from tests.integration.dispatcher.plans import LIMIT, NONE_LEASED, held, items, plan, suppressed
from tests.integration.dispatcher.test_schema import CHUNK, DISPATCH, SUPPRESSED, insert

LATER = datetime(2026, 11, 22, 13, tzinfo=UTC)


@asynccontextmanager
async def naming(caller: Database, broadcast_id: UUID) -> AsyncIterator[Transaction]:
    """A transaction of the api login about one broadcast."""
    async with caller.identity_transaction({BROADCAST_SETTING: str(broadcast_id)}) as transaction:
        yield transaction


async def test_a_call_sees_the_broadcast_that_it_names_and_no_other(
    store: DispatchStore, caller: Database
) -> None:
    """Without a name, nothing; with one, its own chunks."""
    one, other = plan(*items(5)), plan(*items(5, 5, 5))
    await store.plan(one, 0.0)
    await store.plan(other, 0.0)
    assert await caller.fetchval("SELECT count(*) FROM chunks") == 0
    async with naming(caller, other.rules.broadcast_id) as transaction:
        assert await transaction.fetchval("SELECT count(*) FROM chunks") == 3
    assert await caller.fetchval("SELECT count(*) FROM chunks") == 0


async def test_a_call_can_only_cancel_what_waits(
    store: DispatchStore, caller: Database, admin: asyncpg.Connection
) -> None:
    """What is on its way is not touched, and no other state can be written."""
    mixed = plan(*items(500, 500, 500), held(900_000, 1, LATER))
    await store.plan(mixed, 0.0)
    async with naming(caller, mixed.rules.broadcast_id) as transaction:
        assert await transaction.execute("UPDATE chunks SET state = 'cancelled'") == "UPDATE 2"
    await admin.execute("UPDATE chunks SET state = 'pending' WHERE state = 'cancelled'")
    for state in ("done", "expired", "held"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with naming(caller, mixed.rules.broadcast_id) as transaction:
                await transaction.execute("UPDATE chunks SET state = $1 WHERE chunk = 2", state)


@pytest.mark.parametrize("state", [state for state in ChunkState if state.is_final])
async def test_the_worker_cannot_change_or_remove_what_is_final(
    store: DispatchStore, worker: Database, admin: asyncpg.Connection, state: ChunkState
) -> None:
    """As the domain's table has it, nothing follows a final state."""
    await insert(admin, "dispatches", DISPATCH)
    extra = SUPPRESSED if state is ChunkState.SUPPRESSED else {"state": state}
    await insert(admin, "chunks", {**CHUNK, **extra, "epoch": int(state is ChunkState.DONE)})
    assert CHUNK_TRANSITIONS[state] == frozenset()
    assert await worker.execute("UPDATE chunks SET looked_at = now()") == "UPDATE 0"
    assert await worker.execute("DELETE FROM chunks") == "DELETE 0"


async def test_the_worker_cannot_remove_what_was_sent_or_write_an_end(
    store: DispatchStore, worker: Database
) -> None:
    """A chunk on its way stays until the inbox has spoken, and none begins as done."""
    await store.plan(plan(*items(500, 500, 500)), 0.0)
    assert await worker.execute("DELETE FROM chunks WHERE state = 'leased'") == "DELETE 0"
    for state in ("done", "cancelled", "expired"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await worker.execute(
                "INSERT INTO chunks SELECT broadcast_id, 9, priority, kind, $1, channel, reason, release_at,"
                " members, size, decided_version, decided_at, looked_at, $2, NULL"
                " FROM chunks WHERE chunk = 2",
                state,
                int(state == "done"),
            )


@asynccontextmanager
async def without(admin: asyncpg.Connection, policy: str) -> AsyncIterator[None]:
    """For the time of the block, as if a migration had forgotten this policy."""
    definition = await admin.fetchrow(
        "SELECT cmd, qual, with_check, roles[1] AS role FROM pg_policies"
        " WHERE schemaname = 'dispatcher' AND policyname = $1",
        policy,
    )
    assert definition is not None
    await admin.execute(f"DROP POLICY {policy} ON chunks")
    try:
        yield
    finally:
        using = f"USING ({definition['qual']})" if definition["qual"] else ""
        check = f"WITH CHECK ({definition['with_check']})" if definition["with_check"] else ""
        await admin.execute(
            f"CREATE POLICY {policy} ON chunks FOR {definition['cmd']} TO {definition['role']} {using} {check}"
        )


async def test_calls_are_lost_without_the_policies_that_let_them_in(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """Without the one, a ledger is empty; without the other, a cancel stops nobody."""
    waiting = plan(*items(500, 500, 500))
    await store.plan(waiting, 0.0)
    async with without(admin, "named_broadcast"):
        assert (await calls.get(waiting.rules.broadcast_id)).counts == ()
    assert len((await calls.get(waiting.rules.broadcast_id)).counts) == 2
    async with without(admin, "cancel_what_waits"):
        assert (await calls.stop(waiting.rules.broadcast_id)).stopped == 0
    await admin.execute("DELETE FROM tombstones")
    assert (await calls.stop(waiting.rules.broadcast_id)).stopped == 500


async def test_the_worker_is_lost_without_the_policies_that_let_it_in(
    store: DispatchStore, admin: asyncpg.Connection
) -> None:
    """Without each of them one step of its work finds nothing, or is refused."""
    async with without(admin, "add_what_is_not_final"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await store.plan(plan(*items(5)), 0.0)
    waiting = plan(*items(5), limit=NONE_LEASED)
    await store.plan(waiting, 0.0)
    for policy in ("read_to_dispatch", "change_what_is_not_final"):
        async with without(admin, policy):
            assert await store.lease(Priority.NORMAL, LIMIT, 16) == ([], [])
    (leased,), _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    report = Report(leased.broadcast_id, leased.chunk, 5, is_merged=True)
    async with without(admin, "change_what_is_not_final"):
        assert (await store.apply([report])).verdicts == ("size",)
    assert (await store.apply([report])).verdicts == ("applied",)


async def test_a_chunk_cannot_dissolve_without_the_policy_for_it(
    store: DispatchStore, worker: Database, admin: asyncpg.Connection
) -> None:
    """Removing is allowed for what was never sent, by one policy alone."""
    await store.plan(plan(*items(5), suppressed(100, 2), limit=NONE_LEASED), 0.0)
    async with without(admin, "remove_what_was_never_sent"):
        assert await worker.execute("DELETE FROM chunks") == "DELETE 0"
    assert await worker.execute("DELETE FROM chunks") == "DELETE 1"


async def test_only_chunks_of_what_is_forgotten_are_removed_and_by_one_policy(
    worker: Database, admin: asyncpg.Connection, empty: None
) -> None:
    """Not before its dispatch is, nor within a week of its end, whatever the settings say; without the policy never."""
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    times = {"begin_time": long_ago, "plan_time": long_ago, "close_time": long_ago}
    await insert(admin, "dispatches", {**DISPATCH, **times, "state": "closed"})
    await insert(admin, "chunks", {**CHUNK, "state": "done", "epoch": 1})
    remove, forget = "DELETE FROM chunks", "UPDATE dispatches SET forgotten_at = now()"
    assert await worker.execute(remove) == "DELETE 0"
    await admin.execute(f"{forget}, close_time = now() - interval '6 days'")
    assert await worker.execute(remove) == "DELETE 0"
    await admin.execute(f"{forget}, close_time = now() - interval '8 days'")
    async with without(admin, "remove_what_is_forgotten"):
        assert await worker.execute(remove) == "DELETE 0"
    assert await worker.execute(remove) == "DELETE 1"


async def test_neither_login_reaches_beyond_its_work(caller: Database, worker: Database) -> None:
    """Calls read no outbox and remove nothing, and the worker writes no tombstone and truncates nothing."""
    for database, statement in (
        (caller, "SELECT count(*) FROM outbox"),
        (caller, "UPDATE chunks SET members = ''"),
        (caller, "DELETE FROM tombstones"),
        (caller, "DELETE FROM dispatches"),
        (caller, "UPDATE dispatches SET forgotten_at = now()"),
        (worker, "INSERT INTO tombstones SELECT broadcast_id, now(), false, 0, 0, 0 FROM dispatches"),
        (worker, "TRUNCATE chunks"),
        (worker, "UPDATE dispatches SET targeted = 0"),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute(statement)
