"""Each service is told to end while people call it: nobody who calls by the client notices."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from wedsync.broadcast.client import Added, BroadcastClient, BroadcastError, Inbox, everyone
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.dispatcher_pb2 import GetDispatchRequest
from wedsync.broadcast.v1.preferences_pb2 import GetPreferencesRequest

from stack.background import BackgroundStack
from tests.e2e.client import Client, eventually
from tests.load.steady import Steady

SERVICES = ("sender", "preferences", "dispatcher", "inbox")
MAILER = "load"
HEAL_S = 60.0
# Longer than a service takes to be started anew.
DEADLINE_S = 20.0
WATCHERS = ("admin", "couple-amara", "couple-jonas")


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
async def mailer(client: Client) -> AsyncIterator[BroadcastClient]:
    """An account that sends."""
    async with client.of(client.account(MAILER), deadline_s=DEADLINE_S, wait_s=DEADLINE_S) as mailer:
        yield mailer


class Screen:
    """What one person's inbox has shown."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.has_begun = False
        self.shown: Counter[str] = Counter()
        self.ends: list[BroadcastError] = []

    async def follow(self) -> None:
        """Watches until cancelled."""
        async for event in self._inbox.watch(on_interruption=self.ends.append):
            self.has_begun = True
            if isinstance(event, Added):
                self.shown[event.item.broadcast_id] += 1


class Story:
    """Everybody who calls while services are replaced, and what they saw."""

    def __init__(self, client: Client, mailer: BroadcastClient, first: str) -> None:
        self._admin, self._person = client.person("admin"), client.person(WATCHERS[1])
        self._inbox = mailer.inbox(client.token(WATCHERS[1]))
        self._mailer = mailer
        self._first = first
        self.accepted: list[str] = []
        self.steady = Steady()
        self.screens = [Screen(mailer.inbox(client.token(who))) for who in WATCHERS]
        self._running: list[asyncio.Task[None]] = []

    async def send(self) -> None:
        """One broadcast; an essential type reaches every inbox, whatever somebody has muted."""
        sent = await self._mailer.send(
            type="payment.required", title="Payment due", message="Card declined.", to=everyone()
        )
        self.accepted.append(sent.broadcast_id)

    @property
    def calls(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What is called, by its name: something of each service."""
        dispatch = GetDispatchRequest(broadcast_id=self._first)
        preferences, dispatcher = self._mailer.preferences, self._mailer.dispatcher
        return {
            "send": self.send,
            "show": lambda: self._mailer.get(self._first),
            "list": self._inbox.list,
            "count": self._inbox.unread_count,
            "settings": lambda: self._mailer.patiently(
                lambda: preferences.GetPreferences(GetPreferencesRequest(), metadata=self._person)
            ),
            "dispatch": lambda: self._mailer.patiently(
                lambda: dispatcher.GetDispatch(dispatch, metadata=self._admin)
            ),
        }

    async def begin(self) -> None:
        """Everybody calls, and every stream has started."""
        self._running += [asyncio.create_task(screen.follow()) for screen in self.screens]
        await self.until(lambda: all(screen.has_begun for screen in self.screens), "every stream to start")
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
    suite: BackgroundStack, client: Client, mailer: BroadcastClient
) -> None:
    """Reads, and sends with their request_id, are all answered; each stream goes on without a gap or a repetition."""
    first = await client.send(
        client.service("broadcast.send", name=MAILER), targeting=Targeting(roles=["admin"])
    )
    await client.sent(first)
    story = Story(client, mailer, first)
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
    told = [end for screen in story.screens for end in screen.ends if end.reason]
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
