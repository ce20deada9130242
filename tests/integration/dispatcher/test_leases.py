"""Leases on a real Postgres: fair, fenced, sent again when unanswered, and decided again when they are late."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from services.dispatcher.call_store import CallStore
from services.dispatcher.domain import (
    Channel,
    ChunkState,
    DeliveryState,
    DispatchState,
    InFlightLimit,
    Kind,
    LedgerLine,
    Priority,
    Reason,
    ledger,
)
from services.dispatcher.planner import first_wave
from services.dispatcher.snapshot import Redecision
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import LeasedChunk
from shared.audience import Audience
from tests.integration.dispatcher.plans import (
    DECIDED,
    FUTURE,
    LANES,
    LIMIT,
    NONE_LEASED,
    PAST,
    end_leases,
    held,
    items,
    make_stale,
    members,
    merged,
    numbers,
    plan,
    silent,
    suppressed,
    told,
)


async def test_a_small_broadcast_is_not_stuck_behind_a_large_one(store: DispatchStore) -> None:
    """The one with the fewest chunks on their way goes first, and none has more than two large ones."""
    large, small = plan(*items(*[500] * 9), limit=NONE_LEASED), plan(*items(5), limit=NONE_LEASED)
    await store.plan(large, 0.0)
    await store.plan(small, 0.0)
    first, _ = await store.lease(Priority.NORMAL, LIMIT, 2)
    assert {chunk.broadcast_id for chunk in first} == {large.rules.broadcast_id, small.rules.broadcast_id}
    second, _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert [(chunk.broadcast_id, chunk.chunk) for chunk in second] == [(large.rules.broadcast_id, 1)]
    assert await store.lease(Priority.NORMAL, LIMIT, 16) == ([], [])


@pytest.mark.parametrize("sizes", [[500, 500, 500], [20] * 9, [40, 40, 20, 1], [40, 40, 21, 1], [90, 90, 1]])
async def test_the_rows_and_the_rule_agree_on_how_much_may_leave(
    store: DispatchStore, sizes: list[int]
) -> None:
    """Leasing by SQL lets as many go as the domain's allowance says."""
    limit = InFlightLimit(chunks=2, members=100, most_chunks=5)
    await store.plan(plan(*items(*sizes), limit=NONE_LEASED), 0.0)
    leased, _ = await store.lease(Priority.NORMAL, limit, 16)
    assert numbers(leased) == list(range(limit.allowance(sizes)))


async def test_a_lane_of_bulk_has_no_more_on_its_way_than_one_broadcast_may(store: DispatchStore) -> None:
    """However many broadcasts there are; what has arrived makes room for the next."""
    limit = replace(LIMIT, lane_members=100)
    for _ in range(5):
        await store.plan(plan(*items(*[60] * 4), limit=NONE_LEASED), 0.0)
    first, _ = await store.lease(Priority.NORMAL, limit, 16)
    assert len({chunk.broadcast_id for chunk in first}) == 2
    assert await store.lease(Priority.NORMAL, limit, 16) == ([], [])
    await store.apply([merged(first[0])])
    (second,), _ = await store.lease(Priority.NORMAL, limit, 16)
    assert second.broadcast_id != first[1].broadcast_id
    small = plan(*items(*[10] * 9), priority=Priority.LOW, limit=NONE_LEASED)
    await store.plan(small, 0.0)
    assert len((await store.lease(Priority.LOW, limit, 16))[0]) == 9


async def test_lanes_see_their_own_priority_only(store: DispatchStore) -> None:
    """A critical lane never spends its time on bulk."""
    await store.plan(plan(*items(5), priority=Priority.LOW, limit=NONE_LEASED), 0.0)
    assert await store.lease(Priority.CRITICAL, LIMIT, 16) == ([], [])
    assert len((await store.lease(Priority.LOW, LIMIT, 16))[0]) == 1


async def test_lanes_that_lease_at_once_never_lease_the_same(store: DispatchStore) -> None:
    """Whatever eight of them do together, each chunk leaves once, and the limit holds."""
    for _ in range(5):
        await store.plan(plan(*items(*[500] * 4), limit=NONE_LEASED), 0.0)
    results = await asyncio.gather(*(store.lease(Priority.NORMAL, LIMIT, 3) for _ in range(8)))
    leased = [(chunk.broadcast_id, chunk.chunk) for chunks, _ in results for chunk in chunks]
    assert len(leased) == len(set(leased))
    by_broadcast = [broadcast_id for broadcast_id, _ in leased]
    assert all(by_broadcast.count(each) <= 2 for each in by_broadcast)


async def test_what_was_decided_long_ago_is_looked_at_before_it_leaves(
    store: DispatchStore, admin: asyncpg.Connection
) -> None:
    """A stale chunk is handed out unleased, and with it what follows it; once confirmed it leaves."""
    old = plan(*items(5, 500, 500), limit=NONE_LEASED)
    await store.plan(old, 0.0)
    await make_stale(admin)
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert leased == []
    assert [(chunk.chunk, chunk.state, chunk.decided) for chunk in stale] == [
        (0, ChunkState.PENDING, DECIDED),
        (1, ChunkState.PENDING, DECIDED),
        (2, ChunkState.PENDING, DECIDED),
    ]
    assert stale[0].members == members(0, 5)
    await store.confirm(old.rules.broadcast_id, [0, 1, 2], DECIDED)
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert (numbers(leased), stale) == ([0, 1], [])


async def test_who_is_decided_otherwise_moves_to_chunks_of_their_own(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """The rest stays; the numbers of the new chunks go on where the plan ended; the ledger still adds up."""
    old = plan(*items(5), limit=NONE_LEASED)
    await store.plan(old, 0.0)
    await make_stale(admin)
    _, (chunk,) = await store.lease(Priority.NORMAL, LIMIT, 16)
    moved = (silent(1, 2), held(1, 2, FUTURE))
    assert await store.redecide([(chunk, Redecision(Audience.of([0, 3, 4]), moved))], DECIDED) == []
    assert await store.redecide([(chunk, Redecision(Audience(), ()))], DECIDED) == [], (
        "read before the change"
    )
    leased, _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert [(each.chunk, each.kind, Audience.from_bytes(each.members)) for each in leased] == [
        (0, Kind.ITEM, Audience.of([0, 3, 4])),
        (1, Kind.SILENT_ITEM, Audience.of([1, 2])),
    ]
    dispatch = await calls.get(old.rules.broadcast_id)
    assert dispatch.next_release_time == FUTURE
    assert ledger(dispatch.counts) == [
        LedgerLine(Channel.IN_APP, DeliveryState.PENDING, None, 5),
        LedgerLine(Channel.REALTIME, DeliveryState.HELD, None, 2),
        LedgerLine(Channel.REALTIME, DeliveryState.PENDING, None, 3),
    ]


async def test_a_dispatch_whose_last_waiting_chunk_dissolves_is_closed(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """When nobody is left to be told, there is nothing pending any more."""
    old = plan(*items(3), limit=NONE_LEASED)
    await store.plan(old, 0.0)
    await make_stale(admin)
    _, (chunk,) = await store.lease(Priority.NORMAL, LIMIT, 16)
    moved = (suppressed(0, 3), suppressed(0, 3, Channel.IN_APP))
    (closure,) = await store.redecide([(chunk, Redecision(Audience(), moved))], DECIDED)
    assert (closure.state, closure.targeted) == (DispatchState.CLOSED, 3)
    assert [subject for subject, _ in await told(admin)] == ["broadcast.state.sent"]
    lines = ledger((await calls.get(old.rules.broadcast_id)).counts)
    assert [(line.channel, line.state, line.count) for line in lines] == [
        (Channel.IN_APP, DeliveryState.SUPPRESSED, 3),
        (Channel.REALTIME, DeliveryState.SUPPRESSED, 3),
    ]


async def test_an_unanswered_chunk_is_sent_again_unchanged_after_ever_longer_leases(
    store: DispatchStore, admin: asyncpg.Connection
) -> None:
    """Its epoch grows each time, so that JetStream does not take it for a repetition, and so does its lease."""
    small = plan(*items(5))
    await store.plan(small, 0.0)
    (first,) = first_wave(small)
    assert await store.lease_again(LANES, 10) == []
    leases = []
    for epoch in (2, 3, 4, 5, 6):
        await end_leases(admin)
        (again,) = await store.lease_again(LANES, 10)
        assert again == LeasedChunk(first.broadcast_id, 0, Priority.NORMAL, Kind.ITEM, epoch, first.members)
        leases.append(await admin.fetchval("SELECT extract(epoch FROM lease_until - now())::int FROM chunks"))
    assert leases == [10, 20, 40, 60, 60]


async def test_other_lanes_leases_are_left_alone(store: DispatchStore, admin: asyncpg.Connection) -> None:
    """A reconciler looks after its own lanes."""
    await store.plan(plan(*items(5), priority=Priority.LOW), 0.0)
    await end_leases(admin)
    assert await store.lease_again([Priority.CRITICAL, Priority.HIGH], 10) == []


async def test_alerts_are_due_when_their_hold_has_ended_and_their_items_have_arrived(
    store: DispatchStore,
) -> None:
    """Not while the items are on their way, and never those that still sleep."""
    night = plan(silent(0, 4), held(0, 2, PAST), held(2, 2, FUTURE))
    await store.plan(night, 0.0)
    assert await store.due_alerts(LANES, 100, 10) == []
    await store.apply([merged(chunk) for chunk in first_wave(night)])
    (due,) = await store.due_alerts(LANES, 100, 10)
    assert (due.kind, due.state, due.members, due.decided.directory_version) == (
        Kind.ALERT,
        ChunkState.HELD,
        members(0, 2),
        0,
    )


async def test_no_more_alerts_are_released_than_the_rate_allows(store: DispatchStore) -> None:
    """The longest waiting first, up to the number of people; one chunk in any case."""
    await store.plan(plan(*(held(start, 10, PAST + timedelta(seconds=start)) for start in (40, 20, 0))), 0.0)
    assert [chunk.members.sample(1) for chunk in await store.due_alerts(LANES, 25, 10)] == [[0], [20]]
    assert [chunk.members.sample(1) for chunk in await store.due_alerts(LANES, 25, 1)] == [[0]]
    assert [chunk.members.sample(1) for chunk in await store.due_alerts(LANES, 3, 10)] == [[0]]


async def test_a_released_alert_is_pending_and_may_leave(store: DispatchStore, calls: CallStore) -> None:
    """The dispatch stays closed; the ledger says that an alert is pending, and then that it was sent."""
    night = plan(suppressed(0, 3, Channel.IN_APP), held(0, 3, PAST))
    await store.plan(night, 0.0)
    (due,) = await store.due_alerts(LANES, 100, 10)
    await store.redecide([(due, Redecision(members(0, 2), (suppressed(2, 1),)))], DECIDED)
    (alert,), _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert (alert.kind, Audience.from_bytes(alert.members)) == (Kind.ALERT, members(0, 2))
    assert (await store.apply([merged(alert)])).closures == ()
    dispatch = await calls.get(night.rules.broadcast_id)
    assert dispatch.state is DispatchState.CLOSED
    assert ledger(dispatch.counts)[1:] == [
        LedgerLine(Channel.REALTIME, DeliveryState.SENT, None, 2),
        LedgerLine(Channel.REALTIME, DeliveryState.SUPPRESSED, Reason.CATEGORY_MUTED, 1),
    ]
