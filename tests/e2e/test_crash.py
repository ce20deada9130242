"""Every process is killed while broadcasts to ten thousand are on their way; nothing is lost, nothing comes twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from time import monotonic
from uuid import UUID

import grpc
import pytest
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.inbox_pb2 import GetUnreadCountRequest, WatchInboxRequest

from stack.background import BackgroundStack
from stack.load import SEED
from stack.world import World
from tests.e2e.client import CALL_S, Client, broadcast, eventually

RECIPIENTS = 10_000
SERVICES = ("sender", "preferences", "dispatcher", "inbox")
ROUNDS = 2
READERS = 24
WATCHERS = 5
HEAL_S = 90.0


@pytest.fixture(scope="module")
def crowd() -> Iterator[BackgroundStack]:
    """A suite with ten thousand people, of its own because its processes are killed."""
    with BackgroundStack(RECIPIENTS, settings={"LOG_FORMAT": "json"}) as stack:
        yield stack


@pytest.fixture(scope="module")
async def client(crowd: BackgroundStack) -> AsyncIterator[Client]:
    """Calls that suite."""
    async with Client(crowd) as client:
        yield client


@pytest.fixture(scope="module")
def people() -> list[UUID]:
    """Everyone's user id."""
    world = World(RECIPIENTS, SEED, datetime.now(UTC).date())
    return [person.user_id for person in world.people()]


async def _accepted(client: Client, title: str) -> str:
    """Sends until it is accepted, as the same request."""
    # An essential type reaches every inbox, whatever somebody has muted.
    request = broadcast(type="payment.required", title=title, targeting=Targeting(everyone=True))
    deadline = monotonic() + HEAL_S
    while True:
        try:
            answer = await client.sender.SendBroadcast(
                request, metadata=client.person("admin"), timeout=CALL_S
            )
        except grpc.aio.AioRpcError as error:
            retried = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if error.code() not in retried or monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return answer.broadcast.broadcast_id


class Screen:
    """One person's live stream, resumed from its cursor as often as it breaks."""

    def __init__(self, client: Client, user_id: UUID) -> None:
        self._client = client
        self._metadata = client.person(user_id)
        self._cursor = ""
        self.shown: list[str] = []
        self.started = asyncio.Event()

    async def follow(self) -> None:
        """Watches until cancelled."""
        while True:
            try:
                call = self._client.inbox.WatchInbox(
                    WatchInboxRequest(cursor=self._cursor), metadata=self._metadata
                )
                async for answer in call:
                    self._cursor = answer.event.cursor or self._cursor
                    self.started.set()
                    if answer.event.HasField("added"):
                        self.shown.append(answer.event.added.item.broadcast_id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _screens(client: Client, people: list[UUID]) -> AsyncIterator[list[Screen]]:
    """A screen for each of these people, on from before the block until its end."""
    screens = [Screen(client, user_id) for user_id in people]
    watching = [asyncio.create_task(screen.follow()) for screen in screens]
    try:
        await asyncio.gather(*(screen.started.wait() for screen in screens))
        yield screens
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


@pytest.mark.timeout(400)
async def test_nothing_is_lost_or_repeated_when_every_process_is_killed(
    crowd: BackgroundStack, client: Client, people: list[UUID]
) -> None:
    """Each accepted broadcast is in every inbox exactly once, nothing else is, and each open stream showed it once."""
    random = Random(20261122)
    async with _screens(client, random.sample(people, WATCHERS)) as screens:
        sends: list[asyncio.Task[str]] = []
        killed: Counter[str] = Counter()
        for turn in range(ROUNDS):
            for service in SERVICES:
                titles = (f"{turn} {service} {part}" for part in range(2))
                sends += [asyncio.create_task(_accepted(client, title)) for title in titles]
                await asyncio.sleep(random.uniform(0.0, 0.06))
                killed[service] += crowd.kill(service)
                await _up_again(crowd, service)
        accepted = set(await asyncio.gather(*sends))
        assert all(killed[service] >= ROUNDS for service in SERVICES), killed
        await _whole_again(client, next(iter(accepted)), people[0])
        for broadcast_id in accepted:
            await asyncio.wait_for(client.sent(broadcast_id), HEAL_S)

        lost, unexpected, duplicate = await _compare(client, people, accepted)
        assert (lost, unexpected, duplicate) == (0, 0, 0)
        await _all_shown(screens, accepted)
    assert [Counter(accepted)] * WATCHERS == [Counter(screen.shown) for screen in screens]


async def _up_again(crowd: BackgroundStack, service: str) -> None:
    deadline = monotonic() + HEAL_S
    while not crowd.services(service):
        assert monotonic() < deadline, f"{service} was not started again"
        await asyncio.sleep(0.05)


async def _whole_again(client: Client, broadcast_id: str, user_id: UUID) -> None:
    """Waits until what was killed last has started: showing a broadcast takes all four services, an inbox its own."""

    async def answers() -> bool:
        try:
            await client.show(broadcast_id)
            await client.inbox.GetUnreadCount(
                GetUnreadCountRequest(), metadata=client.person(user_id), timeout=CALL_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    await eventually(answers, "every service to answer", HEAL_S)


async def _all_shown(screens: list[Screen], accepted: set[str]) -> None:
    deadline = monotonic() + HEAL_S
    while not all(accepted <= set(screen.shown) for screen in screens):
        assert monotonic() < deadline, [len(accepted - set(screen.shown)) for screen in screens]
        await asyncio.sleep(0.05)


async def _compare(client: Client, people: list[UUID], accepted: set[str]) -> tuple[int, int, int]:
    """How many items are lost, unexpected and duplicate over all inboxes."""
    lost = unexpected = duplicate = 0
    places = asyncio.Semaphore(READERS)

    async def read(user_id: UUID) -> list[str]:
        async with places:
            return [item.broadcast_id for item in await client.items(user_id)]

    for found in await asyncio.gather(*(read(user_id) for user_id in people)):
        lost += len(accepted - set(found))
        unexpected += len(set(found) - accepted)
        duplicate += len(found) - len(set(found))
    return lost, unexpected, duplicate
