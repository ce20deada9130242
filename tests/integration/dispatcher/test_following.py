"""What is held follows its people while they sleep, with a directory that says who has changed."""

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from wedsync.broadcast.v1 import audience_pb2

from services.dispatcher.domain import Channel, DeliveryState, Kind, Reason
from services.dispatcher.snapshot import Slice
from shared.audience import Audience
from shared.errors import Internal
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import asleep
from tests.integration.shared.polling import until, until_equal

SLEEPING = Audience.of(range(500, 540))
WOKEN, LATER, ERASED = (Audience.of(range(start, start + 10)) for start in (500, 510, 520))


def in_hours(hours: float) -> datetime:
    """So many hours from now, to the second."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours)


@pytest.fixture(scope="module")
async def dispatcher(surroundings: Site) -> AsyncIterator[Caller]:
    """A dispatcher with all lanes."""
    async with surroundings.dispatching() as caller:
        yield caller


@pytest.fixture(autouse=True)
async def _nobody_has_changed(surroundings: Site, suite: object, admin: asyncpg.Connection) -> None:
    """Nothing is held, and the log ends where everybody is decided about, past all that was heard before."""
    await admin.execute("UPDATE chunks SET state = 'expired' WHERE state = 'held'")
    surroundings.directory.version += 10


def change(surroundings: Site, people: Audience, **more: object) -> None:
    """The directory's log goes on, and is about these."""
    surroundings.directory.changes = audience_pb2.ListChangesResponse(
        directory_version=surroundings.directory.version + 1,
        recipients=people.to_bytes(),
        **more,  # type: ignore[arg-type]
    )


def reviews(surroundings: Site, broadcast_id: UUID) -> list[audience_pb2.ReevaluateAudienceRequest]:
    """What the directory was asked about it again."""
    name = surroundings.sender.orders[str(broadcast_id)].type
    return [request for request in surroundings.directory.reviewed if request.rules.type == name]


async def hold(surroundings: Site, release_at: datetime, *changed: Slice, wall: Sequence[UUID] = ()) -> UUID:
    """A broadcast to people who sleep; `changed` is what they get when they are decided about again."""
    now = [Slice(Channel.REALTIME, DeliveryState.PENDING, SLEEPING)]
    broadcast_id = surroundings.add(asleep(SLEEPING, release_at), changed=changed, released=now)
    surroundings.sender.orders[str(broadcast_id)].targeting.wedding_ids.extend(map(str, wall))
    await surroundings.announce(broadcast_id)
    await until(lambda: surroundings.told(broadcast_id) == [("SENT", len(SLEEPING))])
    return broadcast_id


async def test_who_changes_while_something_is_held_is_not_bound_by_the_evening(
    surroundings: Site, dispatcher: Caller
) -> None:
    """Awake by now: alerted at once. Sleeping longer: held longer. Erased: gone. The others sleep on as before."""
    morning, noon = in_hours(8), in_hours(12)
    sent = await hold(
        surroundings,
        morning,
        Slice(Channel.REALTIME, DeliveryState.PENDING, WOKEN),
        Slice(Channel.REALTIME, DeliveryState.HELD, LATER, release_at=noon),
        Slice(Channel.REALTIME, DeliveryState.SUPPRESSED, ERASED, reason=Reason.ERASED),
    )
    change(surroundings, WOKEN | LATER | ERASED)
    expected = {
        ("in_app", "delivered"): 40,
        ("realtime", "sent"): 10,
        ("realtime", "held"): 20,
        ("realtime", "suppressed", "erased"): 10,
    }
    # Who is let go is decided anew too, and by then the others of the broadcast are not asked for.
    await until_equal(expected, lambda: dispatcher.ledger(sent))
    assert surroundings.inbox.people(sent, Kind.ALERT) == WOKEN
    assert (await dispatcher.get(sent)).next_release_time.ToDatetime(UTC) == morning
    first = reviews(surroundings, sent)[0]
    assert (Audience.from_bytes(first.members), first.since_version) == (
        SLEEPING,
        surroundings.directory.version,
    )


async def test_what_is_muted_while_it_is_held_is_decided_about_when_the_hold_ends(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """Nobody loses an alert to what they take back by then; for whom it still holds it is suppressed then."""
    back, stays = Audience.of(range(500, 510)), Audience.of(range(510, 520))
    muted = Slice(Channel.REALTIME, DeliveryState.SUPPRESSED, back | stays, reason=Reason.TYPE_MUTED)
    sent = await hold(surroundings, in_hours(8), muted)
    change(surroundings, back | stays)
    await until(lambda: len(reviews(surroundings, sent)) == 1)
    query = "SELECT min(decided_version) FROM chunks WHERE broadcast_id = $1 AND kind = 'alert'"
    seen_at = surroundings.directory.version + 2
    await until_equal(seen_at, lambda: admin.fetchval(query, sent))
    assert await dispatcher.ledger(sent) == {("in_app", "delivered"): 40, ("realtime", "held"): 40}
    surroundings.decision(sent).released = [
        Slice(Channel.REALTIME, DeliveryState.PENDING, SLEEPING - stays),
        Slice(Channel.REALTIME, DeliveryState.SUPPRESSED, stays, reason=Reason.TYPE_MUTED),
    ]
    await admin.execute(
        "UPDATE chunks SET release_at = now() WHERE broadcast_id = $1 AND state = 'held'", sent
    )
    expected = {
        ("in_app", "delivered"): 40,
        ("realtime", "sent"): 30,
        ("realtime", "suppressed", "type_muted"): 10,
    }
    await until_equal(expected, lambda: dispatcher.ledger(sent))
    assert surroundings.inbox.people(sent, Kind.ALERT) == SLEEPING - stays


async def test_who_is_put_back_on_a_team_is_followed_since_before_they_left_it(
    surroundings: Site, dispatcher: Caller
) -> None:
    """Off the team they may have changed their nights, which is seen only once they are on it again."""
    wedding = uuid4()
    gone = Audience.of([500])
    sent = await hold(
        surroundings,
        in_hours(8),
        Slice(Channel.REALTIME, DeliveryState.SUPPRESSED, gone, reason=Reason.OUTSIDE_WALL),
        Slice(Channel.REALTIME, DeliveryState.HELD, LATER, release_at=in_hours(12)),
        wall=[wedding],
    )
    evening = surroundings.directory.version
    change(surroundings, LATER, wedding_ids=[str(wedding)])
    await until(lambda: len(reviews(surroundings, sent)) == 1)
    surroundings.decision(sent).changed = [Slice(Channel.REALTIME, DeliveryState.PENDING, gone)]
    surroundings.directory.version += 10
    change(surroundings, Audience(), wedding_ids=[str(wedding)])
    await until(lambda: surroundings.inbox.people(sent, Kind.ALERT) == gone)
    assert {review.since_version for review in reviews(surroundings, sent) if review.since_version} == {
        evening
    }


async def test_each_part_has_the_time_that_its_people_have_now(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """Those who sleep longer are held until then, the others until before."""
    morning, noon = in_hours(8), in_hours(12)
    later = Slice(Channel.REALTIME, DeliveryState.HELD, LATER, release_at=noon)
    same = Slice(Channel.REALTIME, DeliveryState.HELD, WOKEN, release_at=morning)
    sent = await hold(surroundings, morning, later, same)
    change(surroundings, LATER | WOKEN)
    query = "SELECT release_at, sum(size) FROM chunks WHERE broadcast_id = $1 AND state = 'held' GROUP BY 1 ORDER BY 1"

    async def times() -> list[tuple[datetime, int]]:
        return [tuple(row) for row in await admin.fetch(query, sent)]

    await until_equal([(morning, 30), (noon, 10)], times)
    assert surroundings.inbox.people(sent, Kind.ALERT) == Audience()


async def test_changes_of_others_cost_one_question_a_round(surroundings: Site, dispatcher: Caller) -> None:
    """However much is held, nobody is decided about again because somebody else has changed."""
    sent = await hold(surroundings, in_hours(8))
    change(surroundings, Audience.of([1, 2, 3]))
    await until(lambda: surroundings.directory.listed[-1:] == [surroundings.directory.version + 1])
    rounds = len(surroundings.directory.listed)
    began = time.monotonic()
    await until(lambda: len(surroundings.directory.listed) >= rounds + 2)
    assert len(surroundings.directory.listed) - rounds <= 1 + (time.monotonic() - began) / 1.0
    assert reviews(surroundings, sent) == []


async def test_without_anything_held_nobody_is_asked(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """Once what was held has ended, so do the questions."""
    await hold(surroundings, in_hours(8))
    await until(lambda: bool(surroundings.directory.listed))
    await admin.execute("UPDATE chunks SET state = 'expired' WHERE state = 'held'")
    listed = surroundings.directory.listed
    async with surroundings.dispatching(DISPATCHER_LANES="low") as other:
        count = len(listed)
        # As long as a round and a half: what is alive goes on, and asks nobody.
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            await other.get(await hold_nothing(surroundings))
        assert len(listed) - count <= 1


async def hold_nothing(surroundings: Site) -> UUID:
    """A broadcast to nobody, once it is planned."""
    sent = await surroundings.send([])
    await until(lambda: surroundings.told(sent) == [("SENT", 0)])
    return sent


async def test_a_broadcast_that_cannot_be_decided_again_keeps_no_other_from_following(
    surroundings: Site, dispatcher: Caller
) -> None:
    """It is asked about again every round; who is awake of the others is alerted meanwhile."""
    awake = Slice(Channel.REALTIME, DeliveryState.PENDING, WOKEN)
    broken = await hold(surroundings, in_hours(8), awake)
    surroundings.decision(broken).failure = Internal()
    other = await hold(surroundings, in_hours(9), awake)
    change(surroundings, WOKEN)
    await until(lambda: surroundings.inbox.people(other, Kind.ALERT) == WOKEN)
    surroundings.decision(broken).failure = None
    await until(lambda: surroundings.inbox.people(broken, Kind.ALERT) == WOKEN)


async def test_a_log_that_does_not_go_back_has_everybody_decided_again(
    surroundings: Site, dispatcher: Caller
) -> None:
    """As after a directory that was read anew."""
    sent = await hold(surroundings, in_hours(8), Slice(Channel.REALTIME, DeliveryState.PENDING, WOKEN))
    surroundings.directory.changes = audience_pb2.ListChangesResponse(
        directory_version=surroundings.directory.version + 1, anybody=True
    )
    await until(lambda: surroundings.inbox.people(sent, Kind.ALERT) == WOKEN)


async def test_a_dispatcher_that_starts_finds_what_has_changed_before(surroundings: Site) -> None:
    """While none ran, somebody woke up: the next one hears of it, because it asks from the oldest decision on."""
    async with surroundings.dispatching():
        sent = await hold(surroundings, in_hours(8), Slice(Channel.REALTIME, DeliveryState.PENDING, WOKEN))
    change(surroundings, WOKEN)
    async with surroundings.dispatching():
        await until(lambda: surroundings.inbox.people(sent, Kind.ALERT) == WOKEN)
