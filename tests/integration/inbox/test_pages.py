"""Pages of an inbox in which things go on happening: each item once, in order, with counts that are true."""

import asyncio
import random
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wedsync.broadcast.v1.inbox_pb2 import ListInboxItemsResponse

from services.inbox.domain import Arrangement, Filter
from services.inbox.inboxes import Listing
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.stores import Stores
from tests.integration.inbox.test_oracle import World
from tests.integration.shared.polling import until


@dataclass(slots=True)
class Reader:
    """Somebody who turns the pages of one query, and what must be true of what they have seen."""

    world: World
    wanted: Filter
    page_size: int
    token: str = ""
    seen: list[UUID] = field(default_factory=list)
    tops: list[UUID] = field(default_factory=list)
    steady: set[UUID] = field(default_factory=set)

    def begin(self) -> None:
        """What is there now must be seen if it stays."""
        listed = self.world.oracle.listed(self.wanted)
        pinned = {each.content.broadcast_id for each in self.world.oracle.entries if each.is_pinned}
        self.steady = set(listed)
        self.tops = [each for each in listed if each in pinned]

    async def turn(self) -> bool:
        """The next page; whether another follows."""
        await until(self.world.oracle.is_settled)
        self.note()
        oracle = self.world.oracle
        listing = await self.world.stores.inboxes.list_items(
            self.world.number, self.wanted, self.page_size, self.token
        )
        found, listed = ids_of(listing), oracle.listed(self.wanted)
        assert listing.total_count == len(listed)
        assert listing.badge.unread_count == oracle.unread()
        assert len(found) == self.page_size or not listing.next_page_token
        assert set(found) <= set(listed)
        self.seen += found
        self.token = listing.next_page_token
        return bool(self.token)

    def note(self) -> None:
        """Something has happened: what was lost by it, even for a moment, may be missed."""
        self.steady &= set(self.world.oracle.listed(self.wanted))

    def check(self) -> None:
        """Everything that stayed was seen, nothing was twice, what was pinned came first and the rest by arrival."""
        assert len(set(self.seen)) == len(self.seen)
        assert self.steady <= set(self.seen)
        arrived = {each.content.broadcast_id: each.arrived for each in self.world.oracle.entries}
        top = [each for each in self.seen if each in self.tops]
        rest = [each for each in self.seen if each not in self.tops]
        assert self.seen == top + rest
        for part in (top, rest):
            assert all(arrived[one] > arrived[other] for one, other in pairwise(part))


def ids_of(listing: Listing) -> list[UUID]:
    """The broadcasts on a page."""
    return [UUID(item.broadcast_id) for item in ListInboxItemsResponse.FromString(listing.items).items]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32), size=st.integers(1, 40), page_size=st.integers(1, 7), pins=st.integers(0, 9)
)
async def test_pages_have_each_item_once_whatever_happens_between_them(
    stores: Stores, seed: int, size: int, page_size: int, pins: int
) -> None:
    """Arrivals, receipts, snoozes, pins, retractions, expiries and teams: totals and badge are those of the moment."""
    world = World(stores, random.Random(seed), stores.new_number())
    for _ in range(size):
        await world.arrive()
    for _ in range(pins):
        await world.arrange(Arrangement.PINNED)
    happenings = [
        *[world.arrive] * 4,
        *[world.record] * 4,
        *[world.arrange] * 4,
        world.change_team,
        world.mark_all_read,
        world.retract,
        world.pass_time,
    ]
    reader = Reader(world, world.a_filter(), page_size)
    await until(world.oracle.is_settled)
    reader.begin()
    while await reader.turn():
        for _ in range(world.random.randint(0, 4)):
            await world.random.choice(happenings)()
            reader.note()
    reader.check()


async def test_pages_that_are_turned_while_others_write_have_what_was_there_once(stores: Stores) -> None:
    """Items arrive as fast as they can, on another connection: the counts of each answer are of one moment."""
    number = stores.new_number()
    there = [uuid4() for _ in range(60)]
    for broadcast_id in there:
        await stores.arrive(a_content(broadcast_id), [number])
    pages_turned = asyncio.Event()
    arrived: list[UUID] = []

    async def arrive() -> None:
        while not pages_turned.is_set():
            content = a_content(uuid4())
            await stores.arrive(content, [number])
            arrived.append(content.broadcast_id)

    async def turn_pages() -> list[UUID]:
        seen: list[UUID] = []
        token, before = "", 0
        while True:
            arrived.clear()
            await until(lambda: bool(arrived))
            listing = await stores.inboxes.list_items(number, Filter(unread_only=True), 3, token)
            seen += ids_of(listing)
            assert before < listing.total_count == listing.badge.unread_count
            before, token = listing.total_count, listing.next_page_token
            if not token:
                pages_turned.set()
                return seen

    _, seen = await asyncio.gather(arrive(), turn_pages())
    assert len(set(seen)) == len(seen)
    assert seen[-60:] == there[::-1]


async def test_what_is_pinned_stays_on_top_through_all_pages(stores: Stores) -> None:
    """On top of the first page, on several when there are many, and not again at its place; newest first among them."""
    world = World(stores, random.Random(5), stores.new_number())
    ids = [uuid4() for _ in range(12)]
    for broadcast_id in ids:
        content = a_content(broadcast_id)
        await stores.arrive(content, [world.number])
        world.oracle.arrive(content)
    for place in (0, 7, 3, 5):
        await stores.arranging.arrange(world.number, ids[place], Arrangement.PINNED, None, None)
        world.oracle.arrange(ids[place], Arrangement.PINNED)
    top = [ids[place] for place in (7, 5, 3, 0)]
    first = ids_of(await stores.inboxes.list_items(world.number, Filter()))
    assert first[:4] == top
    assert first[4:] == [each for each in reversed(ids) if each not in top]
    for page_size in (1, 2, 3, 4, 5, 11):
        await world.check_pages(Filter(), page_size)
