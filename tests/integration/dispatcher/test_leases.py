"""Leases on a real Postgres: fair, fenced, sent again when unanswered, and decided again when they are late."""

import asyncio
from dataclasses import replace

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
    await store.confirm(stale, DECIDED, age_s=0.0)
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert (numbers(leased), stale) == ([0, 1], [])


async def test_what_was_decided_before_a_change_is_looked_at_before_it_leaves(store: DispatchStore) -> None:
    """However lately that was: with a version of the directory that is newer than its own, a chunk does not leave."""
    recent = plan(*items(5, 500, 500), limit=NONE_LEASED)
    await store.plan(recent, 0.0)
    version = DECIDED.directory_version
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16, version + 1)
    assert (leased, [chunk.chunk for chunk in stale]) == ([], [0, 1, 2])
    await store.confirm(stale[:1], replace(DECIDED, directory_version=version + 1), age_s=0.0)
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16, version + 1)
    assert (numbers(leased), [chunk.chunk for chunk in stale]) == ([0], [1, 2])


async def test_what_was_asked_for_long_ago_is_old_when_it_is_written_down(store: DispatchStore) -> None:
    """A plan that took longer than a decision is fresh leaves nothing undecided; a review counts as half as old."""
    slow = plan(*items(5), limit=NONE_LEASED)
    await store.plan(slow, elapsed_s=0.6)
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert (leased, [chunk.chunk for chunk in stale]) == ([], [0])
    await store.confirm(stale, DECIDED, age_s=30.0)
    assert numbers((await store.lease(Priority.NORMAL, LIMIT, 16))[0]) == [0]


async def test_who_is_decided_otherwise_moves_to_chunks_of_their_own(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """The rest stays; the numbers of the new chunks go on where the plan ended; the ledger still adds up."""
    old = plan(*items(5), limit=NONE_LEASED)
    await store.plan(old, 0.0)
    await make_stale(admin)
    _, (chunk,) = await store.lease(Priority.NORMAL, LIMIT, 16)
    moved = (silent(1, 2), held(1, 2, FUTURE))
    assert await store.redecide([(chunk, Redecision(Audience.of([0, 3, 4]), moved))], DECIDED, 0.0) == []
    assert await store.redecide([(chunk, Redecision(Audience(), ()))], DECIDED, 0.0) == [], (
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
    (closure,) = await store.redecide([(chunk, Redecision(Audience(), moved))], DECIDED, 0.0)
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
