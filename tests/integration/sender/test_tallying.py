"""Counting by the day: from the truth as it was, whenever that is done, by however many, whatever fails meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.analytics_store import TallyStore
from services.sender.store import DispatchStore
from services.sender.tallying import Tallying
from shared import database
from shared.channels import ServiceChannel, open_channel
from shared.clock import SystemClock
from shared.database import Database
from shared.errors import DependencyUnavailable
from shared.failpoints import FailpointError, armed
from shared.settings import Address
from shared.tls import Transport
from stack.provision import SuiteDatabase
from tests.integration.sender.neighbours import Neighbours, Past
from tests.integration.sender.records import Recorded, forget_all, put_on_record
from tests.integration.sender.site import ServingSite, a_send
from tests.integration.shared.polling import until_equal

DAY = timedelta(days=1)
Row = tuple[date, int, int, int, int, int, timedelta]
_ROWS = """
    SELECT day, targeted, delivered, read, acknowledged, clicked, make_interval(secs => time_to_read_us / 1e6) AS taken
    FROM sender.daily_analytics WHERE broadcast_id = $1 ORDER BY day
"""
_TALLIES = "SELECT count(*) FROM sender.tallies WHERE broadcast_id = $1"


def at(days_ago: int, hour: int = 12) -> datetime:
    """A moment some days ago."""
    return datetime.combine(datetime.now(UTC).date() - days_ago * DAY, time(hour), UTC)


@dataclass(slots=True)
class Desk:
    """Where broadcasts are counted: a sender's tallying without the rest of it, and everything around it."""

    admin: asyncpg.Connection
    worked: Database
    beside: Neighbours
    channel: ServiceChannel

    def tallying(self) -> Tallying:
        """Another one that counts."""
        return Tallying(
            TallyStore(self.worked),
            DispatcherServiceStub(self.channel),
            InboxServiceStub(self.channel),
            SystemClock(),
            60.0,
        )

    async def dispatched(self, days_ago: int, *, targeted: int = 10, author: str = "billing") -> str:
        """A broadcast that was dispatched then, and of which nobody has heard yet; its id."""
        recorded = Recorded(author, at(days_ago))
        await put_on_record(self.admin, [recorded])
        broadcast_id = str(recorded.broadcast_id)
        await self.admin.execute(
            "INSERT INTO sender.tallies (broadcast_id, begun_at, next_day, due_at) VALUES ($1, $2, $3, now())",
            broadcast_id,
            recorded.created_at,
            recorded.created_at.date(),
        )
        dispatch = dispatcher_pb2.Dispatch(broadcast_id=broadcast_id, targeted=targeted)
        dispatch.plan_time.FromDatetime(recorded.created_at)
        self.beside.dispatcher.dispatches[broadcast_id] = dispatch
        self.beside.inbox.past[broadcast_id] = []
        return broadcast_id

    def happened(self, broadcast_id: str, moment: datetime, *counts: int, taken_s: float = 0.0) -> None:
        """From this moment on so many have it delivered, read, acknowledged, clicked."""
        names = ("delivered", "read", "acknowledged", "clicked")
        engagement = common_pb2.Engagement(**dict(zip(names, counts, strict=False)))
        self.beside.inbox.past[broadcast_id].append(Past(moment, engagement, timedelta(seconds=taken_s)))

    async def rows(self, broadcast_id: str) -> list[Row]:
        """The days that were kept."""
        return [tuple(row) for row in await self.admin.fetch(_ROWS, UUID(broadcast_id))]

    async def tally(self, broadcast_id: str) -> asyncpg.Record | None:
        """How it goes on."""
        return await self.admin.fetchrow(
            "SELECT targeted, next_day, due_at > now() AS is_later FROM sender.tallies WHERE broadcast_id = $1",
            UUID(broadcast_id),
        )

    async def make_due(self) -> None:
        """All leases are over, and all pauses."""
        await self.admin.execute("UPDATE sender.tallies SET due_at = now()")


@pytest.fixture
async def desk(sender_database: SuiteDatabase, beside: Neighbours) -> AsyncIterator[Desk]:
    """Nothing has been sent, and nobody counts but who is asked to."""
    admin = await asyncpg.connect(sender_database.admin_url)
    worked = await database.connect(sender_database.url("sender", "worker"), application_name="test")
    channel = open_channel("neighbours", Address.parse(beside.address), Transport(), lambda: "token")
    await forget_all(admin)
    await admin.execute("DELETE FROM sender.daily_analytics")
    yield Desk(admin, worked, beside, channel)
    await forget_all(admin)
    await channel.close()
    await worked.close()
    await admin.close()


async def count_all(desk: Desk) -> None:
    """Look until nothing is due."""
    tallying = desk.tallying()
    while await tallying.count_due():
        pass


async def test_each_day_is_counted_as_it_ended(desk: Desk) -> None:
    """Days on which nothing happened have no row; what happened at midnight belongs to the day that began with it."""
    broadcast_id = await desk.dispatched(6)
    desk.happened(broadcast_id, at(6, 13), 8)
    desk.happened(broadcast_id, at(6, 14), 8, 1, taken_s=3_600)
    desk.happened(broadcast_id, at(5, 0), 8, 3, 2, taken_s=72_000)
    desk.happened(broadcast_id, at(2), 9, 4, 2, 1, taken_s=90_000.5)
    await count_all(desk)
    assert await desk.rows(broadcast_id) == [
        (at(6).date(), 10, 8, 1, 0, 0, timedelta(hours=1)),
        (at(5).date(), 10, 8, 3, 2, 0, timedelta(hours=20)),
        (at(2).date(), 10, 9, 4, 2, 1, timedelta(hours=25, seconds=0.5)),
    ]
    tally = await desk.tally(broadcast_id)
    assert tally is not None
    assert (tally["targeted"], tally["is_later"]) == (10, True)
    assert at(1).date() <= tally["next_day"] <= at(0).date()


async def test_the_running_day_is_counted_again_and_again(desk: Desk) -> None:
    """One row, which grows with what people do."""
    broadcast_id = await desk.dispatched(0)
    del desk.beside.inbox.past[broadcast_id]
    for counts in ((4, 0), (10, 1), (10, 6)):
        desk.beside.inbox.engagements[broadcast_id] = common_pb2.Engagement(
            delivered=counts[0], read=counts[1]
        )
        await desk.make_due()
        await count_all(desk)
        assert [row[1:4] for row in await desk.rows(broadcast_id)] == [(10, *counts)]


async def test_counting_again_changes_nothing(desk: Desk) -> None:
    """From the first day on, as after a restore; also when receipts were erased meanwhile: what was, was."""
    broadcast_id = await desk.dispatched(4)
    desk.happened(broadcast_id, at(4, 13), 8, 5, 3, 2, taken_s=100)
    desk.happened(broadcast_id, at(2), 9, 6, 3, 2, taken_s=200)
    await count_all(desk)
    before = await desk.rows(broadcast_id)
    assert len(before) == 2
    for erased in (False, True):
        if erased:
            desk.beside.inbox.past[broadcast_id] = [
                replace(past, engagement=common_pb2.Engagement(delivered=8), time_to_read=timedelta())
                for past in desk.beside.inbox.past[broadcast_id]
            ]
        await desk.admin.execute("UPDATE sender.tallies SET next_day = begun_at::date, due_at = now()")
        await count_all(desk)
        assert await desk.rows(broadcast_id) == before


async def test_several_share_the_work(desk: Desk) -> None:
    """Each broadcast's day is asked for once, and comes out right."""
    ids = [await desk.dispatched(1) for _ in range(250)]
    for broadcast_id in ids:
        desk.happened(broadcast_id, at(1, 13), 7, 2)
    counted = await asyncio.gather(*(desk.tallying().count_due() for _ in range(4)))
    assert sum(counted) == 250
    asked = [each for each in desk.beside.inbox.asked_until if each[1] == at(0, 0)]
    assert len(asked) == len(set(asked)) == 250
    await count_all(desk)
    for broadcast_id in ids:
        assert [row[:4] for row in await desk.rows(broadcast_id)] == [(at(1).date(), 10, 7, 2)]


@pytest.mark.parametrize("failpoint", ["after_claim", "before_keep", "after_keep"])
async def test_who_ends_in_the_middle_is_made_up_for(desk: Desk, failpoint: str) -> None:
    """Once the lease is over; and until then nobody else counts it."""
    broadcast_id = await desk.dispatched(1)
    desk.happened(broadcast_id, at(1, 13), 7, 2)
    with armed(f"sender.tally.{failpoint}=error") as plan, pytest.raises(FailpointError):
        await desk.tallying().count_due()
    assert plan.hits
    if failpoint != "after_keep":
        assert await desk.tallying().count_due() == 0
        assert await desk.rows(broadcast_id) == []
    await desk.make_due()
    await count_all(desk)
    assert [row[:4] for row in await desk.rows(broadcast_id)] == [(at(1).date(), 10, 7, 2)]


@pytest.mark.parametrize("silent", ["dispatcher", "inbox"])
async def test_neighbour_that_was_down_is_asked_again(desk: Desk, silent: str) -> None:
    """The day that it missed is counted as it was."""
    broadcast_id = await desk.dispatched(2)
    desk.happened(broadcast_id, at(2, 13), 7, 2)
    desk.happened(broadcast_id, at(1, 13), 8, 3)
    neighbour = getattr(desk.beside, silent)
    neighbour.is_down = True
    with pytest.raises(DependencyUnavailable):
        await desk.tallying().count_due()
    assert await desk.rows(broadcast_id) == []
    neighbour.is_down = False
    await desk.make_due()
    await count_all(desk)
    assert [row[2:4] for row in await desk.rows(broadcast_id)] == [(7, 2), (8, 3)]


async def test_what_cannot_be_is_told_and_stops_nobody_else(desk: Desk) -> None:
    """More readers than have it: a defect somewhere, which must not stand in anybody's figures."""
    broken, sound = await desk.dispatched(1), await desk.dispatched(1)
    desk.happened(broken, at(1, 13), 2, 7)
    desk.happened(sound, at(1, 13), 7, 2)
    with capture_logs() as lines:
        await count_all(desk)
    assert [line["broadcast_id"] for line in lines if line["event"] == "impossible_count"] == [broken]
    assert await desk.rows(broken) == []
    assert len(await desk.rows(sound)) == 1
    desk.beside.inbox.past[broken] = [Past(at(1, 13), common_pb2.Engagement(delivered=7, read=2))]
    await desk.make_due()
    await count_all(desk)
    assert [row[2:4] for row in await desk.rows(broken)] == [(7, 2)]


async def test_there_is_nothing_to_count_before_there_is_a_plan(desk: Desk) -> None:
    """It is looked at again; its days begin with that of the plan. One that ended without a plan is let go."""
    waiting, cancelled = await desk.dispatched(3), await desk.dispatched(3)
    dispatches = desk.beside.dispatcher.dispatches
    plan = dispatches.pop(waiting)
    dispatches[cancelled] = dispatcher_pb2.Dispatch(
        broadcast_id=cancelled, state=dispatcher_pb2.DISPATCH_STATE_STOPPED
    )
    await desk.admin.execute(
        "UPDATE sender.broadcasts SET state = 'dispatching', sent_at = NULL WHERE broadcast_id = $1",
        UUID(waiting),
    )
    await count_all(desk)
    assert (await desk.rows(waiting), await desk.tally(cancelled)) == ([], None)
    plan.plan_time.FromDatetime(at(2))
    dispatches[waiting] = plan
    desk.happened(waiting, at(2, 13), 7)
    await desk.admin.execute("UPDATE sender.tallies SET next_day = begun_at::date, due_at = now()")
    await count_all(desk)
    assert [row[:3] for row in await desk.rows(waiting)] == [(at(2).date(), 10, 7)]


async def test_counting_ends_with_the_life_of_its_items(desk: Desk) -> None:
    """Ninety days, all of which are caught up with; the rows stay, also when the broadcast is removed."""
    broadcast_id = await desk.dispatched(95)
    desk.happened(broadcast_id, at(95, 13), 7)
    desk.happened(broadcast_id, at(6, 13), 7, 1)
    desk.happened(broadcast_id, at(5, 13), 7, 2)
    await count_all(desk)
    assert await desk.tally(broadcast_id) is None
    assert [row[0] for row in await desk.rows(broadcast_id)] == [at(95).date(), at(6).date()]
    await forget_all(desk.admin)
    assert len(await desk.rows(broadcast_id)) == 2


async def test_counting_ends_when_items_have_left_inboxes(desk: Desk) -> None:
    """Sooner than usual, where they are kept for less long: what was counted before stands, and nothing is added."""
    broadcast_id = await desk.dispatched(4)
    desk.happened(broadcast_id, at(4, 13), 7, 2)
    await count_all(desk)
    before = await desk.rows(broadcast_id)
    left = common_pb2.Engagement(delivered=7)
    left.cleaned_time.FromDatetime(at(0, 0))
    desk.beside.inbox.past[broadcast_id].append(Past(at(3), left))
    await desk.admin.execute("UPDATE sender.tallies SET next_day = begun_at::date + 1, due_at = now()")
    await count_all(desk)
    assert (await desk.rows(broadcast_id), await desk.tally(broadcast_id)) == (before, None)
    assert len(before) == 1


async def test_what_nobody_can_add_to_is_counted_once(desk: Desk) -> None:
    """Nobody was meant, or everybody has done all that there is to do."""
    nobody, everybody = await desk.dispatched(1, targeted=0), await desk.dispatched(1, targeted=3)
    desk.happened(everybody, at(1, 13), 3, 3, 3, 3)
    await count_all(desk)
    assert (await desk.tally(nobody), await desk.tally(everybody)) == (None, None)
    assert [row[1:6] for row in await desk.rows(nobody)] == [(0, 0, 0, 0, 0)]
    assert [row[1:6] for row in await desk.rows(everybody)] == [(3, 3, 3, 3, 3)]


async def test_what_a_crash_has_forgotten_is_counted_once_it_is_cancelled(desk: Desk) -> None:
    """Dispatched three days ago, of which the sender knows nothing any more; its days begin with the plan."""
    broadcast_id = await desk.dispatched(3)
    desk.happened(broadcast_id, at(3, 13), 7)
    desk.happened(broadcast_id, at(2, 13), 7, 1)
    await desk.admin.execute("DELETE FROM sender.tallies")
    await desk.admin.execute(
        "UPDATE sender.broadcasts SET state = 'pending', sent_at = NULL, cancel_requested_at = now()"
    )
    store = DispatchStore(desk.worked)
    for _ in range(2):
        assert await store.finish_cancel(broadcast_id, stopped=3, already_sent=7, retracted=False)
    await desk.make_due()
    await count_all(desk)
    assert [row[:4] for row in await desk.rows(broadcast_id)] == [
        (at(3).date(), 10, 7, 0),
        (at(2).date(), 10, 7, 1),
    ]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_days_are_those_of_a_recount(desk: Desk, seed: int) -> None:
    """Whatever happened when, and in whatever pieces it is counted."""
    dice = random.Random(seed)
    ids = [await desk.dispatched(dice.randint(2, 8), targeted=dice.randint(1, 20)) for _ in range(5)]
    expected: dict[str, list[Row]] = {}
    for broadcast_id in ids:
        dispatch = desk.beside.dispatcher.dispatches[broadcast_id]
        first, counts = dispatch.plan_time.ToDatetime(UTC), (0, 0, 0, 0)
        taken_s, by_day = 0, {first.date(): (*counts, timedelta())}
        moment = first
        while (moment := moment + timedelta(hours=dice.randint(0, 40))) < at(1, 0):
            delivered = dice.randint(counts[0], dispatch.targeted)
            read = dice.randint(counts[1], delivered) if delivered > counts[1] else counts[1]
            rest = [dice.randint(each, read) for each in counts[2:]]
            taken_s += dice.randint(0, 9_999) * (read - counts[1])
            counts = (delivered, read, rest[0], rest[1])
            desk.happened(broadcast_id, moment, *counts, taken_s=taken_s)
            by_day[moment.date()] = (*counts, timedelta(seconds=taken_s))
        days = sorted(by_day)
        changed = [
            day
            for place, day in enumerate(days)
            if not place or by_day[day][:4] != by_day[days[place - 1]][:4]
        ]
        expected[broadcast_id] = [(day, dispatch.targeted, *by_day[day]) for day in changed]
    for _ in range(dice.randint(0, 3)):
        await desk.tallying().count_due()
        await desk.make_due()
    await count_all(desk)
    assert {broadcast_id: await desk.rows(broadcast_id) for broadcast_id in ids} == expected
    await forget_all(desk.admin)


async def test_a_broadcast_is_counted_from_its_dispatch_on(site: ServingSite) -> None:
    """By the sender itself, within seconds, with who sent it and its wall."""
    author, coordinator = site.person("coordinator")
    wedding_id = site.wedding(author)
    sent = await site.send(coordinator, a_send(type="form.locked", targeting={"wedding_ids": [wedding_id]}))
    broadcast_id = sent.broadcast.broadcast_id
    dispatch = dispatcher_pb2.Dispatch(broadcast_id=broadcast_id, targeted=3)
    dispatch.plan_time.GetCurrentTime()
    site.neighbours.dispatcher.dispatches[broadcast_id] = dispatch
    site.neighbours.inbox.engagements[broadcast_id] = common_pb2.Engagement(delivered=2, read=1)
    assert (
        await site.admin.fetchval(
            "SELECT count(*) FROM sender.tallies WHERE broadcast_id = $1", UUID(broadcast_id)
        )
        == 0
    )
    await site.plan(broadcast_id)

    async def counted() -> list[tuple[object, ...]]:
        rows = await site.admin.fetch(
            "SELECT type, priority, created_by, targeted, delivered, read FROM sender.daily_analytics "
            "WHERE broadcast_id = $1",
            UUID(broadcast_id),
        )
        return [tuple(row) for row in rows]

    await until_equal([("form.locked", 3, author, 3, 2, 1)], counted)
    walls = "SELECT wedding_id FROM sender.analytics_walls WHERE broadcast_id = $1"
    assert [str(row["wedding_id"]) for row in await site.admin.fetch(walls, UUID(broadcast_id))] == [
        wedding_id
    ]
