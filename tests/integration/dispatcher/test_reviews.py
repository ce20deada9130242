"""Deciding again about what has waited, while much waits: nobody's review keeps another one's broadcast back."""

import time
from uuid import UUID

import asyncpg

from services.dispatcher.domain import Channel, DeliveryState, Kind, Reason
from services.dispatcher.snapshot import Slice
from shared.audience import CHUNK_MEMBERS, Audience
from shared.errors import Internal
from tests.integration.dispatcher.plans import make_stale
from tests.integration.dispatcher.site import Site
from tests.integration.dispatcher.stand_ins import now_on_both
from tests.integration.shared.polling import until

PEOPLE = Audience.of(range(2 * CHUNK_MEMBERS))
"""Two chunks, of which one is on its way at a time."""
TERMS = {
    "DISPATCHER_CHUNKS_IN_FLIGHT": "1",
    "DISPATCHER_MEMBERS_IN_FLIGHT": "1",
    "DISPATCHER_FRESH_S": "0.3",
}


async def begin(surroundings: Site) -> UUID:
    """A broadcast whose first chunk is at the inbox, which is closed, and whose second waits."""
    sent = await surroundings.send(now_on_both(PEOPLE))
    await until(lambda: surroundings.inbox.in_flight.get(str(sent)) == 1)
    return sent


def reviews(surroundings: Site, broadcast_id: UUID) -> int:
    """How often the directory was asked again about it."""
    name = surroundings.sender.orders[str(broadcast_id)].type
    return sum(request.rules.type == name for request in surroundings.directory.reviewed)


async def test_what_was_decided_again_leaves_before_that_is_old(
    surroundings: Site, admin: asyncpg.Connection
) -> None:
    """After an outage many wait, and deciding about all takes longer than a decision lasts: few are asked for twice."""
    surroundings.inbox.is_open.clear()
    async with surroundings.dispatching(**TERMS):
        late = [await begin(surroundings) for _ in range(12)]
    await make_stale(admin)
    surroundings.directory.pause_s = 0.1
    async with surroundings.dispatching(**TERMS):
        surroundings.inbox.is_open.set()
        for broadcast in late:
            await until(lambda broadcast=broadcast: surroundings.told(broadcast) == [("SENT", len(PEOPLE))])
    surroundings.directory.pause_s = 0.0
    counts = [reviews(surroundings, broadcast) for broadcast in late]
    assert min(counts) >= 1
    assert max(counts) <= 2
    assert all(surroundings.inbox.people(broadcast, Kind.ITEM) == PEOPLE for broadcast in late)


async def test_a_broadcast_that_cannot_be_decided_again_keeps_no_other_back(
    surroundings: Site, admin: asyncpg.Connection
) -> None:
    """It is asked about for ever, at a bounded rate; what waits beside it leaves as if it were alone."""
    surroundings.inbox.is_open.clear()
    async with surroundings.dispatching(**TERMS | {"DISPATCHER_FRESH_S": "1"}):
        broken = await begin(surroundings)
        surroundings.decision(broken).failure = Internal()
        await make_stale(admin)
        surroundings.inbox.is_open.set()
        await until(lambda: reviews(surroundings, broken) >= 6)
        surroundings.inbox.is_open.clear()
        other = await begin(surroundings)
        await make_stale(admin)
        opened = time.monotonic()
        surroundings.inbox.is_open.set()
        await until(lambda: surroundings.told(other) == [("SENT", len(PEOPLE))])
        # Once, and again only for what could not leave while that held.
        assert 1 <= reviews(surroundings, other) <= 1 + (time.monotonic() - opened) / 1.0
        assert surroundings.told(broken) == []
        surroundings.decision(broken).failure = None
        await until(lambda: surroundings.told(broken) == [("SENT", len(PEOPLE))])


async def test_a_plan_that_took_long_is_decided_again_before_it_leaves(surroundings: Site) -> None:
    """What its first answer said is too old by then: nobody gets it by that."""
    surroundings.directory.resolve_pause_s = 0.2
    muted = Audience.of([1])
    suppressed = [
        Slice(channel, DeliveryState.SUPPRESSED, muted, reason=Reason.CATEGORY_MUTED) for channel in Channel
    ]
    sent = surroundings.add(now_on_both(Audience.of([1, 2, 3])), changed=suppressed)
    async with surroundings.dispatching(DISPATCHER_FRESH_S="0.1"):
        await surroundings.announce(sent)
        await until(lambda: surroundings.told(sent) == [("SENT", 3)])
    surroundings.directory.resolve_pause_s = 0.0
    assert surroundings.inbox.people(sent, Kind.ITEM) == Audience.of([2, 3])


async def test_a_change_binds_what_has_not_been_taken_up_when_it_is_accepted(surroundings: Site) -> None:
    """However lately a chunk was decided: a lane finds that the directory has moved on, and asks again."""
    surroundings.inbox.is_open.clear()
    async with surroundings.dispatching(**TERMS | {"DISPATCHER_FRESH_S": "1"}):
        sent = await begin(surroundings)
        assert reviews(surroundings, sent) == 0
        surroundings.directory.version += 1
        surroundings.inbox.is_open.set()
        await until(lambda: surroundings.told(sent) == [("SENT", len(PEOPLE))])
    assert reviews(surroundings, sent) == 1
