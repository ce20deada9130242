"""The dispatcher's rows on a real Postgres: plans, leases, reports and what they add up to."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

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
from services.dispatcher.messages import state_payload
from services.dispatcher.planner import first_wave
from services.dispatcher.snapshot import Redecision
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Closure, LeasedChunk, Report, StopAnswer
from shared.audience import Audience
from shared.database import Database
from shared.errors import NotFound
from tests.integration.dispatcher.conftest import TERMS
from tests.integration.dispatcher.plans import (
    DECIDED,
    LIMIT,
    NONE_LEASED,
    held,
    items,
    members,
    plan,
    silent,
    suppressed,
)

PAST = datetime(2026, 11, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
LANES = list(Priority)


@pytest.fixture
def calls(caller: Database) -> CallStore:
    """The rows as calls see them."""
    return CallStore(caller)


def merged(chunk: LeasedChunk, size: int | None = None) -> Report:
    """The inbox has it."""
    real = len(Audience.from_bytes(chunk.members))
    return Report(chunk.broadcast_id, chunk.chunk, real if size is None else size, is_merged=True)


def stopped(chunk: LeasedChunk) -> Report:
    """The inbox would not have it."""
    return Report(chunk.broadcast_id, chunk.chunk, 0, is_merged=False)


async def make_stale(admin: asyncpg.Connection) -> None:
    """As if nobody had looked at any chunk for a minute."""
    await admin.execute("UPDATE chunks SET looked_at = looked_at - interval '1 minute'")


async def end_leases(admin: asyncpg.Connection) -> None:
    """As if every lease had just run out."""
    await admin.execute("UPDATE chunks SET lease_until = now() - interval '1 second' WHERE state = 'leased'")


async def told(admin: asyncpg.Connection) -> list[tuple[str, bytes]]:
    """What stands in the outbox, in order."""
    return [tuple(row) for row in await admin.fetch("SELECT subject, payload FROM outbox ORDER BY id")]


def numbers(chunks: list[LeasedChunk]) -> list[int]:
    """Their numbers, in order."""
    return sorted(chunk.chunk for chunk in chunks)


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


async def test_reports_make_room_and_the_last_one_closes(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """Each merged chunk lets the next go; the sender hears of the end once, with the number of people."""
    large = plan(*items(500, 400, 300))
    await store.plan(large, 0.0)
    wave = first_wave(large)
    assert (await store.apply([merged(wave[0])])).closures == ()
    leased, _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert [(chunk.chunk, chunk.epoch, len(Audience.from_bytes(chunk.members))) for chunk in leased] == [
        (2, 1, 300)
    ]
    applied = await store.apply([merged(wave[1]), merged(leased[0])])
    assert (applied.verdicts, applied.priorities) == (("applied", "applied"), {Priority.NORMAL})
    (closure,) = applied.closures
    assert (closure.broadcast_id, closure.targeted) == (large.rules.broadcast_id, 1200)
    payload = state_payload(large.rules.broadcast_id, "sent", closure.time, targeted=1200)
    assert await told(admin) == [("broadcast.state.sent", payload)]
    dispatch = await calls.get(large.rules.broadcast_id)
    assert (dispatch.state, dispatch.chunks_total, dispatch.chunks_done) == (DispatchState.CLOSED, 3, 3)
    assert ledger(dispatch.counts) == [
        LedgerLine(Channel.IN_APP, DeliveryState.DELIVERED, None, 1200),
        LedgerLine(Channel.REALTIME, DeliveryState.SENT, None, 1200),
    ]


async def test_a_report_that_comes_again_changes_nothing(
    store: DispatchStore, admin: asyncpg.Connection
) -> None:
    """A merge is true at any epoch, and once."""
    small = plan(*items(5))
    await store.plan(small, 0.0)
    (chunk,) = first_wave(small)
    assert (await store.apply([merged(chunk), merged(chunk)])).verdicts == ("applied", "applied")
    again = await store.apply([merged(chunk)])
    assert (again.verdicts, again.closures) == (("ignored",), ())
    assert len(await told(admin)) == 1


async def test_a_report_of_another_size_is_not_believed(store: DispatchStore, calls: CallStore) -> None:
    """The chunk stays on its way, to be sent again; so does one that nobody knows stay unknown."""
    small = plan(*items(5))
    await store.plan(small, 0.0)
    (chunk,) = first_wave(small)
    stranger = Report(uuid4(), 0, 5, is_merged=True)
    applied = await store.apply([merged(chunk, size=4), stranger])
    assert (applied.verdicts, applied.closures) == (("size", "unknown"), ())
    assert (await calls.get(small.rules.broadcast_id)).state is DispatchState.DISPATCHING


async def test_two_appliers_never_miss_the_end(store: DispatchStore, calls: CallStore) -> None:
    """Reports of one broadcast's last chunks, applied at the same time by many, close it exactly once."""
    wide = plan(*items(*[2] * 12), limit=InFlightLimit(12, 0, 12))
    await store.plan(wide, 0.0)
    applied = await asyncio.gather(*(store.apply([merged(chunk)]) for chunk in first_wave(wide)))
    assert sum(len(each.closures) for each in applied) == 1
    assert (await calls.get(wide.rules.broadcast_id)).state is DispatchState.CLOSED


async def test_appliers_of_many_broadcasts_do_not_wait_in_a_circle(store: DispatchStore) -> None:
    """Groups that name the same broadcasts in opposite order both get through."""
    plans = [plan(*items(3, 3)) for _ in range(6)]
    for each in plans:
        await store.plan(each, 0.0)
    firsts = [merged(first_wave(each)[0]) for each in plans]
    seconds = [merged(first_wave(each)[1]) for each in reversed(plans)]
    one, other = await asyncio.gather(store.apply(firsts), store.apply(seconds))
    assert len(one.closures) + len(other.closures) == len(plans)


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
    """A stale chunk is handed out unleased; once confirmed it leaves."""
    old = plan(*items(5, 500), limit=NONE_LEASED)
    await store.plan(old, 0.0)
    await make_stale(admin)
    leased, stale = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert leased == []
    assert [(chunk.chunk, chunk.state, chunk.decided) for chunk in stale] == [
        (0, ChunkState.PENDING, DECIDED),
        (1, ChunkState.PENDING, DECIDED),
    ]
    assert stale[0].members == members(0, 5)
    await store.confirm(old.rules.broadcast_id, [0, 1], DECIDED)
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


def test_the_terms_of_these_tests() -> None:
    """The first lease that the tests count with."""
    assert TERMS.first == timedelta(seconds=5)
