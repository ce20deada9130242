"""Broadcasts through a whole dispatcher: from the due message to the inbox, the ledger and the sender's ear."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.dispatcher.domain import Channel, DeliveryState, Kind, Priority, Reason
from services.dispatcher.snapshot import Slice
from shared.audience import Audience
from shared.errors import NotFound
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import asleep, now_on_both
from tests.integration.shared.polling import until, until_equal

PEOPLE = Audience.of(range(10, 20))


def suppressed(members: Audience, reason: Reason, *channels: Channel) -> list[Slice]:
    """These get nothing on these channels."""
    return [Slice(channel, DeliveryState.SUPPRESSED, members, reason=reason) for channel in channels]


def soon(seconds: float) -> datetime:
    """So many seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
async def dispatcher(surroundings: Site) -> AsyncIterator[Caller]:
    """A dispatcher with all lanes."""
    async with surroundings.dispatching() as caller:
        yield caller


@pytest.mark.parametrize("priority", list(Priority))
async def test_a_due_broadcast_arrives_and_is_told_as_sent(
    surroundings: Site, dispatcher: Caller, priority: Priority
) -> None:
    """In every lane: each person once, a ledger that adds up, and one word to the sender."""
    sent = await surroundings.send(now_on_both(PEOPLE), priority)
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])
    assert surroundings.inbox.people(sent, Kind.ITEM) == PEOPLE
    assert await dispatcher.ledger(sent) == {("in_app", "delivered"): 10, ("realtime", "sent"): 10}


async def test_the_order_is_not_asked_for_twice_when_it_comes_along(
    surroundings: Site, dispatcher: Caller
) -> None:
    """The audience is found by the announcement, while the sender decides."""
    sent = surroundings.add(now_on_both(PEOPLE))
    await surroundings.announce(sent, hint=surroundings.hint(sent))
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])
    assert surroundings.inbox.people(sent, Kind.ITEM) == PEOPLE
    assert str(sent) not in surroundings.sender.asked


@pytest.mark.parametrize("is_resolvable", [True, False])
async def test_the_sender_is_right_whatever_an_announcement_says(
    surroundings: Site, dispatcher: Caller, is_resolvable: bool
) -> None:
    """Words on the way reach nobody: not those whom they mean, and nothing fails because they mean nobody."""
    sent, other = surroundings.add(now_on_both(PEOPLE)), surroundings.add(now_on_both(Audience.of([1, 2, 3])))
    if not is_resolvable:
        surroundings.decision(other).failure = NotFound("A wedding that the targeting names does not exist.")
    await surroundings.announce(sent, hint=surroundings.hint(other))
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])
    assert surroundings.inbox.people(sent, Kind.ITEM) == PEOPLE


async def test_each_gets_what_was_decided_for_them(surroundings: Site, dispatcher: Caller) -> None:
    """Loud, silent, suppressed: only who is to be reached is, in the way that was decided."""
    awake, sleeping, muted, gone = (Audience.of(range(start, start + 5)) for start in (0, 100, 200, 300))
    later = soon(3600)
    sent = await surroundings.send(
        [
            *now_on_both(awake),
            *asleep(sleeping, later),
            Slice(Channel.IN_APP, DeliveryState.PENDING, muted),
            *suppressed(muted, Reason.CATEGORY_MUTED, Channel.REALTIME),
            *suppressed(gone, Reason.OUTSIDE_WALL, Channel.REALTIME, Channel.IN_APP),
        ]
    )
    await until(lambda: surroundings.told(sent) == [("SENT", 20)])
    assert surroundings.inbox.people(sent, Kind.ITEM) == awake
    assert surroundings.inbox.people(sent, Kind.SILENT_ITEM) == sleeping | muted
    assert surroundings.inbox.people(sent, Kind.ALERT) == Audience()
    assert await dispatcher.ledger(sent) == {
        ("in_app", "delivered"): 15,
        ("in_app", "suppressed", "outside_wall"): 5,
        ("realtime", "held"): 5,
        ("realtime", "sent"): 5,
        ("realtime", "suppressed", "category_muted"): 5,
        ("realtime", "suppressed", "outside_wall"): 5,
    }
    dispatch = await dispatcher.get(sent)
    assert dispatch.next_release_time.ToDatetime(UTC) == later
    assert dispatch.close_time.ToDatetime(UTC) >= dispatch.plan_time.ToDatetime(UTC)


async def test_nobody_meant_is_sent_to_nobody(surroundings: Site, dispatcher: Caller) -> None:
    """A targeting that matches nobody is sent, with nobody targeted."""
    sent = await surroundings.send([])
    await until(lambda: surroundings.told(sent) == [("SENT", 0)])
    assert await dispatcher.ledger(sent) == {}


async def test_a_large_broadcast_leaves_in_turns(surroundings: Site, dispatcher: Caller) -> None:
    """Never more than two full chunks of it are on their way, and everyone has it in the end."""
    everyone = Audience.of(range(600_000))
    sent = await surroundings.send(now_on_both(everyone))
    await until(lambda: surroundings.told(sent) == [("SENT", 600_000)])
    assert surroundings.inbox.people(sent, Kind.ITEM) == everyone
    assert surroundings.inbox.most_in_flight[str(sent)] <= 2
    dispatch = await dispatcher.get(sent)
    assert (dispatch.chunks_total, dispatch.chunks_done) == (10, 10)


async def test_a_scattered_small_broadcast_leaves_at_once(surroundings: Site, dispatcher: Caller) -> None:
    """Ten thousand among a million are sixteen chunks, which together hold no more people than one, in one message."""
    scattered = Audience.of(range(0, 1_000_000, 100))
    sent = await surroundings.send(now_on_both(scattered))
    await until(lambda: surroundings.told(sent) == [("SENT", 10_000)])
    assert surroundings.inbox.people(sent, Kind.ITEM) == scattered
    assert (await dispatcher.get(sent)).chunks_total == 16
    assert surroundings.inbox.messages[str(sent)] == 1


async def test_who_changed_before_their_chunk_left_gets_what_is_decided_now(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """Taken off a team, or asleep by now: they are decided again when their chunk is leased late."""
    everyone = Audience.of(range(300_000))
    off_team, asleep_now = Audience.of(range(290_000, 290_007)), Audience.of(range(299_000, 299_100))
    broadcast = surroundings.add(
        now_on_both(everyone),
        changed=[
            *suppressed(off_team, Reason.OUTSIDE_WALL, Channel.REALTIME, Channel.IN_APP),
            *asleep(asleep_now, soon(3600)),
        ],
    )
    surroundings.inbox.is_open.clear()
    await surroundings.announce(broadcast)
    await until(lambda: surroundings.inbox.in_flight.get(str(broadcast)) == 2)
    await admin.execute("UPDATE chunks SET looked_at = looked_at - interval '1 minute'")
    surroundings.inbox.is_open.set()
    await until(lambda: surroundings.told(broadcast) == [("SENT", 300_000)])
    assert surroundings.inbox.people(broadcast, Kind.ITEM) == everyone - off_team - asleep_now
    assert surroundings.inbox.people(broadcast, Kind.SILENT_ITEM) == asleep_now
    assert await dispatcher.ledger(broadcast) == {
        ("in_app", "delivered"): 299_993,
        ("in_app", "suppressed", "outside_wall"): 7,
        ("realtime", "held"): 100,
        ("realtime", "sent"): 299_893,
        ("realtime", "suppressed", "outside_wall"): 7,
    }
    name = surroundings.sender.orders[str(broadcast)].type
    asked = [each for each in surroundings.directory.reviewed if each.rules.type == name]
    assert {each.since_version for each in asked} == {7}


async def test_a_hold_that_ends_is_decided_anew(surroundings: Site, dispatcher: Caller) -> None:
    """Who has read it, or muted it since, is not alerted; who still sleeps is held again; the others are alerted."""
    sleeping = Audience.of(range(500, 540))
    read, muted, still = (Audience.of(range(start, start + 10)) for start in (500, 510, 520))
    later = soon(3600)
    broadcast = surroundings.add(
        asleep(sleeping, soon(0.5)),
        released=[
            Slice(Channel.REALTIME, DeliveryState.PENDING, sleeping - muted - still),
            *suppressed(muted, Reason.CATEGORY_MUTED, Channel.REALTIME),
            Slice(Channel.REALTIME, DeliveryState.HELD, still, release_at=later),
        ],
    )
    surroundings.inbox.readers[str(broadcast)] = read
    await surroundings.announce(broadcast)
    alerted = sleeping - read - muted - still
    await until(lambda: surroundings.inbox.people(broadcast, Kind.ALERT) == alerted)
    expected = {
        ("in_app", "delivered"): 40,
        ("realtime", "held"): 10,
        ("realtime", "sent"): 10,
        ("realtime", "suppressed", "already_read"): 10,
        ("realtime", "suppressed", "category_muted"): 10,
    }
    await until_equal(expected, lambda: dispatcher.ledger(broadcast))
    assert surroundings.told(broadcast) == [("SENT", 40)], "it was sent before, and is told once"
    assert (await dispatcher.get(broadcast)).next_release_time.ToDatetime(UTC) == later
