"""A sender and an inbox that answer as a test says, on a real gRPC server, and keep what they were asked."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import grpc
from wedsync.broadcast.client import Addresses, BroadcastClient, Retries, Token, Waiting, insecure
from wedsync.broadcast.v1 import inbox_pb2, sender_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer, add_InboxServiceServicer_to_server
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceServicer, add_SenderServiceServicer_to_server

from shared.errors import ServiceError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Step: TypeAlias = ServiceError | grpc.StatusCode | Callable[[Context], Awaitable[None]] | None
"""What becomes of a call: refused as services do, ended with a bare code, something else, or answered."""

Answer = TypeVar("Answer")

SOMEBODY = "somebody"


async def within_reason(call: Awaitable[Answer]) -> Answer:
    """What a call comes to; one that hangs, or goes on for ever, fails its test."""
    return await asyncio.wait_for(call, 5.0)


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as it came in."""

    token: str | None
    remaining_s: float
    request: Any


@dataclass(slots=True)
class Script:
    """What becomes of the next calls, those after that are answered; and what was asked."""

    steps: deque[Step] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)

    async def play(self, request: object, context: Context) -> None:
        """Does with a call what was written for it."""
        metadata = dict(context.invocation_metadata() or ())
        token = metadata.get("authorization")
        self.asked.append(Asked(_text(token), context.time_remaining() or 0.0, request))
        await _do(self.steps.popleft() if self.steps else None, context)

    def tokens(self) -> list[str | None]:
        """Whom each call was made for."""
        return [asked.token for asked in self.asked]


async def _do(step: Step, context: Context) -> None:
    if isinstance(step, ServiceError):
        await refuse(context, step)
    elif isinstance(step, grpc.StatusCode):
        await context.abort(step, "as the script says")
    elif step is not None:
        await step(context)


def _text(header: str | bytes | None) -> str | None:
    return None if header is None else str(header).removeprefix("Bearer ")


async def refuse(context: Context, error: ServiceError) -> None:
    """End a call as the edge of a service does."""
    status = error.to_rich_status()
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    await context.abort(code, status.message)


class Sender(SenderServiceServicer):
    """Accepts whatever comes to it."""

    def __init__(self) -> None:
        self.script = Script()
        self.progress: deque[list[sender_pb2.WatchBroadcastResponse]] = deque()
        """What each of the next streams tells before it ends, as `endings` says, or in order."""
        self.endings: deque[Step] = deque()

    async def SendBroadcast(
        self, request: sender_pb2.SendBroadcastRequest, context: Context
    ) -> sender_pb2.SendBroadcastResponse:
        await self.script.play(request, context)
        broadcast = sender_pb2.Broadcast(broadcast_id=f"of {request.request_id}", title=request.title)
        return sender_pb2.SendBroadcastResponse(broadcast=broadcast, targeted_users=6)

    async def GetBroadcast(
        self, request: sender_pb2.GetBroadcastRequest, context: Context
    ) -> sender_pb2.GetBroadcastResponse:
        await self.script.play(request, context)
        return sender_pb2.GetBroadcastResponse()

    async def WatchBroadcast(
        self, request: sender_pb2.WatchBroadcastRequest, context: Context
    ) -> AsyncIterator[sender_pb2.WatchBroadcastResponse]:
        await self.script.play(request, context)
        for told in self.progress.popleft():
            yield told
        await _do(self.endings.popleft() if self.endings else None, context)


class Inbox(InboxServiceServicer):
    """Has a log of items, each with its place as cursor."""

    def __init__(self) -> None:
        self.script = Script()
        self.log: list[str] = []
        self.streams: deque[tuple[int, Step]] = deque()
        """After how many events each of the next streams ends, and how; those after them stay open."""
        self.kept_from = 0
        """The oldest cursor that leads somewhere."""
        self.signs_of_life: deque[str] = deque()
        """The cursors with which the next stream says that it lives, `sign_every_s` apart, before anything else."""
        self.sign_every_s = 0.0

    async def WatchInbox(
        self, request: inbox_pb2.WatchInboxRequest, context: Context
    ) -> AsyncIterator[inbox_pb2.WatchInboxResponse]:
        await self.script.play(request, context)
        length, ending = self.streams.popleft() if self.streams else (len(self.log) + 1, _stay)
        async for event in self._alive():
            yield inbox_pb2.WatchInboxResponse(event=event)
        for event in self._events(request.cursor)[:length]:
            yield inbox_pb2.WatchInboxResponse(event=event)
        await _do(ending, context)

    async def GetUnreadCount(
        self, request: inbox_pb2.GetUnreadCountRequest, context: Context
    ) -> inbox_pb2.GetUnreadCountResponse:
        await self.script.play(request, context)
        return inbox_pb2.GetUnreadCountResponse(unread_count=len(self.log))

    async def ListInboxItems(
        self, request: inbox_pb2.ListInboxItemsRequest, context: Context
    ) -> inbox_pb2.ListInboxItemsResponse:
        await self.script.play(request, context)
        first = int(request.page_token or 0)
        items = [inbox_pb2.InboxItem(broadcast_id=each) for each in self.log[first : first + 2]]
        following = str(first + 2) if first + 2 < len(self.log) else ""
        return inbox_pb2.ListInboxItemsResponse(items=items, next_page_token=following)

    async def RecordReceipts(
        self, request: inbox_pb2.RecordReceiptsRequest, context: Context
    ) -> inbox_pb2.RecordReceiptsResponse:
        await self.script.play(request, context)
        return inbox_pb2.RecordReceiptsResponse()

    async def SnoozeItem(
        self, request: inbox_pb2.SnoozeItemRequest, context: Context
    ) -> inbox_pb2.SnoozeItemResponse:
        await self.script.play(request, context)
        return inbox_pb2.SnoozeItemResponse()

    async def PinItem(self, request: inbox_pb2.PinItemRequest, context: Context) -> inbox_pb2.PinItemResponse:
        await self.script.play(request, context)
        return inbox_pb2.PinItemResponse()

    async def _alive(self) -> AsyncIterator[inbox_pb2.InboxEvent]:
        while self.signs_of_life:
            await asyncio.sleep(self.sign_every_s)
            yield inbox_pb2.InboxEvent(cursor=self.signs_of_life.popleft(), heartbeat=inbox_pb2.Heartbeat())

    def _events(self, cursor: str) -> list[inbox_pb2.InboxEvent]:
        if not cursor or int(cursor) < self.kept_from:
            items = [inbox_pb2.InboxItem(broadcast_id=each) for each in reversed(self.log)]
            snapshot = inbox_pb2.InboxSnapshot(items=items, unread_count=len(items))
            return [inbox_pb2.InboxEvent(cursor=str(len(self.log)), snapshot=snapshot)]
        return [
            inbox_pb2.InboxEvent(
                cursor=str(position + 1),
                added=inbox_pb2.ItemAdded(item=inbox_pb2.InboxItem(broadcast_id=self.log[position])),
            )
            for position in range(int(cursor), len(self.log))
        ]


async def _stay(_: Context) -> None:
    await asyncio.Event().wait()


@dataclass(slots=True)
class Pauses:
    """A clock that nobody has to wait for."""

    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        """Later, at once."""
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def waiting(self) -> Waiting:
        """As a client takes it: no chance in it, and time passes in pauses alone."""
        return Waiting(sleep=self.sleep, clock=lambda: sum(self.slept), chance=lambda: 0.0)


@dataclass(slots=True)
class Suite:
    """Both servers at one address, and the pauses of the clients of it."""

    address: str
    sender: Sender
    inbox: Inbox
    pauses: Pauses

    def client(
        self,
        token: Token | None = SOMEBODY,
        *,
        deadline_s: float = 10.0,
        wait_s: float = 0.0,
        retries: Retries = Retries.PATIENT,
        waiting: Waiting | None = None,
    ) -> BroadcastClient:
        """A client of it, with these options."""
        return BroadcastClient(
            Addresses(sender=self.address, inbox=self.address),
            token=token,
            security=insecure(),
            deadline_s=deadline_s,
            wait_s=wait_s,
            retries=retries,
            waiting=waiting or self.pauses.waiting(),
        )


@asynccontextmanager
async def started() -> AsyncIterator[Suite]:
    """A suite of both."""
    server, sender, inbox = grpc.aio.server(), Sender(), Inbox()
    add_SenderServiceServicer_to_server(sender, server)
    add_InboxServiceServicer_to_server(inbox, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Suite(f"127.0.0.1:{port}", sender, inbox, Pauses())
    finally:
        await server.stop(None)
