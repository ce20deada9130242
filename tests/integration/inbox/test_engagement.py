"""What people had done with a broadcast by a moment that is past, against a recount person by person."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wedsync.broadcast.v1 import inbox_pb2

from services.inbox.domain import CRITICAL, Engagement
from tests.integration.inbox.aging import age, clean_up, forgotten_log
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.site import Site
from tests.integration.inbox.stores import Stores

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FAR = datetime(2099, 1, 1, tzinfo=UTC)
_TIMES = {
    table: f"UPDATE {table} SET arrived_at = $2 WHERE position = $1"  # noqa: S608 names of ours
    for table in ("arrivals", "blocks", "direct")
}
_RECEIPT = """
    INSERT INTO receipts (
        recipient_number, broadcast_id, read_at, acknowledged_at, dismissed_at, clicked_at, clicked_url
    )
    VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $6::timestamptz IS NOT NULL THEN '/x' END)
"""
_MARK = "INSERT INTO watermarks (recipient_number, position, at) VALUES ($1, $2, $3)"


@dataclass(slots=True)
class Reader:
    """One person and one broadcast: when it arrived, what they did with it, and when they marked all as read."""

    arrived_at: datetime
    done: dict[str, datetime] = field(default_factory=dict)
    marks: list[datetime] = field(default_factory=list)

    @property
    def read_at(self) -> datetime | None:
        """The first of all that means reading, not before it was there."""
        times = [*self.marks, *(at for deed, at in self.done.items() if deed != "dismissed")]
        return max(self.arrived_at, min(times)) if times else None

    def did(self, deed: str, until: datetime) -> bool:
        """Whether that was done before a moment."""
        at = self.done.get(deed)
        return at is not None and max(at, self.arrived_at) < until

    def has_read(self, until: datetime) -> bool:
        """The same of reading."""
        return self.read_at is not None and self.read_at < until


def recount(readers: list[Reader], until: datetime) -> Engagement:
    """What is to be counted, person by person."""
    read = [each for each in readers if each.has_read(until)]
    taken = [each.read_at - each.arrived_at for each in read if each.read_at is not None]
    return Engagement(
        delivered=sum(each.arrived_at < until for each in readers),
        read=len(read),
        acknowledged=sum(each.did("acknowledged", until) for each in readers),
        dismissed=sum("dismissed" in each.done and each.done["dismissed"] < until for each in readers),
        clicked=sum(each.did("clicked", until) for each in readers),
        time_to_read=sum(taken, timedelta()),
    )


async def a_world(stores: Stores, dice: random.Random) -> tuple[UUID, list[Reader]]:
    """A broadcast that has arrived in parts, in crowds and alone, with what some have done at any times."""
    content = a_content(uuid4())
    readers: dict[int, Reader] = {}

    def moment() -> datetime:
        return NOON + timedelta(seconds=dice.randint(0, 20), microseconds=dice.choice((0, 1, 999_999)))

    for _ in range(dice.randint(1, 3)):
        first = stores.new_number()
        members = range(first, first + dice.choice((1, 7, 9, 40)))
        position = (await stores.arrive(content, members)).position
        arrived_at = moment()
        for query in _TIMES.values():
            await stores.admin.execute(query, position, arrived_at)
        for number in members:
            readers[number] = Reader(arrived_at)
            # Some have marked all as read before it came, which is not reading it.
            if dice.random() < 0.2:
                await stores.admin.execute(_MARK, number, position, moment())
            for place in range(dice.choice((0, 0, 0, 1, 3))):
                readers[number].marks.append(moment())
                await stores.admin.execute(_MARK, number, position + 1 + place, readers[number].marks[-1])
            # A walk takes the first mark by its position, and times do not run backwards along those.
            readers[number].marks = readers[number].marks[:1]
            if dice.random() < 0.4:
                chosen = [each for each in ("acknowledged", "dismissed", "clicked") if dice.random() < 0.4]
                readers[number].done = {deed: moment() for deed in ("read", *chosen)}
                times = [
                    readers[number].done.get(deed)
                    for deed in ("read", "acknowledged", "dismissed", "clicked")
                ]
                await stores.admin.execute(_RECEIPT, number, content.broadcast_id, *times)
    return content.broadcast_id, list(readers.values())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
async def test_a_moment_that_is_past_is_counted_person_by_person(stores: Stores, seed: int) -> None:
    """Whenever it is asked: by receipt, by "all read", in a crowd or alone; the moment itself is not in it."""
    dice = random.Random(seed)
    (one, readers), (other, others) = await a_world(stores, dice), await a_world(stores, dice)
    for seconds in (0, *(dice.uniform(0, 21) for _ in range(4)), 22):
        until = NOON + timedelta(seconds=seconds)
        counted = await stores.work.count_engagement_until([other, uuid4(), one], until)
        assert counted == [recount(others, until), recount([], until), recount(readers, until)]
        for each in counted:
            assert each.delivered >= each.read >= max(each.acknowledged, each.clicked)
    for each in readers:
        if each.read_at is not None:
            for until in (each.read_at, each.read_at + timedelta(microseconds=1)):
                (counted_then,) = await stores.work.count_engagement_until([one], until)
                assert counted_then == recount(readers, until)
    (now,), (at_the_end,) = (
        await stores.work.count_engagement([one]),
        await stores.work.count_engagement_until([one], FAR),
    )
    assert (now.delivered, now.read, now.acknowledged, now.dismissed, now.clicked) == (
        at_the_end.delivered,
        at_the_end.read,
        at_the_end.acknowledged,
        at_the_end.dismissed,
        at_the_end.clicked,
    )


@pytest.mark.parametrize("priority", [CRITICAL, 3])
async def test_what_has_left_inboxes_is_told(stores: Stores, priority: int) -> None:
    """From then on nobody can say what stood at the end of a day, of what is critical neither; not before."""
    number = stores.new_number()
    content = a_content(uuid4(), priority=priority)
    await stores.arrive(content, [number])
    await age(stores.admin, 89.9, [content.broadcast_id])
    async with forgotten_log(stores.admin):
        await clean_up(stores)
        (before,) = await stores.work.count_engagement_until([content.broadcast_id], FAR)
        assert (before.delivered, before.cleaned_at) == (1, None)
        await age(stores.admin, 0.2, [content.broadcast_id])
        await clean_up(stores)
    (after,) = await stores.work.count_engagement_until([content.broadcast_id], FAR)
    assert after.cleaned_at is not None


async def test_the_call_tells_how_long_readers_took(site: Site) -> None:
    """With `until`, for each broadcast in the order asked; without it, nothing of the kind."""
    people = site.people(10)
    broadcast_id, unread = await site.send(people), await site.send(people)
    await site.record(people[0], "ACKNOWLEDGED", broadcast_id)
    request = inbox_pb2.GetEngagementRequest(broadcast_ids=[unread, broadcast_id])
    request.until.FromDatetime(FAR)
    answer = await site.stub.GetEngagement(request, metadata=site.internal)
    assert [(each.delivered, each.read, each.acknowledged) for each in answer.engagements] == [
        (10, 0, 0),
        (10, 1, 1),
    ]
    unread_for, read_for = (each.ToTimedelta() for each in answer.times_to_read)
    assert unread_for == timedelta() < read_for < timedelta(minutes=2)
    request.until.FromDatetime(NOON - timedelta(days=365))
    answer = await site.stub.GetEngagement(request, metadata=site.internal)
    assert [each.delivered for each in answer.engagements] == [0, 0]
    request.ClearField("until")
    answer = await site.stub.GetEngagement(request, metadata=site.internal)
    assert list(answer.times_to_read) == []
