"""The client itself: stubs of every service, and the calls that internal services make most."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self, TypeVar
from uuid import uuid4

import grpc
from wedsync.broadcast.client.addresses import Addresses, Server
from wedsync.broadcast.client.calls import Terms
from wedsync.broadcast.client.connections import Connections
from wedsync.broadcast.client.errors import ConfigurationError
from wedsync.broadcast.client.inbox import Inbox
from wedsync.broadcast.client.moments import timestamp
from wedsync.broadcast.client.resuming import OnInterruption, Resumption, resumed
from wedsync.broadcast.client.retries import Retries
from wedsync.broadcast.client.security import Security, security_of, tls
from wedsync.broadcast.client.tokens import Metadata, Token, Tokens, tokens_of
from wedsync.broadcast.client.waiting import Waiting
from wedsync.broadcast.v1.common_pb2 import Action, BroadcastState, Priority, Targeting
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceStub
from wedsync.broadcast.v1.sender_pb2 import (
    Broadcast,
    CancelBroadcastRequest,
    CancelBroadcastResponse,
    GetBroadcastRequest,
    GetBroadcastResponse,
    GetQuotaRequest,
    PreviewAudienceRequest,
    PreviewAudienceResponse,
    Quota,
    SendBroadcastRequest,
    WatchBroadcastRequest,
    WatchBroadcastResponse,
)
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

Answer = TypeVar("Answer")

_DEADLINE_S: Final = 10.0
_CHOSEN_BY_TYPE: Final = Priority.PRIORITY_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class SendResult:
    """What was accepted: it can no longer be lost.

    `targeted_users` is how many people are meant, an estimate when it is for later; `quota` is what the sender has
    left. The same call with `request_id` gives the same result for 24 hours, and sends nothing again.
    """

    request_id: str
    broadcast: Broadcast
    targeted_users: int
    unknown_user_ids: int
    quota: Quota

    @property
    def broadcast_id(self) -> str:
        """The broadcast's id; empty when it was only validated."""
        return self.broadcast.broadcast_id

    @property
    def awaits_approval(self) -> bool:
        """Whether it goes nowhere until an admin who has not sent it approves it."""
        return self.broadcast.state == BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL


class BroadcastClient:
    """Calls a suite. Enter it, or close it: `async with BroadcastClient(...) as client`.

    Whatever a call raises is a BroadcastError, or a ConfigurationError when it was never made. A call that meets an
    outage waits and is made again until its deadline; whatever changes something is given a request_id, so that this
    does it once.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        token: Token | None = None,
        security: Security | None = None,
        deadline_s: float = _DEADLINE_S,
        wait_s: float = 0.0,
        retries: Retries = Retries.PATIENT,
        waiting: Waiting | None = None,
    ) -> None:
        """Connects at the first call.

        `token` is whose calls they are; without one each call needs metadata of its own. `security` is TLS with the
        system's authorities when absent. A unary call ends after `deadline_s`, unless it says another timeout; getting
        its token and another try with another token are part of it. The calls of this class come again when a service
        says when, after up to `wait_s` seconds in all, each time with a deadline of its own; see `patiently`.
        `waiting` is for tests.
        """
        self._tokens = None if token is None else tokens_of(token)
        self._deadline_s = deadline_s
        self._wait_s = wait_s
        self._waiting = waiting or Waiting()
        terms = Terms(self._tokens, deadline_s)
        self._connections = Connections(
            addresses, tls() if security is None else security, retries, terms.interceptors()
        )

    @classmethod
    def from_environment(
        cls,
        variables: Mapping[str, str] = os.environ,
        *,
        security: Security | None = None,
        deadline_s: float = _DEADLINE_S,
        wait_s: float = 0.0,
    ) -> Self:
        """Reads SENDER_ADDR and its like, BROADCAST_TOKEN_FILE or BROADCAST_TOKEN, and the files of TLS.

        Those are TLS_CA_FILE, TLS_CERT_FILE and TLS_KEY_FILE; they are not looked at when `security` is given.
        """
        file, text = variables.get("BROADCAST_TOKEN_FILE"), variables.get("BROADCAST_TOKEN")
        return cls(
            Addresses.from_environment(variables),
            token=Path(file) if file else text or None,
            security=security or security_of(variables),
            deadline_s=deadline_s,
            wait_s=wait_s,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace_s: float | None = None) -> None:
        """Ends connections, and calls that still run after `grace_s` seconds.

        A watch ends with a ConfigurationError, any other call that still runs is cancelled. There are no calls after
        this: whatever is called raises ConfigurationError.
        """
        await self._connections.close(grace_s)

    def channel(self, server: Server) -> grpc.aio.Channel:
        """The channel to a server, for stubs that have no property here. Raises ConfigurationError."""
        return self._connections.channel(server)

    @property
    def sender(self) -> SenderServiceStub:
        """Every RPC of SenderService."""
        return SenderServiceStub(self.channel("sender"))

    @property
    def inboxes(self) -> InboxServiceStub:
        """Every RPC of InboxService; for those of one person see `inbox`."""
        return InboxServiceStub(self.channel("inbox"))

    @property
    def preferences(self) -> PreferencesServiceStub:
        """Every RPC of PreferencesService."""
        return PreferencesServiceStub(self.channel("preferences"))

    @property
    def directory(self) -> DirectoryServiceStub:
        """Every RPC of DirectoryService."""
        return DirectoryServiceStub(self.channel("preferences"))

    @property
    def dispatcher(self) -> DispatcherServiceStub:
        """Every RPC of DispatcherService."""
        return DispatcherServiceStub(self.channel("dispatcher"))

    def inbox(
        self, token: Token | None = None, *, deadline_s: float | None = None, wait_s: float | None = None
    ) -> Inbox:
        """The inbox of whose token this is, or the client's own is, called on these terms, or the client's."""
        tokens = self._own_tokens() if token is None else tokens_of(token)
        return Inbox(
            self.inboxes,
            tokens,
            self._waiting,
            deadline_s=self._deadline_s if deadline_s is None else deadline_s,
            wait_s=self._wait_s if wait_s is None else wait_s,
        )

    async def send(
        self,
        *,
        type: str,  # noqa: A002 # the field's name
        title: str,
        message: str,
        to: Targeting | None = None,
        wedding_id: str = "",
        priority: "Priority.ValueType" = _CHOSEN_BY_TYPE,
        action: Action | None = None,
        scheduled_for: datetime | None = None,
        expires_at: datetime | None = None,
        request_id: str = "",
        validate_only: bool = False,
        deadline_s: float | None = None,
        wait_s: float | None = None,
    ) -> SendResult:
        """Send a broadcast, now or `scheduled_for`; returns once it can no longer be lost.

        It goes to whom `to` names, and of them, with `wedding_id`, to that wedding's team. A `request_id` (a UUID) of
        one's own makes it one broadcast even if this process ends meanwhile and another asks again; without, one is
        made up, which covers all that this call does by itself. Raises InvalidRequest, PermissionDenied, NotFound,
        RateLimited.
        """
        request = SendBroadcastRequest(
            request_id=request_id or str(uuid4()),
            type=type,
            priority=priority,
            title=title,
            message=message,
            action=action,
            targeting=to,
            wedding_id=wedding_id,
            scheduled_for=timestamp("scheduled_for", scheduled_for),
            expires_at=timestamp("expires_at", expires_at),
            validate_only=validate_only,
        )
        call = self.sender.SendBroadcast
        answer = await self.patiently(lambda: call(request, timeout=deadline_s), wait_s)
        return SendResult(
            request_id=request.request_id,
            broadcast=answer.broadcast,
            targeted_users=answer.targeted_users,
            unknown_user_ids=answer.unknown_user_ids,
            quota=answer.quota,
        )

    async def get(self, broadcast_id: str, *, deadline_s: float | None = None) -> GetBroadcastResponse:
        """A broadcast, and what became of it. Raises NotFound."""
        request = GetBroadcastRequest(broadcast_id=broadcast_id)
        call = self.sender.GetBroadcast
        return await self.patiently(lambda: call(request, timeout=deadline_s))

    async def cancel(
        self, broadcast_id: str, *, reason: str = "", retract: bool = False, deadline_s: float | None = None
    ) -> CancelBroadcastResponse:
        """Stop what has not gone out; with `retract` also take it out of the inboxes that it has reached."""
        request = CancelBroadcastRequest(
            request_id=str(uuid4()), broadcast_id=broadcast_id, reason=reason, retract=retract
        )
        call = self.sender.CancelBroadcast
        return await self.patiently(lambda: call(request, timeout=deadline_s))

    async def preview(
        self,
        *,
        type: str,  # noqa: A002 # the field's name
        to: Targeting | None = None,
        wedding_id: str = "",
        priority: "Priority.ValueType" = _CHOSEN_BY_TYPE,
        expires_at: datetime | None = None,
        deadline_s: float | None = None,
    ) -> PreviewAudienceResponse:
        """Who would get such a broadcast now, on which channel, or why not: counts, and no names."""
        request = PreviewAudienceRequest(
            type=type,
            targeting=to,
            wedding_id=wedding_id,
            priority=priority,
            expires_at=timestamp("expires_at", expires_at),
        )
        call = self.sender.PreviewAudience
        return await self.patiently(lambda: call(request, timeout=deadline_s))

    async def quota(
        self,
        *,
        type: str,  # noqa: A002 # the field's name
        priority: "Priority.ValueType" = _CHOSEN_BY_TYPE,
        wedding_id: str = "",
        deadline_s: float | None = None,
    ) -> Quota:
        """How many such broadcasts the caller may still send."""
        request = GetQuotaRequest(type=type, priority=priority, wedding_id=wedding_id)
        call = self.sender.GetQuota
        return (await self.patiently(lambda: call(request, timeout=deadline_s))).quota

    async def watch(
        self,
        broadcast_id: str,
        *,
        patience_s: float | None = None,
        on_interruption: OnInterruption | None = None,
    ) -> AsyncGenerator[WatchBroadcastResponse, None]:
        """Its progress whenever something has changed, until nothing of it is pending or held any more.

        An outage is waited for, for as long as it takes, or `patience_s` seconds. Raises NotFound.
        """
        request, stub = WatchBroadcastRequest(broadcast_id=broadcast_id), self.sender

        def begin(
            metadata: Metadata,
        ) -> grpc.aio.UnaryStreamCall[WatchBroadcastRequest, WatchBroadcastResponse]:
            return stub.WatchBroadcast(request, metadata=metadata)

        resumption = Resumption(self._waiting, self._deadline_s, patience_s, on_interruption)
        told: WatchBroadcastResponse | None = None
        async for progress in resumed(begin, self._own_tokens(), resumption, may_end=True):
            # A stream begins with what the one before may have said already.
            if told is None or (told.state, told.stats) != (progress.state, progress.stats):
                yield progress
            told = progress

    async def patiently(self, call: Callable[[], Awaitable[Answer]], wait_s: float | None = None) -> Answer:
        """The answer to a call of any stub, made again whenever a service refuses it and says when to come again.

        It does when it has no room, when it lacks something that it needs, and when a limit is used up. What it lacks
        something for (UNAVAILABLE) gRPC has tried again by then, after pauses of its own (see Retries): what counts is
        when the last of those tries was told to come again. A request that changes something should have its
        request_id: each try would be given another. Raises the refusal once that would be more than `wait_s` seconds
        of waiting in all; None is what the client was told.
        """
        return await self._waiting.patiently(call, self._wait_s if wait_s is None else wait_s)

    def _own_tokens(self) -> Tokens:
        if self._tokens is None:
            raise ConfigurationError("This client has no token of its own, and this needs one.")
        return self._tokens
