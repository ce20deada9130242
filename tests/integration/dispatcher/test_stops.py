"""Cancels and expiries on a real Postgres: what has not left never leaves, and the ledger still adds up."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from services.dispatcher.call_store import CallStore
from services.dispatcher.domain import (
    Channel,
    DeliveryState,
    DispatchState,
    LedgerLine,
    Priority,
    ledger,
)
from services.dispatcher.planner import first_wave
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import StopAnswer
from shared.errors import NotFound
from tests.integration.dispatcher.plans import (
    FUTURE,
    LANES,
    LIMIT,
    NONE_LEASED,
    PAST,
    held,
    items,
    merged,
    plan,
    silent,
    stopped,
    suppressed,
    told,
)


async def test_a_stop_before_the_plan_stops_the_plan(store: DispatchStore, calls: CallStore) -> None:
    """The tombstone is there first: nothing is written, and the dispatch is known as stopped."""
    broadcast_id = uuid4()
    with pytest.raises(NotFound):
        await calls.get(broadcast_id)
    assert await calls.stop(broadcast_id) == StopAnswer(planned=False, stopped=0, in_flight=0, targeted=0)
    late = await store.plan(plan(*items(5), broadcast_id=broadcast_id), 0.0)
    assert (late.is_new, late.state) == (False, DispatchState.STOPPED)
    dispatch = await calls.get(broadcast_id)
    assert (dispatch.state, dispatch.targeted, dispatch.counts) == (DispatchState.STOPPED, 0, ())


async def test_a_stop_cancels_what_waits_and_leaves_what_is_on_its_way(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """It counts people once, answers the same again, and the ledger adds up when the inbox has spoken."""
    large = plan(*items(500, 400, 300), silent(700_000, 20), held(700_000, 20, FUTURE))
    await store.plan(large, 0.0)
    one, two = first_wave(large)
    answer = StopAnswer(planned=True, stopped=320, in_flight=900, targeted=1220)
    assert await calls.stop(large.rules.broadcast_id) == answer
    dispatch = await calls.get(large.rules.broadcast_id)
    assert (dispatch.state, dispatch.close_time) == (DispatchState.STOPPED, None)
    assert await store.lease(Priority.NORMAL, LIMIT, 16) == ([], [])
    applied = await store.apply([merged(one), stopped(two)])
    assert applied.verdicts == ("applied", "applied")
    (closure,) = applied.closures
    assert closure.state is DispatchState.STOPPED
    assert await told(admin) == [], "the sender stopped it and needs no word of it"
    assert await calls.stop(large.rules.broadcast_id) == answer
    dispatch = await calls.get(large.rules.broadcast_id)
    assert (dispatch.state, dispatch.close_time) == (DispatchState.STOPPED, closure.time)
    assert ledger(dispatch.counts) == [
        LedgerLine(Channel.IN_APP, DeliveryState.CANCELLED, None, 720),
        LedgerLine(Channel.IN_APP, DeliveryState.DELIVERED, None, 500),
        LedgerLine(Channel.REALTIME, DeliveryState.CANCELLED, None, 720),
        LedgerLine(Channel.REALTIME, DeliveryState.SENT, None, 500),
    ]


async def test_a_sent_broadcast_can_still_be_stopped_for_those_who_sleep(
    store: DispatchStore, calls: CallStore
) -> None:
    """Held alerts are cancelled, and the time at which it was closed stays."""
    night = plan(suppressed(0, 3, Channel.IN_APP), held(0, 3, FUTURE))
    planned = await store.plan(night, 0.0)
    answer = await calls.stop(night.rules.broadcast_id)
    assert answer == StopAnswer(planned=True, stopped=3, in_flight=0, targeted=3)
    dispatch = await calls.get(night.rules.broadcast_id)
    assert planned.closure is not None
    assert (dispatch.state, dispatch.close_time) == (DispatchState.STOPPED, planned.closure.time)


@pytest.mark.parametrize("turn", range(8))
async def test_a_plan_and_a_stop_at_the_same_time_leave_nothing_waiting(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection, turn: int
) -> None:
    """Whoever comes first, no chunk is left to be sent once both have answered."""
    broadcast_id = uuid4()
    both = [store.plan(plan(*items(5, 500, 500), broadcast_id=broadcast_id), 0.0), calls.stop(broadcast_id)]
    await asyncio.gather(*(both if turn % 2 else reversed(both)))
    waiting = await admin.fetchval("SELECT count(*) FROM chunks WHERE state IN ('pending', 'held')")
    assert waiting == 0
    assert (await calls.get(broadcast_id)).state is DispatchState.STOPPED


async def test_what_has_not_left_by_its_expiry_never_leaves(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """Pending chunks and due alerts expire; what is on its way is the inbox's; then the ledger closes."""
    late = plan(*items(500, 500, 500), held(900_000, 7, PAST), expires_at=FUTURE)
    await store.plan(late, 0.0)
    assert await store.expire(LANES) == []
    await admin.execute("UPDATE dispatches SET expires_at = now()")
    assert await store.lease(Priority.NORMAL, LIMIT, 16) == ([], [])
    assert await store.expire(LANES) == []
    (closure,) = (await store.apply([merged(chunk) for chunk in first_wave(late)])).closures
    assert closure.broadcast_id == late.rules.broadcast_id
    lines = ledger((await calls.get(late.rules.broadcast_id)).counts)
    assert LedgerLine(Channel.IN_APP, DeliveryState.EXPIRED, None, 500) in lines
    assert LedgerLine(Channel.REALTIME, DeliveryState.EXPIRED, None, 507) in lines


async def test_an_expired_one_with_nothing_on_its_way_closes_at_once(
    store: DispatchStore, admin: asyncpg.Connection
) -> None:
    """Nobody will report, so nobody else would close it."""
    await store.plan(plan(*items(5), expires_at=FUTURE, limit=NONE_LEASED), 0.0)
    await admin.execute("UPDATE dispatches SET expires_at = now()")
    (closure,) = await store.expire(LANES)
    assert closure.state is DispatchState.CLOSED
    assert [subject for subject, _ in await told(admin)] == ["broadcast.state.sent"]


async def test_what_waited_for_the_plan_ends_no_sooner_than_it(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """A transaction has the time at which it began: one that began before the plan was made would end before it."""
    stopped_soon, expired_soon = plan(*items(5), limit=NONE_LEASED), plan(*items(5), expires_at=PAST)
    expired_soon = replace(expired_soon, drafts=stopped_soon.drafts)
    for each in (stopped_soon, expired_soon):
        await store.plan(each, 0.0)
    await admin.execute("UPDATE dispatches SET plan_time = now() + interval '1 minute'")
    assert (await calls.stop(stopped_soon.rules.broadcast_id)).stopped == 5
    (closure,) = await store.expire(LANES)
    assert closure.broadcast_id == expired_soon.rules.broadcast_id
    for each in (stopped_soon, expired_soon):
        dispatch = await calls.get(each.rules.broadcast_id)
        assert dispatch.close_time == dispatch.plan_time
