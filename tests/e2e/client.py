"""Calls a running suite through gRPC alone, as any person of the demo, any service account, or nobody."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import cycle
from time import monotonic
from typing import Self, TypeVar
from uuid import UUID, uuid4

import grpc
import pytest
from google.rpc.status_pb2 import Status
from wedsync.broadcast.client import Addresses, BroadcastClient, Token, insecure
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Targeting
from wedsync.broadcast.v1.directory_pb2 import Recipient, UpsertRecipientsRequest, UserType
from wedsync.broadcast.v1.inbox_pb2 import (
    GetInboxItemRequest,
    InboxEvent,
    InboxItem,
    ListInboxItemsRequest,
    WatchInboxRequest,
    WatchInboxResponse,
)
from wedsync.broadcast.v1.sender_pb2 import GetBroadcastRequest, GetBroadcastResponse, SendBroadcastRequest

from shared.errors import ServiceError, from_rich_status
from stack.background import BackgroundStack
from stack.tokens import TokenMint
from stack.world import demo_id

T = TypeVar("T")
DEADLINE_S = 20.0
CALL_S = 10.0
Metadata = tuple[tuple[str, str], ...]


class Client:
    """Stubs of every service, and who to call them as."""

    def __init__(self, stack: BackgroundStack) -> None:
        self.stack = stack
        self._mint = TokenMint.existing(stack.state.keys)
        self._admins = cycle(["admin"])
        self._nobody = self.of(None)
        self.sender = self._nobody.sender
        self.inbox = self._nobody.inboxes
        self.preferences = self._nobody.preferences
        self.directory = self._nobody.directory
        self.audience = AudienceServiceStub(self._nobody.channel("preferences"))
        self.dispatcher = self._nobody.dispatcher

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._nobody.close()

    def of(self, token: Token | None, *, deadline_s: float = CALL_S, wait_s: float = 0.0) -> BroadcastClient:
        """The client that callers of the suite have, for whose token it is; to be entered, or closed."""
        addresses = Addresses.from_environment(self.stack.environment)
        return BroadcastClient(
            addresses, token=token, security=insecure(), deadline_s=deadline_s, wait_s=wait_s
        )

    def person(self, who: str | UUID) -> Metadata:
        """The metadata of a person: a name of the demo, or a user id."""
        user_id = who if isinstance(who, UUID) else demo_id(who)
        return bearer(self._mint.mint_user_token(user_id))

    def token(self, who: str | UUID, lifetime_s: int = 600) -> str:
        """A person's bare token."""
        return self._mint.mint_user_token(who if isinstance(who, UUID) else demo_id(who), lifetime_s)

    def service(self, *scopes: str, name: str = "billing") -> Metadata:
        """The metadata of a service account."""
        return bearer(self._mint.mint_service_token(name, scopes))

    def account(self, name: str, *scopes: str) -> str:
        """The bare token of a service account, which sends if no scope is named."""
        return self._mint.mint_service_token(name, scopes or ("broadcast.send",))

    async def add_admins(self, count: int) -> None:
        """So many more of them, who take turns at what "admin" sends: one alone would soon have sent their share."""
        names = [f"admin-{number}" for number in range(count)]
        await self._add_staff("admin", names)
        self._admins = cycle(names)

    async def add_admin(self, name: str) -> None:
        """One who has sent nothing yet."""
        await self._add_staff("admin", [name])

    async def add_coordinator(self, name: str) -> None:
        """One who is on no team."""
        await self._add_staff("coordinator", [name])

    async def _add_staff(self, role: str, names: Iterable[str]) -> None:
        request = UpsertRecipientsRequest(
            recipients=[
                Recipient(
                    user_id=str(demo_id(name)),
                    display_name=name,
                    role=role,
                    user_type=UserType.USER_TYPE_STAFF,
                    tier="enterprise",
                    time_zone="Europe/Stockholm",
                )
                for name in names
            ]
        )
        writer = self.service("directory.write", "directory.admin")
        await self.directory.UpsertRecipients(request, metadata=writer, timeout=CALL_S)

    async def send(self, who: str | Metadata, **fields: object) -> str:
        """Sends as somebody, "admin" being any of those; answers the broadcast's id."""
        name = next(self._admins) if who == "admin" else who
        metadata = self.person(name) if isinstance(name, str) else name
        answer = await self.sender.SendBroadcast(broadcast(**fields), metadata=metadata, timeout=CALL_S)
        return answer.broadcast.broadcast_id

    async def show(self, broadcast_id: str, who: str = "admin") -> GetBroadcastResponse:
        """A broadcast with its stats."""
        request = GetBroadcastRequest(broadcast_id=broadcast_id)
        return await self.sender.GetBroadcast(request, metadata=self.person(who), timeout=CALL_S)

    async def sent(self, broadcast_id: str) -> GetBroadcastResponse:
        """The broadcast once its state is sent."""

        async def is_sent() -> GetBroadcastResponse | None:
            shown = await self.show(broadcast_id)
            return shown if shown.broadcast.state == BroadcastState.BROADCAST_STATE_SENT else None

        return await eventually(is_sent, f"{broadcast_id} to be sent")

    async def items(self, who: str | UUID) -> list[InboxItem]:
        """All items of a person, page by page."""
        items: list[InboxItem] = []
        token = ""
        while True:
            request = ListInboxItemsRequest(page_size=100, page_token=token, include_dismissed=True)
            page = await self.inbox.ListInboxItems(request, metadata=self.person(who), timeout=CALL_S)
            items += page.items
            token = page.next_page_token
            if not token:
                return items

    async def has(self, who: str | UUID, broadcast_id: str) -> bool:
        """Whether a broadcast is in somebody's inbox."""
        try:
            await self.inbox.GetInboxItem(
                GetInboxItemRequest(broadcast_id=broadcast_id), metadata=self.person(who), timeout=CALL_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
        return True

    @asynccontextmanager
    async def watching(self, who: str | UUID, cursor: str = "") -> AsyncIterator["Watching"]:
        """Somebody's open stream, from its first event on."""
        call = self.inbox.WatchInbox(WatchInboxRequest(cursor=cursor), metadata=self.person(who))
        watching = Watching()
        task = asyncio.create_task(watching.follow(call))
        try:
            if not cursor:
                await watching.until(lambda event: event.HasField("snapshot"), "a snapshot")
            yield watching
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Watching:
    """What one stream has shown."""

    def __init__(self) -> None:
        self.events: list[InboxEvent] = []
        self.ended: grpc.aio.AioRpcError | None = None

    async def follow(self, call: "grpc.aio.UnaryStreamCall[WatchInboxRequest, WatchInboxResponse]") -> None:
        """Keeps every event until the stream ends."""
        try:
            async for answer in call:
                self.events.append(answer.event)
        except grpc.aio.AioRpcError as error:
            self.ended = error

    def added(self) -> list[str]:
        """The ids of the items that were added, in order."""
        return [event.added.item.broadcast_id for event in self.events if event.HasField("added")]

    async def until(self, wanted: Callable[[InboxEvent], bool], what: str) -> InboxEvent:
        """The first event that is wanted, seen already or to come."""

        async def find() -> InboxEvent | None:
            if self.ended is not None:
                raise self.ended
            return next((event for event in self.events if wanted(event)), None)

        return await eventually(find, what)


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def broadcast(**fields: object) -> SendBroadcastRequest:
    """A broadcast that is fine, to everyone, with these fields changed; None leaves one out."""
    defaults: dict[str, object] = {
        "request_id": str(uuid4()),
        "type": "feature.released",
        "title": "Seating plans are here",
        "message": "Drag guests to tables.",
    }
    if not {"targeting", "wedding_id"} & fields.keys():
        defaults["targeting"] = Targeting(everyone=True)
    chosen = {name: value for name, value in {**defaults, **fields}.items() if value is not None}
    return SendBroadcastRequest(**chosen)  # type: ignore[arg-type]


async def eventually(find: Callable[[], Awaitable[T | None]], what: str, deadline_s: float = DEADLINE_S) -> T:
    """What `find` answers once it answers anything but None or False."""
    deadline = monotonic() + deadline_s
    while True:
        found = await find()
        if found is not None and found is not False:
            return found
        if monotonic() > deadline:
            raise AssertionError(f"waited {deadline_s:g} s for {what}")
        await asyncio.sleep(0.02)


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, ServiceError]:
    """The status and the details of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    trailers = dict(refused.value.trailing_metadata() or ())
    details = from_rich_status(Status.FromString(bytes(trailers["grpc-status-details-bin"])))
    assert details is not None, f"no ErrorInfo of ours in {refused.value}"
    return refused.value.code(), details


async def refused_send(
    client: Client, request: SendBroadcastRequest, who: str = "admin"
) -> tuple[grpc.StatusCode, ServiceError]:
    """The refusal of a send that must be refused."""
    return await refusal(client.sender.SendBroadcast(request, metadata=client.person(who), timeout=CALL_S))


def fields_of(details: ServiceError) -> list[str]:
    """The broken fields that a refusal names."""
    return [violation.field for violation in details.violations]
