"""Snapshots on a real Postgres: committed once, closed at once when there is nothing to send, told to the sender."""

import asyncio
from uuid import UUID, uuid4

import asyncpg

from services.dispatcher.call_store import CallStore
from services.dispatcher.domain import (
    Channel,
    DeliveryState,
    DispatchState,
    LedgerLine,
    Priority,
    Reason,
    ledger,
)
from services.dispatcher.messages import state_payload
from services.dispatcher.planner import first_wave
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Closure
from tests.integration.dispatcher.plans import (
    DECIDED,
    FUTURE,
    LIMIT,
    PAST,
    held,
    items,
    plan,
    suppressed,
    told,
)


async def test_a_plan_is_committed_once(store: DispatchStore, calls: CallStore) -> None:
    """The second plan of a broadcast changes nothing and learns what is there."""
    first = plan(*items(5), suppressed(900, 2), suppressed(900, 2, Channel.IN_APP))
    second = plan(*items(9), broadcast_id=first.rules.broadcast_id)
    assert (await store.plan(first, 0.0)).is_new
    again = await store.plan(second, 0.0)
    assert (again.is_new, again.state) == (False, DispatchState.DISPATCHING)
    dispatch = await calls.get(first.rules.broadcast_id)
    assert (dispatch.targeted, dispatch.directory_version) == (7, 7)
    assert ledger(dispatch.counts) == [
        LedgerLine(Channel.IN_APP, DeliveryState.PENDING, None, 5),
        LedgerLine(Channel.IN_APP, DeliveryState.SUPPRESSED, Reason.CATEGORY_MUTED, 2),
        LedgerLine(Channel.REALTIME, DeliveryState.PENDING, None, 5),
        LedgerLine(Channel.REALTIME, DeliveryState.SUPPRESSED, Reason.CATEGORY_MUTED, 2),
    ]


async def test_concurrent_plans_of_one_broadcast_are_one(store: DispatchStore) -> None:
    """Of ten at once, one is committed."""
    broadcast_id = uuid4()
    planned = await asyncio.gather(
        *(store.plan(plan(*items(3), broadcast_id=broadcast_id), 0.0) for _ in range(10))
    )
    assert sum(each.is_new for each in planned) == 1


async def test_nobody_to_tell_is_closed_at_once(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """An empty snapshot, and one that is all suppressed or held, is closed and told to the sender as it is planned."""
    empty, asleep = plan(), plan(suppressed(1, 3, Channel.IN_APP), held(1, 3, FUTURE))
    for each in (empty, asleep):
        planned = await store.plan(each, 0.0)
        assert planned.closure is not None
        dispatch = await calls.get(each.rules.broadcast_id)
        assert dispatch.state is DispatchState.CLOSED
        assert dispatch.close_time == planned.closure.time
        payload = state_payload(each.rules.broadcast_id, "sent", planned.closure.time, targeted=each.targeted)
        assert (await told(admin))[-1] == ("broadcast.state.sent", payload)


async def test_an_expired_one_is_told_as_expired(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """Before it is dispatched: nobody is targeted, and the sender hears why."""
    base = plan(expires_at=PAST)
    expired = type(base)(base.rules, DispatchState.EXPIRED, PAST, DECIDED, 0, ())
    await store.plan(expired, 0.0)
    assert (await calls.get(base.rules.broadcast_id)).state is DispatchState.EXPIRED
    assert [subject for subject, _ in await told(admin)] == ["broadcast.state.expired"]


async def test_the_first_chunks_are_leased_with_the_plan(store: DispatchStore) -> None:
    """What the plan has handed out, the lane does not hand out again."""
    large = plan(*items(500, 500, 500))
    await store.plan(large, 0.0)
    assert [chunk.chunk for chunk in first_wave(large)] == [0, 1]
    assert await store.lease(Priority.NORMAL, LIMIT, 16) == ([], [])


async def test_a_closed_dispatch_can_be_told_again(store: DispatchStore, admin: asyncpg.Connection) -> None:
    """A due message that comes again finds it, and the sender hears the same once more."""
    empty = plan()
    planned = await store.plan(empty, 0.0)
    found = await store.find(empty.rules.broadcast_id)
    assert isinstance(found, Closure)
    assert planned.closure is not None
    assert found.time == planned.closure.time
    await store.tell_again(found)
    first, second = await told(admin)
    assert first == second
    assert await store.find(uuid4()) is None
    under_way = plan(*items(5))
    await store.plan(under_way, 0.0)
    assert await store.find(under_way.rules.broadcast_id) is DispatchState.DISPATCHING


async def test_attempts_are_counted_until_one_ends_well(store: DispatchStore) -> None:
    """Only those that came to no orderly end add up."""
    broadcast_id = uuid4()
    assert [await store.begin_attempt(broadcast_id) for _ in range(3)] == [1, 2, 3]
    await store.forget_attempts(broadcast_id)
    assert await store.begin_attempt(broadcast_id) == 1


async def test_a_failure_is_told_and_its_message_put_aside(
    store: DispatchStore, admin: asyncpg.Connection
) -> None:
    """Both in one commit, and the attempts are forgotten."""
    broadcast_id: UUID = uuid4()
    await store.begin_attempt(broadcast_id)
    await store.fail(broadcast_id, Priority.HIGH, PAST, "NOT_FOUND: gone", "UNRESOLVABLE_AUDIENCE")
    payload = state_payload(broadcast_id, "failed", PAST, error="NOT_FOUND: gone")
    assert await told(admin) == [("broadcast.state.failed", payload)]
    letters = await admin.fetch("SELECT subject, broadcast_id, chunk, error, times FROM dead_letters")
    assert [tuple(row) for row in letters] == [
        ("broadcast.due.high", broadcast_id, None, "UNRESOLVABLE_AUDIENCE", 1)
    ]
    assert await admin.fetchval("SELECT count(*) FROM plan_attempts") == 0


async def test_the_same_trouble_again_is_one_letter(store: DispatchStore, admin: asyncpg.Connection) -> None:
    """A chunk that is reported wrongly every time it is sent does not fill the table."""
    broadcast_id = uuid4()
    for _ in range(3):
        await store.bury("delivery.report", broadcast_id, 4, "SIZE_DIFFERS")
        await store.bury("delivery.report", None, None, "BROKEN_MESSAGE")
    rows = await admin.fetch("SELECT error, times FROM dead_letters ORDER BY error")
    assert [tuple(row) for row in rows] == [("BROKEN_MESSAGE", 3), ("SIZE_DIFFERS", 3)]
