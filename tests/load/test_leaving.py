"""Each service is told to end while people call it: nobody who retries as the service config says notices."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import grpc
import pytest
from google.rpc.status_pb2 import Status
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.dispatcher_pb2 import GetDispatchRequest
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2 import GetUnreadCountRequest, ListInboxItemsRequest, WatchInboxRequest
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.preferences_pb2 import GetPreferencesRequest
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceStub
from wedsync.broadcast.v1.sender_pb2 import GetBroadcastRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from shared.channels import ServiceChannel
from shared.errors import ServiceError, from_rich_status
from stack.background import BackgroundStack
from tests.e2e.client import Client, broadcast, eventually
from tests.load.steady import PAUSE_S, Steady, patient_channel

SERVICES = ("sender", "preferences", "dispatcher", "inbox")
MAILER = "load"
HEAL_S = 60.0
WATCHERS = ("admin", "couple-amara", "couple-jonas")
_ENDED_BY_US = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.fixture(scope="module")
def suite() -> Iterator[BackgroundStack]:
    """A suite of its own, because its processes are ended, with an account that may send all the time."""
    with BackgroundStack(2_000, settings={"SENDER_SERVICE_QUOTAS": f"{MAILER}:*=10000,10000"}) as stack:
        yield stack


@pytest.fixture
async def client(suite: BackgroundStack) -> AsyncIterator[Client]:
    """Whom to call as."""
    async with Client(suite) as client:
        yield client


@pytest.fixture
async def channels(suite: BackgroundStack) -> AsyncIterator[dict[str, ServiceChannel]]:
    """A patient channel to each service, by its name."""
    async with AsyncExitStack() as open_channels:
        yield {
            name: await open_channels.enter_async_context(patient_channel(suite, name)) for name in SERVICES
        }


class Screen:
    """One person's stream, which goes on from its last cursor whenever it ends."""

    def __init__(self, client: Client, who: str) -> None:
        self._client = client
        self._metadata = client.person(who)
        self.cursor = ""
        self.shown: Counter[str] = Counter()
        self.ends: list[ServiceError | None] = []

    async def follow(self) -> None:
        """Watches until cancelled."""
        while True:
            try:
                request = WatchInboxRequest(cursor=self.cursor)
                async for answer in self._client.inbox.WatchInbox(request, metadata=self._metadata):
                    self.cursor = answer.event.cursor or self.cursor
                    if answer.event.HasField("added"):
                        self.shown[answer.event.added.item.broadcast_id] += 1
            except grpc.aio.AioRpcError as error:
                if error.code() not in _ENDED_BY_US:
                    raise
                self.ends.append(_told(error))
            await asyncio.sleep(PAUSE_S)


def _told(error: grpc.aio.AioRpcError) -> ServiceError | None:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return from_rich_status(Status.FromString(bytes(details))) if details else None


class Story:
    """Everybody who calls while services are replaced, and what they saw."""

    def __init__(self, client: Client, channels: dict[str, ServiceChannel], first: str) -> None:
        self._admin, self._person = client.person("admin"), client.person(WATCHERS[1])
        self._mailer = client.service("broadcast.send", name=MAILER)
        self._first = first
        self._sender, self._inbox = SenderServiceStub(channels["sender"]), InboxServiceStub(channels["inbox"])
        self._preferences = PreferencesServiceStub(channels["preferences"])
        self._dispatcher = DispatcherServiceStub(channels["dispatcher"])
        self.accepted: list[str] = []
        self.steady = Steady()
        self.screens = [Screen(client, who) for who in WATCHERS]
        self._running: list[asyncio.Task[None]] = []

    async def send(self) -> None:
        """One broadcast; an essential type reaches every inbox, whatever somebody has muted."""
        request = broadcast(type="payment.required", targeting=Targeting(everyone=True))
        answer = await self._sender.SendBroadcast(request, metadata=self._mailer)
        self.accepted.append(answer.broadcast.broadcast_id)

    @property
    def calls(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What is called, by its name: something of each service."""
        show = GetBroadcastRequest(broadcast_id=self._first)
        dispatch = GetDispatchRequest(broadcast_id=self._first)
        return {
            "send": self.send,
            "show": lambda: self._sender.GetBroadcast(show, metadata=self._admin),
            "list": lambda: self._inbox.ListInboxItems(ListInboxItemsRequest(), metadata=self._person),
            "count": lambda: self._inbox.GetUnreadCount(GetUnreadCountRequest(), metadata=self._person),
            "settings": lambda: self._preferences.GetPreferences(
                GetPreferencesRequest(), metadata=self._person
            ),
            "dispatch": lambda: self._dispatcher.GetDispatch(dispatch, metadata=self._admin),
        }

    async def begin(self) -> None:
        """Everybody calls, and every stream has started."""
        self._running += [asyncio.create_task(screen.follow()) for screen in self.screens]
        await self.until(lambda: all(screen.cursor for screen in self.screens), "every stream to start")
        self._running += [
            asyncio.create_task(self.steady.run(name, call)) for name, call in self.calls.items()
        ]

    async def answered_again(self, after: str) -> None:
        """Each kind of call is answered, now that a service was replaced, and none from before is still tried."""
        before = self.steady.answered.copy()
        wanted = f"calls to be answered after {after}"
        await self.until(
            lambda: all(self.steady.answered[each] > before[each] + 5 for each in self.calls), wanted
        )
        await self.steady.finish()

    async def stop_calling(self) -> None:
        """Nobody calls any more, and every call has come to its end."""
        for task in self._running[len(self.screens) :]:
            task.cancel()
        await self.steady.finish()

    async def end(self) -> None:
        """Everything is over."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Waits for something to be true."""

        async def ask() -> bool:
            return true()

        await eventually(ask, what, HEAL_S)


@pytest.mark.timeout(300)
async def test_no_call_fails_while_every_service_is_replaced(
    suite: BackgroundStack, client: Client, channels: dict[str, ServiceChannel]
) -> None:
    """Reads, and sends with their request_id, are all answered; each stream goes on without a gap or a repetition."""
    first = await client.send("admin", type="tier.upgraded", targeting=Targeting(roles=["admin"]))
    await client.sent(first)
    story = Story(client, channels, first)
    await story.begin()
    try:
        for name in SERVICES:
            await _replace(suite, name)
            await story.answered_again(name)
        await story.stop_calling()
        for broadcast_id in story.accepted:
            await asyncio.wait_for(client.sent(broadcast_id), HEAL_S)
        accepted = set(story.accepted)
        await story.until(
            lambda: all(accepted <= screen.shown.keys() for screen in story.screens), "all screens"
        )
    finally:
        await story.end()
    assert story.steady.failures == []
    assert [screen.shown for screen in story.screens] == [Counter(story.accepted)] * len(WATCHERS)
    told = [end for screen in story.screens for end in screen.ends if end is not None]
    assert [bool(end.metadata.get("cursor")) for end in told] == [True] * len(WATCHERS)


async def _replace(suite: BackgroundStack, name: str) -> None:
    """Ends every process of a service as a deployment would, and returns when as many others run."""
    before = suite.services(name)
    for process in before:
        process.terminate()
    old = {process.pid for process in before}

    async def is_replaced() -> bool:
        now = {process.pid for process in suite.services(name)}
        return len(now) == len(old) and not now & old

    await eventually(is_replaced, f"{name} to be replaced", HEAL_S)
