"""The inbox's word on chunks, on a real Postgres: it counts once, and the last one closes the ledger."""

import asyncio
from uuid import uuid4

import asyncpg

from services.dispatcher.call_store import CallStore
from services.dispatcher.domain import (
    Channel,
    DeliveryState,
    DispatchState,
    InFlightLimit,
    LedgerLine,
    Priority,
    ledger,
)
from services.dispatcher.messages import state_payload
from services.dispatcher.planner import first_wave
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Report
from shared.audience import Audience
from tests.integration.dispatcher.plans import (
    LIMIT,
    items,
    merged,
    plan,
    told,
)


async def test_reports_make_room_and_the_last_one_closes(
    store: DispatchStore, calls: CallStore, admin: asyncpg.Connection
) -> None:
    """Each merged chunk lets the next go; the sender hears of the end once, with the number of people."""
    large = plan(*items(500, 400, 300))
    await store.plan(large, 0.0)
    wave = first_wave(large)
    first = await store.apply([merged(wave[0])])
    assert (first.priorities, first.closures) == ({Priority.NORMAL}, ())
    leased, _ = await store.lease(Priority.NORMAL, LIMIT, 16)
    assert [(chunk.chunk, chunk.epoch, len(Audience.from_bytes(chunk.members))) for chunk in leased] == [
        (2, 1, 300)
    ]
    applied = await store.apply([merged(wave[1]), merged(leased[0])])
    assert (applied.verdicts, applied.priorities) == (("applied", "applied"), frozenset())
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
