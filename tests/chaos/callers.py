"""Owns calling the suite as a good client does: with deadlines, again on an outage, over several connections."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar
from uuid import UUID

import grpc
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from stack.tokens import TokenMint
from stack.world import demo_id
from tests.chaos.terms import SENDING_ACCOUNT

Metadata = tuple[tuple[str, str], ...]
Answer = TypeVar("Answer")

_CONNECTIONS: Final = 3
RETRIED: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""The codes at which a client asks again: an outage, a call that a dying server had in hand, and too much to do."""
_PAUSE_FIRST_S: Final = 0.1
_PAUSE_CEILING_S: Final = 1.0
# Several connections to one address are one to gRPC unless each channel keeps its own.
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 << 20),
)


class Callers:
    """Stubs of every service, and the tokens of whoever calls."""

    def __init__(self, addresses: dict[str, str], mint: TokenMint, random: Random) -> None:
        self._mint = mint
        self._random = random
        self._tokens: dict[UUID, Metadata] = {}
        self._channels: list[grpc.aio.Channel] = []
        self.codes: Counter[str] = Counter()
        """How often each kind of call ended with which status: `SendBroadcast UNAVAILABLE`."""
        senders = [SenderServiceStub(each) for each in self._open(addresses["SENDER_ADDR"])]
        inboxes = [InboxServiceStub(each) for each in self._open(addresses["INBOX_ADDR"])]
        preferences = self._open(addresses["PREFERENCES_ADDR"])[0]
        dispatcher = self._open(addresses["DISPATCHER_ADDR"])[0]
        self._senders, self._inboxes = senders, inboxes
        self.preferences = PreferencesServiceStub(preferences)
        self.directory = DirectoryServiceStub(preferences)
        self.dispatcher = DispatcherServiceStub(dispatcher)

    @property
    def sender(self) -> SenderServiceStub:
        """The sender, over one of its connections."""
        return self._random.choice(self._senders)

    @property
    def inbox(self) -> InboxServiceStub:
        """The inbox, over one of its connections."""
        return self._random.choice(self._inboxes)

    @property
    def admin(self) -> Metadata:
        """The admin's metadata."""
        return self.person(demo_id("admin"))

    @property
    def approver(self) -> Metadata:
        """Another admin's metadata."""
        return self.person(demo_id("approver"))

    def token(self, user_id: UUID) -> str:
        """A person's bare token."""
        return self._mint.mint_user_token(user_id)

    def person(self, user_id: UUID) -> Metadata:
        """A person's metadata."""
        if user_id not in self._tokens:
            self._tokens[user_id] = _bearer(self.token(user_id))
        return self._tokens[user_id]

    def service(self, *scopes: str) -> Metadata:
        """The metadata of a service account."""
        return _bearer(self._mint.mint_service_token(SENDING_ACCOUNT, scopes))

    async def once(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """One try. Raises grpc.aio.AioRpcError."""
        try:
            answer = await call()
        except grpc.aio.AioRpcError as error:
            self.codes[f"{what} {error.code().name}"] += 1
            raise
        self.codes[f"{what} OK"] += 1
        return answer

    async def until_answered(self, what: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer, however often it takes. Raises grpc.aio.AioRpcError for a refusal."""
        pause_s = _PAUSE_FIRST_S
        while True:
            try:
                return await self.once(what, call)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.0))
            pause_s = min(_PAUSE_CEILING_S, pause_s * 2)

    async def close(self) -> None:
        """Let go of every connection."""
        for channel in self._channels:
            await channel.close()

    def _open(self, address: str) -> list[grpc.aio.Channel]:
        opened = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(_CONNECTIONS)]
        self._channels += opened
        return opened


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)
