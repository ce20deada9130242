"""What somebody's open streams show, a stream of their own and a handle on a shared one, as an app would draw it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc
from google.rpc.status_pb2 import Status
from wedsync.broadcast.v1.inbox_pb2 import (
    ConnectInboxesRequest,
    InboxEvent,
    InboxSubscribe,
    WatchInboxRequest,
)

from shared.errors import from_rich_status
from tests.e2e.client import Client, bearer, eventually

_HANDLE: Final = 7
ENDS_WITHIN_S: Final = 30.0
"""How long a stream may outlive the right or the token that it was opened with."""


@dataclass(slots=True)
class Screen:
    """One stream's events, and what is on the screen after them; `ended` is the reason that it has ended for."""

    events: list[InboxEvent] = field(default_factory=list)
    items: set[str] = field(default_factory=set)
    ended: str = ""

    def take(self, event: InboxEvent) -> None:
        """Draw one more event."""
        self.events.append(event)
        match event.WhichOneof("change"):
            case "snapshot":
                self.items = {item.broadcast_id for item in event.snapshot.items}
            case "added":
                self.items.add(event.added.item.broadcast_id)
            case "retracted":
                self.items.difference_update(event.retracted.broadcast_ids)
            case _:
                pass

    def after_snapshot(self, since: int) -> list[InboxEvent] | None:
        """What came after the first snapshot since then; None when there was none."""
        for place, event in enumerate(self.events[since:], start=since):
            if event.HasField("snapshot"):
                return self.events[place + 1 :]
        return None


@dataclass(slots=True)
class Screens:
    """A person's two screens."""

    alone: Screen = field(default_factory=Screen)
    shared: Screen = field(default_factory=Screen)

    @property
    def both(self) -> tuple[Screen, Screen]:
        """The stream of their own, and the handle."""
        return self.alone, self.shared

    def marks(self) -> tuple[int, int]:
        """How much has come by now."""
        return len(self.alone.events), len(self.shared.events)

    async def until(self, holds: Callable[[Screen], bool], what: str, deadline_s: float = 20.0) -> None:
        """Return once something holds for both."""

        async def is_so() -> bool:
            return all(map(holds, self.both))

        await eventually(is_so, what, deadline_s)

    async def show(self, broadcast_id: str) -> None:
        """Return once a broadcast is on both."""
        await self.until(lambda screen: broadcast_id in screen.items, f"{broadcast_id} on the screens")

    async def start_over(self, marks: tuple[int, int]) -> None:
        """Return once both were given a snapshot since then."""

        async def have_started() -> bool:
            screens = zip(self.both, marks, strict=True)
            return all(screen.after_snapshot(mark) is not None for screen, mark in screens)

        await eventually(have_started, "a snapshot on both screens")

    def named_after_snapshot(self, broadcast_id: str, marks: tuple[int, int]) -> list[InboxEvent]:
        """What named a broadcast on either, after the snapshot that took it away."""
        found = [screen.after_snapshot(mark) for screen, mark in zip(self.both, marks, strict=True)]
        return [event for events in found for event in events or () if broadcast_id in str(event)]

    def named(self, broadcast_id: str) -> bool:
        """Whether a broadcast was ever heard of on either."""
        return any(broadcast_id in str(event) for screen in self.both for event in screen.events)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason that a call was refused for, or a stream has ended."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    told = from_rich_status(Status.FromString(bytes(details)))
    return told.reason_name if told else error.code().name


@asynccontextmanager
async def watched(client: Client, token: str) -> AsyncIterator[Screens]:
    """Both screens of whose token it is, from their snapshots on."""
    screens = Screens()
    tasks = [
        asyncio.create_task(_follow_alone(client, token, screens.alone)),
        asyncio.create_task(_follow_shared(client, token, screens.shared)),
    ]
    try:
        await screens.until(lambda screen: bool(screen.events), "the first snapshot")
        yield screens
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_alone(client: Client, token: str, screen: Screen) -> None:
    try:
        async for answer in client.inbox.WatchInbox(WatchInboxRequest(), metadata=bearer(token)):
            screen.take(answer.event)
    except grpc.aio.AioRpcError as error:
        screen.ended = reason_of(error)


async def _follow_shared(client: Client, token: str, screen: Screen) -> None:
    call = client.inbox.ConnectInboxes(metadata=client.service("inbox.connect", name="bff"))
    subscribe = InboxSubscribe(handle=_HANDLE, user_token=token)
    await call.write(ConnectInboxesRequest(subscribe=subscribe))
    async for response in call:
        if response.HasField("event"):
            screen.take(response.event)
        elif response.HasField("ended"):
            screen.ended = response.ended.reason
