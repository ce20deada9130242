"""A server behind the edge, on a real port, whose servicer does what a test tells it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import (
    InboxServiceServicer,
    InboxServiceStub,
    add_InboxServiceServicer_to_server,
)

from shared.auth import AuthSettings, TokenVerifier
from shared.calls import CallLimits
from shared.health import Dependency, HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.methods import Replay
from shared.rights import Right, any_person, roles, scopes
from shared.server import GrpcServer, ServerSettings
from shared.settings import Address
from shared.tls import Transport
from shared.wall_refusals import WallRefusals
from stack.tokens import AUDIENCE, ISSUER, TokenMint

INBOX = "wedsync.broadcast.v1.InboxService"
_PERSONS_OWN = (
    "ListInboxItems",
    "GetInboxItem",
    "GetUnreadCount",
    "RecordReceipts",
    "MarkAllRead",
    "WatchInbox",
)
RIGHTS: Mapping[str, Right] = {
    **{name: any_person() for name in (*_PERSONS_OWN, "PinItem")},
    "ListReceipts": roles("admin", "coordinator") | scopes("broadcast.read"),
    "ConnectInboxes": scopes("inbox.connect"),
    **{
        name: scopes("internal")
        for name in (
            "GetEngagement",
            "ListReaders",
            "RetractBroadcast",
            "ApplyTeamChange",
            "ListShownBroadcasts",
            "EraseInbox",
            "RefreshContents",
            "ExportInbox",
            "CleanUpInboxes",
        )
    },
}
"""SnoozeItem is left out: a method without a right."""

REPLAYS: Mapping[str, Replay | None] = {"RecordReceipts": None}
"""Nothing is remembered, unless a test says so."""

ASK = inbox_pb2.GetUnreadCountRequest()
BAD_RECEIPTS = inbox_pb2.RecordReceiptsRequest(
    request_id="x", broadcast_ids=["nobody", str(uuid4()), "no one"]
)
Counted = inbox_pb2.GetUnreadCountResponse
Count = Callable[[], Awaitable[Counted]]


async def count_three() -> Counted:
    """The answer that a test which is not about answers gets."""
    return Counted(unread_count=3)


class ObedientInbox(InboxServiceServicer):
    """Answers GetUnreadCount with whatever `count` does, and the others simply."""

    def __init__(self) -> None:
        self.count: Count = count_three
        self.requests: list[Message] = []
        self.streams_ended = 0
        self.release = asyncio.Event()
        self.failure: Exception | None = None

    async def GetUnreadCount(self, request: inbox_pb2.GetUnreadCountRequest, context: object) -> Counted:
        return await self.count()

    async def ListInboxItems(
        self, request: inbox_pb2.ListInboxItemsRequest, context: object
    ) -> inbox_pb2.ListInboxItemsResponse:
        self.requests.append(request)
        return inbox_pb2.ListInboxItemsResponse()

    async def RecordReceipts(
        self, request: inbox_pb2.RecordReceiptsRequest, context: object
    ) -> inbox_pb2.RecordReceiptsResponse:
        self.requests.append(request)
        return inbox_pb2.RecordReceiptsResponse(unread_count=1)

    async def ListReceipts(
        self, request: inbox_pb2.ListReceiptsRequest, context: object
    ) -> inbox_pb2.ListReceiptsResponse:
        return inbox_pb2.ListReceiptsResponse()

    async def WatchInbox(
        self, request: inbox_pb2.WatchInboxRequest, context: object
    ) -> AsyncIterator[inbox_pb2.WatchInboxResponse]:
        """One event, the first time serialised already, and another, or the failure, once released."""
        try:
            event = inbox_pb2.WatchInboxResponse()
            event.event.cursor = "first"
            yield event.SerializeToString()  # type: ignore[misc]  # the edge sends bytes as they are
            await self.release.wait()
            if self.failure is not None:
                raise self.failure
            event.event.cursor = "second"
            yield event
        finally:
            self.streams_ended += 1

    async def ConnectInboxes(
        self, request: AsyncIterator[inbox_pb2.ConnectInboxesRequest], context: object
    ) -> AsyncIterator[inbox_pb2.ConnectInboxesResponse]:
        """Confirms every subscription."""
        async for change in request:
            self.requests.append(change)
            yield inbox_pb2.ConnectInboxesResponse(handles=[change.subscribe.handle])


@dataclass(slots=True)
class Directory:
    """Roles as the directory would give them; `failure` is raised instead when set."""

    roles: dict[UUID, str] = field(default_factory=dict)
    failure: Exception | None = None

    async def role_of(self, user_id: UUID) -> str | None:
        if self.failure is not None:
            raise self.failure
        return self.roles.get(user_id)


@dataclass(slots=True)
class Edge:
    """A running server, and what is needed to call it."""

    inbox: ObedientInbox
    directory: Directory
    mint: TokenMint
    server: GrpcServer
    health: HealthMonitor
    interceptor: EdgeInterceptor
    channel: grpc.aio.Channel
    address: Address

    @property
    def stub(self) -> InboxServiceStub:
        return InboxServiceStub(self.channel)

    def as_person(self, user_id: UUID | None = None) -> tuple[tuple[str, str], ...]:
        """Metadata of a call by a person."""
        return bearer(self.mint.mint_user_token(user_id or uuid4()))

    def as_service(self, *scope: str) -> tuple[tuple[str, str], ...]:
        """Metadata of a call by a service."""
        return bearer(self.mint.mint_service_token("bff", scope))

    async def raw(self, method: str, content: bytes, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
        """Calls a method with bytes that need not be a message."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(f"/{INBOX}/{method}")
        return await call(content, metadata=metadata)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    rights: Mapping[str, Right] = RIGHTS,
    limits: CallLimits | None = None,
    dependencies: tuple[Dependency, ...] = (),
    replays: Mapping[str, Replay | None] = REPLAYS,
    refusals: WallRefusals | None = None,
    transport: Transport | None = None,
    with_directory: bool = True,
) -> AsyncIterator[Edge]:
    """Runs a server on a free port of this machine for the time of the block."""
    mint = TokenMint(folder)
    directory, inbox = Directory(), ObedientInbox()
    verifier = await TokenVerifier.open(AuthSettings(str(mint.jwks), ISSUER, AUDIENCE))
    interceptor = EdgeInterceptor(
        verifier, role_of=directory.role_of if with_directory else None, limits=limits, refusals=refusals
    )
    health = HealthMonitor(dependencies, every_s=0.02, timeout_s=0.5)
    settings = ServerSettings(
        "INBOX", Address("127.0.0.1", 0), None, transport or Transport(), pause_s=0, finish_s=1.0
    )
    server = GrpcServer(settings, interceptor, health)
    server.add(add_InboxServiceServicer_to_server, inbox, rights, replays)
    address = await server.start()
    async with grpc.aio.insecure_channel(str(address)) as channel:
        yield Edge(inbox, directory, mint, server, health, interceptor, channel, address)
    await server.leave().run()
    await server.finish_calls().run()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status with its details, as a client reads it."""

    code: grpc.StatusCode
    message: str
    reason: str
    fields: tuple[str, ...]
    retry_after_s: float | None
    metadata: Mapping[str, str]


async def refusal_of(call: Awaitable[object]) -> Refusal:
    """The refusal of a call; AssertionError when it was answered."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError(f"answered with {answer!r}")


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Reads every detail of a status."""
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(bytes(metadata.get("grpc-status-details-bin", b"")))
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    retry_after_s = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        elif not detail.Unpack(bad):
            detail.Unpack(info)
    return Refusal(
        error.code(),
        error.details() or "",
        info.reason,
        tuple(each.field for each in bad.field_violations),
        retry_after_s,
        dict(info.metadata),
    )
