"""Badges after thousands of random operations: the same from list, count and every stream, on both of two processes."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis
from wedsync.broadcast.v1 import common_pb2, inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.inbox.domain import Arrangement, Content, Filter, ReceiptAction
from stack.ports import Ports
from stack.processes import Program, spawn
from tests.integration.inbox.devices import Device, second_stub
from tests.integration.inbox.oracle import Entry, Oracle, a_content
from tests.integration.inbox.processes import ROOT
from tests.integration.inbox.site import ALERT, ITEM, SILENT_ITEM, Person, Site, error_of
from tests.integration.shared.polling import until

_PEOPLE = 4
_OPERATIONS_EACH = 500
_CHECKED_EVERY = 50
# What is about to go or to come back is left alone: nobody knows whether a call comes before or after.
_SOON_S = (1.5, 2.0, 3.0)
_JUST_BEFORE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Truth:
    """A badge, and what is in the list."""

    unread: int
    listed: frozenset[str]


@dataclass(slots=True)
class Life:
    """One person's inbox: on two nodes, on several devices, and as a list of the test's own."""

    site: Site
    nodes: tuple[InboxServiceStub, InboxServiceStub]
    redis: Redis
    chance: random.Random
    person: Person
    neighbour: Person
    wedding: str
    oracle: Oracle = field(default_factory=Oracle)
    devices: list[Device] = field(default_factory=list)
    watching: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)
    done: int = 0

    def node(self) -> InboxServiceStub:
        return self.chance.choice(self.nodes)

    def connect(self, place: int) -> None:
        """A device begins to watch, or goes on at whichever node answers."""
        if place < len(self.devices):
            self.watching[place].cancel()
            self.devices[place].stub = self.node()
        else:
            self.devices.append(Device(self.nodes[place % 2], self.person.metadata))
        self.watching[place] = asyncio.create_task(self.devices[place].watch())

    def pick(self) -> Entry | None:
        """Something that has arrived and is not just about to go or to come back."""
        entries = [each for each in self.oracle.entries if Oracle([each]).is_settled(_JUST_BEFORE)]
        return self.chance.choice(entries[-40:]) if entries else None

    async def arrive(self) -> None:
        """Loud or silent, behind the wall or before it, critical or not, for good or for a moment."""
        about = self.chance.choice((None, None, self.wedding))
        soon = self.chance.choice((None, None, None, *_SOON_S))
        expires_at = datetime.now(UTC) + timedelta(seconds=soon) if soon else None
        priority = self.chance.choice((common_pb2.PRIORITY_CRITICAL, common_pb2.PRIORITY_NORMAL))
        fields = {"priority": priority, "expires_at": _stamp(expires_at)}
        if about is None:
            broadcast_id = self.site.broadcast(**fields)
        else:
            fields |= {"targeting": common_pb2.Targeting(wedding_ids=[about]), "type": "timeline.changed"}
            broadcast_id = self.site.broadcast(**fields)
        to = self.chance.choice(([self.person], [self.person, self.neighbour, *range(700_000, 700_010)]))
        kind = self.chance.choice((ITEM, SILENT_ITEM))
        await self.site.deliver(broadcast_id, to, kind)
        if kind == SILENT_ITEM:
            await self.site.deliver(broadcast_id, to, ALERT)
        wall = () if about is None else (UUID(about),)
        self.oracle.arrive(_content(UUID(broadcast_id), priority, wall, expires_at))

    async def arrive_elsewhere(self) -> None:
        """Something that is the neighbour's alone."""
        await self.site.send([self.neighbour])

    async def record(self) -> None:
        """A receipt of any kind."""
        entry = self.pick()
        if entry is None:
            return
        action = self.chance.choice(list(ReceiptAction))
        broadcast_id = entry.content.broadcast_id
        request = inbox_pb2.RecordReceiptsRequest(
            broadcast_ids=[str(broadcast_id)],
            action=common_pb2.ReceiptAction.Value(f"RECEIPT_ACTION_{action.name}"),
            action_url="/x" if action is ReceiptAction.CLICKED else "",
        )
        is_recorded = self.oracle.record([broadcast_id], action)
        call = self.node().RecordReceipts(request, metadata=self.person.metadata)
        await self._expect(call, "" if is_recorded else "ILLEGAL_STATE")

    async def arrange(self) -> None:
        """A snooze, a pin, or the end of either."""
        entry = self.pick()
        if entry is None:
            return
        broadcast_id = entry.content.broadcast_id
        arrangement = self.chance.choice(list(Arrangement))
        after_s = self.chance.choice((*_SOON_S, 3600.0))
        moment = datetime.now(UTC) + timedelta(seconds=after_s)
        wanted = moment if arrangement is Arrangement.SNOOZED else None
        outcome = self.oracle.arrange(broadcast_id, arrangement, wanted)
        reason = {"arranged": "", "unknown": "NOT_FOUND"}.get(outcome, "ILLEGAL_STATE")
        if arrangement in (Arrangement.SNOOZED, Arrangement.WOKEN):
            snooze = inbox_pb2.SnoozeItemRequest(broadcast_id=str(broadcast_id), snooze_until=_stamp(wanted))
            await self._expect(self.node().SnoozeItem(snooze, metadata=self.person.metadata), reason)
        else:
            unpin = arrangement is Arrangement.UNPINNED
            pin = inbox_pb2.PinItemRequest(broadcast_id=str(broadcast_id), unpin=unpin)
            await self._expect(self.node().PinItem(pin, metadata=self.person.metadata), reason)

    async def mark_all_read(self) -> None:
        await self.node().MarkAllRead(inbox_pb2.MarkAllReadRequest(), metadata=self.person.metadata)
        self.oracle.mark_all_read()

    async def retract(self) -> None:
        entry = self.pick()
        if entry is not None:
            await self.site.retract(str(entry.content.broadcast_id), hide=True)
            self.oracle.retracted.add(entry.content.broadcast_id)

    async def change_team(self) -> None:
        """Off the team, or back on it."""
        self.oracle.teams ^= {UUID(self.wedding)}
        await self.site.set_team(self.wedding, *([self.person] if self.oracle.teams else []))

    async def lose_redis(self) -> None:
        """What was remembered there is gone."""
        await self.redis.flushall()

    async def reconnect(self) -> None:
        """A device goes on from its cursor, or starts over."""
        place = self.chance.randrange(len(self.devices))
        if self.chance.random() < 0.3:
            self.devices[place].cursor = ""
        self.connect(place)

    async def step(self) -> None:
        """Something that people, or the house, do."""
        await self.chance.choices(
            [
                *(self.arrive, self.record, self.arrange, self.arrive_elsewhere, self.mark_all_read),
                *(self.retract, self.change_team, self.lose_redis, self.reconnect),
            ],
            [18, 36, 30, 4, 2, 4, 4, 1, 3],
        )[0]()
        self.done += 1

    async def live(self) -> None:
        """Everything that is to happen, and now and then a look at how it stands."""
        while self.done < _OPERATIONS_EACH:
            for _ in range(_CHECKED_EVERY):
                await self.step()
            await self.check()

    async def check(self) -> None:
        """Once nothing is under way, all say the same; what comes to its time meanwhile has all asked again."""
        while True:
            await until(self.oracle.is_settled)
            truth = self.truth()
            answers = {await self._ask(node) for node in self.nodes}
            await until(lambda: self.truth() != truth or self._agree(truth))  # noqa: B023 this very truth
            if self.truth() == truth:
                assert answers == {(truth.unread, truth.unread, len(truth.listed))}
                return

    def truth(self) -> Truth:
        """How it stands now."""
        listed = self.oracle.listed(Filter())
        return Truth(self.oracle.unread(), frozenset(map(str, listed)))

    async def _ask(self, node: InboxServiceStub) -> tuple[int, int, int]:
        """The badge by itself, the badge with the list, and how long that is."""
        metadata = self.person.metadata
        count = await node.GetUnreadCount(inbox_pb2.GetUnreadCountRequest(), metadata=metadata)
        page = await node.ListInboxItems(inbox_pb2.ListInboxItemsRequest(), metadata=metadata)
        return count.unread_count, page.unread_count, page.total_count

    def _agree(self, truth: Truth) -> bool:
        for task in self.watching.values():
            assert not task.done(), task
        return all(each.badge == truth.unread and each.shown <= truth.listed for each in self.devices)

    async def _expect(self, call: Awaitable[object], reason: str) -> None:
        if not reason:
            await call
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert error_of(caught.value).reason_name == reason


def _stamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _content(
    broadcast_id: UUID, priority: int, wall: tuple[UUID, ...], expires_at: datetime | None
) -> Content:
    return a_content(broadcast_id, priority=priority, wall=wall, expires_at=expires_at)


@pytest.fixture
async def other_node(site: Site, tmp_path: Path) -> AsyncIterator[InboxServiceStub]:
    """Another inbox on the same servers, in a process of its own."""
    address = f"127.0.0.1:{Ports(tmp_path / 'ports.json').choose('inbox')}"
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
        **site.environment,
        "INBOX_LISTEN": address,
        "LOG_FORMAT": "json",
    }
    log = tmp_path / "inbox.log"
    command = (sys.executable, "-m", "services.inbox.main")
    process = spawn(Program("inbox", command, variables, ROOT, log))
    try:
        await until(lambda: log.exists() and '"serving"' in log.read_text())
        async with second_stub(address) as stub:
            yield stub
    finally:
        process.kill()


@asynccontextmanager
async def living(site: Site, other: InboxServiceStub, redis_url: str, seed: int) -> AsyncIterator[Life]:
    """Somebody with three devices at two nodes."""
    person, neighbour = site.people(2)
    wedding = site.wedding(person)
    await site.set_team(wedding, person)
    async with Redis.from_url(redis_url) as redis:
        life = Life(
            site, (site.stub, other), redis, random.Random(seed), person, neighbour, wedding,
            Oracle(teams={UUID(wedding)}),
        )  # fmt: skip
        for place in range(3):
            life.connect(place)
        try:
            yield life
        finally:
            for task in life.watching.values():
                task.cancel()
            await asyncio.gather(*life.watching.values(), return_exceptions=True)


async def test_badges_never_drift(site: Site, other_node: InboxServiceStub, valkey_server: str) -> None:
    """List, count and all streams of two processes agree with a list of our own, whatever happens to several people."""
    async with AsyncExitStack() as stack:
        lives = [
            await stack.enter_async_context(living(site, other_node, valkey_server, seed))
            for seed in range(_PEOPLE)
        ]
        await asyncio.gather(*(life.live() for life in lives))
        assert all(len(life.oracle.entries) > 50 for life in lives)
