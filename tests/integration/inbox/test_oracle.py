"""Random inboxes against a list that is sorted and filtered: pages, totals, badges and receipts."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wedsync.broadcast.v1.inbox_pb2 import ListInboxItemsResponse

from services.inbox.domain import Arrangement, ArrivalKind, Filter, Receipt, ReceiptAction, Team
from services.inbox.store import QUERIES
from services.inbox.work_store import ReceiptCall, ReceiptOutcome
from shared.audience import Audience
from shared.errors import IllegalState, NotFound
from tests.integration.inbox.oracle import FAR, Oracle, a_content, past
from tests.integration.inbox.stores import Stores
from tests.integration.shared.polling import until

_WORDS = ("rain", "rainbow", "venue", "cake", "timeline", "photos", "late", "later")
_TYPES = ("feature.released", "timeline.changed", "wedding.emergency", "wedding.cancelled", "weddings")


@dataclass(slots=True)
class World:
    """One recipient's inbox twice, and the things that happen to both."""

    stores: Stores
    random: random.Random
    number: int
    oracle: Oracle = field(default_factory=Oracle)
    weddings: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(3)])
    versions: dict[UUID, int] = field(default_factory=dict)

    async def arrive(self) -> None:
        """A broadcast of any kind, alone or in a crowd, before or behind a wall."""
        choose = self.random.choice
        wall = tuple(self.random.sample(self.weddings, choose((0, 0, 1, 2))))
        content = a_content(
            uuid4(),
            type=choose(_TYPES),
            priority=self.random.randint(1, 4),
            title=" ".join(self.random.sample(_WORDS, 2)).title(),
            message=", ".join(self.random.sample(_WORDS, 3)),
            wall=wall,
            expires_at=choose((None, None, FAR, past())),
        )
        crowd = choose((0, 3, 20))
        members = [self.number, *range(self.number + 1, self.number + 1 + crowd)]
        await self.stores.arrive(content, members, choose((ArrivalKind.ITEM, ArrivalKind.SILENT_ITEM)))
        self.oracle.arrive(content)

    async def arrive_elsewhere(self) -> None:
        """Something that is none of this recipient's business."""
        await self.stores.arrive(a_content(uuid4()), range(self.number + 1, self.number + 12))

    async def change_team(self) -> None:
        """Onto a team, or off it."""
        wedding = self.random.choice(self.weddings)
        self.oracle.teams ^= {wedding}
        members = [self.number + 1, *([self.number] if wedding in self.oracle.teams else [])]
        self.versions[wedding] = self.versions.get(wedding, 0) + 1
        await self.stores.work.apply_team(Team(wedding, self.versions[wedding], Audience.of(members)))

    async def record(self) -> None:
        """A receipt for a few items, also for some that are not to be seen."""
        entries = self.oracle.entries
        if not entries:
            return
        picked = self.random.sample(entries, min(len(entries), self.random.randint(1, 4)))
        ids = tuple(entry.content.broadcast_id for entry in picked)
        action = self.random.choice(list(ReceiptAction))
        url = "/x" if action is ReceiptAction.CLICKED else None
        visible = {entry.content.broadcast_id for entry in self.oracle.visible()}
        ((*results,),), _ = await self.stores.work.record_receipts(
            [ReceiptCall(self.number, ids, action, url)]
        )
        recorded = self.oracle.record(ids, action)
        for broadcast_id, result in zip(ids, results, strict=True):
            if broadcast_id not in visible:
                assert result.outcome is ReceiptOutcome.UNKNOWN
            else:
                assert result.outcome is (ReceiptOutcome.RECORDED if recorded else ReceiptOutcome.REFUSED)

    async def arrange(self, arrangement: Arrangement | None = None) -> None:
        """Something snoozed, pinned, or the end of either, also of what cannot be."""
        if not self.oracle.entries:
            return
        broadcast_id = self.random.choice(self.oracle.entries).content.broadcast_id
        arrangement = arrangement or self.random.choice(list(Arrangement))
        moment = None
        if arrangement is Arrangement.SNOOZED:
            moment = datetime.now(UTC) + self.random.choice((timedelta(milliseconds=150), timedelta(hours=1)))
        outcome = self.oracle.arrange(broadcast_id, arrangement, moment)
        change = self.stores.arranging.arrange(self.number, broadcast_id, arrangement, moment, None)
        if outcome == "arranged":
            receipt = await change
            assert isinstance(receipt, Receipt)
            return
        with pytest.raises(NotFound if outcome == "unknown" else IllegalState):
            await change

    async def pass_time(self) -> None:
        """Some node says what is over."""
        await self.stores.worked.fetchrow(QUERIES["pass_time"], 2)

    async def mark_all_read(self) -> None:
        await self.stores.work.mark_all_read(self.number, None)
        self.oracle.mark_all_read()

    async def retract(self) -> None:
        if self.oracle.entries:
            broadcast_id = self.random.choice(self.oracle.entries).content.broadcast_id
            await self.stores.work.retract(broadcast_id, hide=True)
            self.oracle.retracted.add(broadcast_id)

    async def check_badge(self) -> None:
        """The badge, from what is remembered and from nothing."""
        await until(self.oracle.is_settled)
        badge = await self.stores.inboxes.count_unread(self.number)
        afresh = await self.stores.store.count_items(self.number, None)
        assert badge.unread_count == afresh.unread_count == self.oracle.unread()
        assert badge.total_count == afresh.total_count == len(self.oracle.listed(Filter()))

    async def check_pages(self, wanted: Filter, page_size: int) -> None:
        """All pages, one after the other."""
        await until(self.oracle.is_settled)
        expected = self.oracle.listed(wanted)
        found: list[UUID] = []
        token = ""
        while True:
            listing = await self.stores.inboxes.list_items(self.number, wanted, page_size, token)
            page = [
                UUID(item.broadcast_id) for item in ListInboxItemsResponse.FromString(listing.items).items
            ]
            assert listing.total_count == len(expected)
            assert listing.badge.unread_count == self.oracle.unread()
            assert len(page) == page_size or not listing.next_page_token
            found += page
            token = listing.next_page_token
            if not token:
                break
        assert found == expected

    def a_filter(self) -> Filter:
        """Any filter, most often of one or two parts."""
        rare: Callable[[object, object], object] = lambda usual, odd: self.random.choice((usual, usual, odd))  # noqa: E731
        return Filter(
            unread_only=bool(rare(False, True)),
            priorities=tuple(sorted(self.random.sample(range(1, 5), self.random.choice((0, 0, 1, 3))))),
            type=str(rare("", self.random.choice((*_TYPES, "wedding.", "w", "feature.", ".")))),
            search=str(rare("", " ".join(self.random.sample((*_WORDS, "rai", "la", "ca", "zzz"), 2)))),
            wedding_id=self.random.choice((None, None, self.weddings[0])),
            include_dismissed=bool(rare(False, True)),
            include_snoozed=bool(rare(False, True)),
        )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60), page_size=st.integers(1, 7))
async def test_an_inbox_is_a_list_sorted_and_filtered(
    stores: Stores, seed: int, steps: int, page_size: int
) -> None:
    """Whatever happens in whatever order: pages, totals, badges and refusals are those of the list."""
    world = World(stores, random.Random(seed), stores.new_number())
    happenings = [
        *[world.arrive] * 8,
        *[world.record] * 6,
        *[world.check_badge] * 3,
        *[world.change_team] * 3,
        *[world.arrange] * 6,
        world.pass_time,
        world.arrive_elsewhere,
        world.mark_all_read,
        world.retract,
    ]
    for _ in range(steps):
        await world.random.choice(happenings)()
    await world.check_badge()
    await world.check_pages(Filter(), page_size)
    for _ in range(4):
        await world.check_pages(world.a_filter(), page_size)
