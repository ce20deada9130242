"""No second has more than the rate: of all broadcasts and dispatchers, and whatever has stood still before."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta

import asyncpg

from services.dispatcher.domain import Priority
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.store import DispatchStore
from shared.database import Database
from tests.integration.dispatcher.plans import MORNING, MOST, PAST, alert, held, leave, let_go, plan


async def let_go_for(worker: Database, rate: int, seconds: int) -> list[int]:
    """How many are let go in each second from the morning on, looking twenty times a second."""
    by_second = []
    for second in range(seconds):
        begun = MORNING + timedelta(seconds=second)
        looks = [begun + timedelta(milliseconds=50 * look) for look in range(20)]
        by_second.append(sum([await let_go(worker, rate, look) for look in looks]))
        await leave(worker)
    return by_second


async def on_their_way(worker: Database, priority: Priority = Priority.NORMAL) -> int:
    """How many people's alerts were let go and have not got away."""
    people: int = await worker.fetchval(
        "SELECT coalesce(sum(size), 0) FROM chunks WHERE priority = $1 AND state IN ('pending', 'leased')",
        priority,
    )
    return people


async def test_all_broadcasts_together_keep_the_rate_to_the_second(
    store: DispatchStore, worker: Database
) -> None:
    """Ten of them that are held for the same minute: no second has more than the rate, and none is left unused."""
    for _ in range(10):
        await store.plan(plan(*(alert(10 * place, 10, turn=place) for place in range(20))), 0.0)
    assert await let_go_for(worker, 100, 21) == [100] * 20 + [0]


async def test_parts_of_any_size_fill_a_second_and_never_more(store: DispatchStore, worker: Database) -> None:
    """What does not fit any more is the first of the next second; what is smaller fills up."""
    sizes = [7, 3, 10, 1, 9, 8, 4] * 12
    for place, size in enumerate(sizes):
        await store.plan(plan(alert(10 * place, size, turn=place)), 0.0)
    by_second = await let_go_for(worker, 50, 12)
    assert sum(by_second) == sum(sizes)
    full = by_second[: sum(sizes) // 50]
    assert max(by_second) <= 50
    assert min(full) >= 48


async def test_a_second_is_not_spent_at_once(store: DispatchStore, worker: Database) -> None:
    """A fifth goes at its beginning, all by four fifths of it, and who looks late catches up within it."""
    await store.plan(plan(*(alert(10 * place, 10, turn=place) for place in range(40))), 0.0)
    assert await let_go(worker, 100, MORNING) == 20
    assert await let_go(worker, 100, MORNING) == 0
    assert await let_go(worker, 100, MORNING + timedelta(milliseconds=500)) == 50
    assert await let_go(worker, 100, MORNING + timedelta(milliseconds=950)) == 30
    assert await let_go(worker, 100, MORNING + timedelta(milliseconds=1_900)) == 0, "100 are on their way"


async def test_dispatchers_that_look_at_once_keep_the_rate_together(
    store: DispatchStore, holds: HoldStore, admin: asyncpg.Connection
) -> None:
    """However many of them do, as often as they can: of no second more than the rate, and no chunk twice."""
    await store.plan(plan(*(held(10 * place, 10, PAST) for place in range(60))), 0.0)
    done = await asyncio.gather(*(holds.let_go(100, MOST) for _ in range(60)))
    by_second = Counter[datetime]()
    for row in await admin.fetch(
        "SELECT date_trunc('second', let_go_at) AS second, sum(size) AS people FROM chunks"
        " WHERE let_go_at IS NOT NULL GROUP BY 1"
    ):
        by_second[row["second"]] = row["people"]
    assert sum(by_second.values()) == sum(each.people for each in done)
    assert 20 <= max(by_second.values()) <= 100


async def test_a_chunk_larger_than_the_rate_goes_alone_and_is_paid_for(
    store: DispatchStore, worker: Database
) -> None:
    """One that was cut for a higher rate does not wait for ever, and the seconds after it are empty."""
    await store.plan(plan(alert(0, 250, turn=0), *(alert(250 + each, 1, turn=1) for each in range(20))), 0.0)
    assert await let_go_for(worker, 100, 4) == [250, 0, 20, 0]


async def test_no_outage_ends_in_a_stampede(store: DispatchStore, worker: Database) -> None:
    """A lane that stands still is given one second's alerts, for however many minutes it does; other lanes go on.

    At its return the others follow at the rate, and nobody is left behind.
    """
    stuck = plan(*(alert(10 * place, 10, turn=place) for place in range(80)), priority=Priority.HIGH)
    other = plan(*(alert(10 * place, 10, turn=place) for place in range(80)), priority=Priority.LOW)
    for each in (stuck, other):
        await store.plan(each, 0.0)
    left = 0
    for seconds in range(0, 600, 10):
        await let_go(worker, 100, MORNING + timedelta(seconds=seconds, milliseconds=900))
        assert await on_their_way(worker, Priority.HIGH) <= 100
        left += await leave(worker, stuck)
    assert (left, await on_their_way(worker, Priority.HIGH)) == (800, 100)
    by_second = [await leave(worker)]
    for seconds in range(600, 608):
        assert await let_go(worker, 100, MORNING + timedelta(seconds=seconds, milliseconds=900)) <= 100
        by_second.append(await leave(worker))
    assert by_second == [100] * 8 + [0]


async def test_what_never_gets_away_keeps_nobody_back_for_good(
    store: DispatchStore, worker: Database
) -> None:
    """A broadcast that cannot be decided again fills its lane: after a minute others have their turn there."""
    broken = plan(*(alert(10 * place, 10, turn=place) for place in range(30)))
    sound = plan(*(alert(10 * place, 10, turn=place) for place in range(30)))
    for each in (broken, sound):
        await store.plan(each, 0.0)
    left = 0
    for seconds in range(0, 5 * 60, 5):
        await let_go(worker, 100, MORNING + timedelta(seconds=seconds, milliseconds=900))
        assert await on_their_way(worker) <= 100
        left += await leave(worker, broken)
    assert left == 300


async def test_what_the_inbox_does_not_answer_for_keeps_nobody_back_after_an_hour(
    store: DispatchStore, worker: Database
) -> None:
    """It may be there already, so it is not taken back, and counts as on its way for as long as an outage may last."""
    await store.plan(plan(*(alert(10 * place, 10, turn=place) for place in range(30))), 0.0)
    moment = MORNING + timedelta(milliseconds=900)
    assert await let_go(worker, 100, moment) == 100
    await worker.execute(
        "UPDATE chunks SET state = 'leased', epoch = 1, lease_until = now() WHERE state = 'pending'"
    )
    assert await let_go(worker, 100, moment + timedelta(minutes=59)) == 0
    assert await let_go(worker, 100, moment + timedelta(minutes=60)) == 100
    assert await on_their_way(worker) == 200


async def test_who_comes_late_counts_in_the_second_that_others_have_begun(
    store: DispatchStore, worker: Database
) -> None:
    """A second is not spent twice because a dispatcher waited while another one went on to the next."""
    await store.plan(plan(*(alert(10 * place, 10, turn=place) for place in range(40))), 0.0)
    begun = MORNING + timedelta(seconds=5)
    assert await let_go(worker, 100, begun) == 20
    assert await let_go(worker, 100, begun - timedelta(milliseconds=100)) == 0
    assert await let_go(worker, 100, begun + timedelta(milliseconds=100)) == 10
    assert await let_go(worker, 100, begun - timedelta(seconds=1)) == 0
    assert await let_go(worker, 100, begun + timedelta(milliseconds=900)) == 70


async def test_it_counts_when_the_turn_to_release_was_had(store: DispatchStore, worker: Database) -> None:
    """Not when its transaction began, which may have been in a second that others have spent meanwhile."""
    await store.plan(plan(held(0, 3, PAST)), 0.0)
    async with worker.transaction() as transaction:
        assert await transaction.fetchval("SELECT released FROM let_go(100, 1)") == 3
        assert await transaction.fetchval("SELECT let_go_at > now() FROM chunks")


async def test_a_clock_that_was_put_back_is_not_waited_for(store: DispatchStore, worker: Database) -> None:
    """More than a minute is no dispatcher that comes late."""
    await store.plan(plan(*(alert(10 * place, 10, turn=place) for place in range(40))), 0.0)
    assert await let_go(worker, 100, MORNING + timedelta(minutes=2, milliseconds=900)) == 100
    await leave(worker)
    assert await let_go(worker, 100, MORNING + timedelta(milliseconds=900)) == 100
