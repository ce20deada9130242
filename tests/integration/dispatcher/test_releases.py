"""What is held is let go on a real Postgres: never early, in turn, and decided anew."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from services.dispatcher.call_store import CallStore
from services.dispatcher.cutting import Cutting
from services.dispatcher.domain import (
    Channel,
    ChunkState,
    DeliveryState,
    DispatchState,
    Kind,
    LedgerLine,
    Priority,
    Reason,
    ledger,
)
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.planner import first_wave
from services.dispatcher.snapshot import Redecision
from services.dispatcher.store import DispatchStore
from services.dispatcher.turns import in_turn
from shared.audience import Audience
from shared.database import Database
from tests.integration.dispatcher.plans import (
    DECIDED,
    FUTURE,
    LIMIT,
    MORNING,
    MOST,
    PAST,
    alert,
    held,
    leave,
    let_go,
    members,
    merged,
    plan,
    silent,
    suppressed,
)


async def waiting(admin: asyncpg.Connection) -> list[tuple[UUID, int]]:
    """The chunks that were let go and now wait in their lanes."""
    found = await admin.fetch(
        "SELECT broadcast_id, chunk FROM chunks WHERE state = 'pending' AND release_at IS NOT NULL ORDER BY 1, 2"
    )
    return [tuple(row) for row in found]


async def test_nobody_is_let_go_before_their_window_ends(
    store: DispatchStore, holds: HoldStore, worker: Database
) -> None:
    """Not a microsecond; and whoever looks is told when to look again."""
    await store.plan(plan(held(0, 3, MORNING), held(3, 2, FUTURE)), 0.0)
    assert await let_go(worker, 100, MORNING - timedelta(microseconds=1)) == 0
    assert await let_go(worker, 100, MORNING) == 3
    done = await holds.let_go(100, MOST)
    assert done.people == 0
    assert done.next_s == pytest.approx((FUTURE - datetime.now(UTC)).total_seconds(), abs=60)


async def test_with_nothing_held_there_is_nothing_to_wait_for(holds: HoldStore) -> None:
    """An idle dispatcher is told so."""
    done = await holds.let_go(100, MOST)
    assert (done.people, done.next_s) == (0, None)


async def test_who_was_held_longest_goes_first_and_the_more_urgent_a_minute_sooner(
    store: DispatchStore, worker: Database, admin: asyncpg.Connection
) -> None:
    """So what is urgent overtakes what has waited for less than that, and nothing waits for ever."""
    older = timedelta(seconds=90)
    high = plan(alert(0, 10, 0), priority=Priority.HIGH)
    normal = plan(alert(0, 10, 0, MORNING - timedelta(seconds=30)), priority=Priority.NORMAL)
    oldest = plan(alert(0, 10, 0, MORNING - older), priority=Priority.NORMAL)
    low = plan(alert(0, 10, 0), priority=Priority.LOW)
    for each in (low, normal, high, oldest):
        await store.plan(each, 0.0)
    order = []
    for second in range(4):
        assert await let_go(worker, 10, MORNING + timedelta(seconds=second, milliseconds=900)) == 10
        order.append({each for each, _ in await waiting(admin)} - set().union(*order))
        await leave(worker)
    expected = [oldest, high, normal, low]
    assert order == [{each.rules.broadcast_id} for each in expected]


async def test_alerts_of_one_person_come_together(
    store: DispatchStore, worker: Database, admin: asyncpg.Connection
) -> None:
    """Turns count across broadcasts: one person's alerts leave in one second, whoever sent them."""
    for _ in range(5):
        await store.plan(plan(*in_turn(members(0, 20_000), MORNING, 10_000)), 0.0)
    assert await let_go(worker, 50_000, MORNING + timedelta(milliseconds=900)) == 50_000
    assert {chunk for _, chunk in await waiting(admin)} == {0}


async def test_alerts_wait_for_their_items_and_keep_nobody_else_back(
    store: DispatchStore, worker: Database, admin: asyncpg.Connection
) -> None:
    """Not before all items of a broadcast have arrived; those of others go meanwhile, however few are looked at."""
    night = plan(silent(0, 4), held(0, 2, PAST), held(2, 2, FUTURE))
    await store.plan(night, 0.0)
    other = plan(held(0, 3, PAST + timedelta(minutes=1)))
    await store.plan(other, 0.0)
    assert await let_go(worker, 100, MORNING, most=1) == 3
    await store.apply([merged(chunk) for chunk in first_wave(night)])
    assert await let_go(worker, 100, MORNING + timedelta(seconds=1), most=1) == 2
    assert {broadcast_id for broadcast_id, _ in await waiting(admin)} == {
        night.rules.broadcast_id,
        other.rules.broadcast_id,
    }


async def test_what_has_expired_is_not_let_go(store: DispatchStore, worker: Database) -> None:
    """It ends as expired instead, which is looked for elsewhere."""
    await store.plan(plan(held(0, 3, MORNING), expires_at=MORNING + timedelta(seconds=1)), 0.0)
    assert await let_go(worker, 100, MORNING + timedelta(seconds=1)) == 0


async def test_who_is_let_go_is_decided_anew_before_they_are_alerted(
    store: DispatchStore, holds: HoldStore, calls: CallStore
) -> None:
    """From the start, not from what was known in the evening. The dispatch stays closed, and the ledger adds up."""
    night = plan(suppressed(0, 3, Channel.IN_APP), held(0, 3, PAST))
    await store.plan(night, 0.0)
    assert (await holds.let_go(100, MOST)).people == 3
    leased, (due,) = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert leased == []
    assert (due.kind, due.state, due.members) == (Kind.ALERT, ChunkState.PENDING, members(0, 3))
    assert due.decided.directory_version == 0
    await store.redecide([(due, Redecision(members(0, 2), (suppressed(2, 1),)))], DECIDED, 0.0)
    (away,), _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert (away.kind, Audience.from_bytes(away.members)) == (Kind.ALERT, members(0, 2))
    assert (await store.apply([merged(away)])).closures == ()
    dispatch = await calls.get(night.rules.broadcast_id)
    assert dispatch.state is DispatchState.CLOSED
    assert ledger(dispatch.counts)[1:] == [
        LedgerLine(Channel.REALTIME, DeliveryState.SENT, None, 2),
        LedgerLine(Channel.REALTIME, DeliveryState.SUPPRESSED, Reason.CATEGORY_MUTED, 1),
    ]


async def test_what_is_due_soon_is_cut_into_parts(
    store: DispatchStore, holds: HoldStore, calls: CallStore
) -> None:
    """The same people until the same time, in turn; what is due later, or small already, stays as it is."""
    soon, later = datetime.now(UTC) + timedelta(seconds=30), FUTURE
    night = plan(held(0, 95, soon), held(200, 10, soon), held(300, 95, later))
    await store.plan(night, 0.0)
    await Cutting(holds, store, [Priority.NORMAL], part=10).cut()
    found = [chunk async for page in holds.pages(Priority.NORMAL) for chunk in page]
    assert sorted(len(chunk.members) for chunk in found) == [5, *[10] * 10, 95]
    cut = [chunk for chunk in found if chunk.release_at == soon]
    assert Audience.union_of(chunk.members for chunk in cut) == members(0, 95) | members(200, 10)
    assert {chunk.decided for chunk in found} == {DECIDED}
    assert await holds.coarse([Priority.NORMAL], 10) == []
    assert ledger((await calls.get(night.rules.broadcast_id)).counts) == [
        LedgerLine(Channel.REALTIME, DeliveryState.HELD, None, 200)
    ]


async def test_what_is_due_is_not_looked_through(store: DispatchStore, holds: HoldStore) -> None:
    """It has its place among those who are let go, and who changes now is decided about when they are."""
    await store.plan(plan(held(0, 5, PAST)), 0.0)
    assert [page async for page in holds.pages(Priority.NORMAL)] == []
    assert await holds.oldest_decision([Priority.NORMAL]) is None
    assert not await holds.is_any_asleep([Priority.NORMAL])
    await store.plan(plan(held(0, 3, FUTURE)), 0.0)
    ((chunk,),) = [page async for page in holds.pages(Priority.NORMAL)]
    assert chunk.members == members(0, 3)
    assert await holds.oldest_decision([Priority.NORMAL]) == DECIDED.directory_version
    assert await holds.is_any_asleep([Priority.NORMAL])


async def test_what_is_held_is_looked_through_page_by_page(store: DispatchStore, holds: HoldStore) -> None:
    """Every held chunk of a lane once, and nothing else."""
    large = plan(silent(0, 5), *(alert(place, 1, turn=place // 3, release_at=FUTURE) for place in range(150)))
    await store.plan(large, 0.0)
    await store.plan(plan(held(0, 3, FUTURE), priority=Priority.HIGH), 0.0)
    pages = [page async for page in holds.pages(Priority.NORMAL)]
    found = [chunk for page in pages for chunk in page]
    assert sorted(chunk.chunk for chunk in found) == list(range(1, 151))
    assert max(map(len, pages)) <= 64
    assert {(chunk.release_at, chunk.state) for chunk in found} == {(FUTURE, ChunkState.HELD)}


async def test_a_held_chunk_that_is_decided_again_stays_held(
    store: DispatchStore, holds: HoldStore, calls: CallStore
) -> None:
    """Those who stay keep their time; others get one of their own; what is confirmed is not asked for again."""
    night = plan(held(0, 5, FUTURE))
    await store.plan(night, 0.0)
    ((chunk,),) = [page async for page in holds.pages(Priority.NORMAL)]
    assert await holds.oldest_decision([Priority.NORMAL]) == DECIDED.directory_version
    sooner = FUTURE - timedelta(hours=1)
    await store.redecide([(chunk, Redecision(members(0, 3), (held(3, 2, sooner),)))], DECIDED, 0.0)
    found = [chunk async for page in holds.pages(Priority.NORMAL) for chunk in page]
    assert [(each.release_at, each.members) for each in found] == [
        (sooner, members(3, 2)),
        (FUTURE, members(0, 3)),
    ]
    later = replace(DECIDED, directory_version=DECIDED.directory_version + 5)
    await store.confirm(found, later, 0.0)
    assert await holds.oldest_decision([Priority.NORMAL]) == later.directory_version
    assert ledger((await calls.get(night.rules.broadcast_id)).counts) == [
        LedgerLine(Channel.REALTIME, DeliveryState.HELD, None, 5)
    ]


async def test_broadcasts_within_a_weddings_team_are_found(store: DispatchStore, holds: HoldStore) -> None:
    """Those whose wall has one of the weddings, among those that are asked about."""
    wedding = UUID(int=1)
    bound, free = plan(held(0, 1, FUTURE)), plan(held(0, 1, FUTURE))
    bound = replace(bound, rules=replace(bound.rules, wedding_id=wedding, wall=(wedding,)))
    for each in (bound, free):
        await store.plan(each, 0.0)
    both = [bound.rules.broadcast_id, free.rules.broadcast_id]
    assert await holds.within(both, [wedding, UUID(int=2)]) == {bound.rules.broadcast_id}
    assert await holds.within(both, []) == set()
