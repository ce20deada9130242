"""Owns the streams that many people share: whoever holds their sockets adds each by their own token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from wedsync.broadcast.v1 import inbox_pb2

from services.inbox.changes import Event
from services.inbox.fanout import Fanout, Subscription
from services.inbox.identities import Identities
from services.inbox.outlets import Outlet
from services.inbox.streams import StreamTerms
from services.inbox.syncing import Start, Syncing
from shared.auth import LEEWAY_S, Identity, TokenVerifier
from shared.clock import Clock
from shared.errors import (
    FieldViolation,
    Internal,
    InvalidCursor,
    InvalidField,
    PermissionDenied,
    ServiceError,
    TokenExpired,
    TooManyStreams,
)
from shared.translations import to_service_error

log = structlog.get_logger(__name__)

_LIMIT_BYTES: Final = 64 << 20
_MOST_PEOPLE: Final = 50_000
_ADMITTED_AT_ONCE: Final = 32


@dataclass(slots=True)
class _Person:
    """Somebody on the stream, or about to be: until `subscription` is there, `admission` is under way."""

    admission: asyncio.Task[None] | None = None
    subscription: Subscription | None = None
    expiry: asyncio.TimerHandle | None = None
    cursor: str = ""
    """Where they were when they came, from which they can go on if they do not get in."""


class Connections:
    """Opens streams of many people."""

    def __init__(
        self,
        syncing: Syncing,
        fanout: Fanout,
        identities: Identities,
        verifier: TokenVerifier,
        log_identity: UUID,
        terms: StreamTerms,
        clock: Clock,
    ) -> None:
        self.syncing = syncing
        self.fanout = fanout
        self.log_identity = log_identity
        self.terms = terms
        self._identities = identities
        self._verifier = verifier
        self._clock = clock

    async def connect(
        self, requests: AsyncIterator[inbox_pb2.ConnectInboxesRequest]
    ) -> AsyncGenerator[bytes, None]:
        """Serialised responses, without end."""
        stream = SharedStream(self)
        with self.fanout.carrying(stream, is_shared=True):
            reading = asyncio.create_task(stream.read(requests), name="inbox_connection")
            try:
                while True:
                    yield await stream.next_payload()
            finally:
                reading.cancel()
                stream.close()

    async def admit(self, user_token: str) -> tuple[int, float]:
        """Whose inbox a person's token opens, and for how many seconds. Raises what the token's own call would."""
        identity = await self._verifier.verify(user_token)
        if identity.user_id is None:
            raise PermissionDenied
        return await self._identities.number_of(identity.user_id), self._remaining_s(identity)

    def _remaining_s(self, identity: Identity) -> float:
        return (identity.expires_at - self._clock.now()).total_seconds() + LEEWAY_S


class SharedStream(Outlet):
    """A stream that carries many people's inboxes. Each is a handle, which ends on its own."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(_LIMIT_BYTES)
        self._connections = connections
        self._people: dict[int, _Person] = {}
        self._admitting = asyncio.Semaphore(_ADMITTED_AT_ONCE)
        self._heartbeat_at = asyncio.get_running_loop().time() + connections.terms.heartbeat_s

    async def read(self, requests: AsyncIterator[inbox_pb2.ConnectInboxesRequest]) -> None:
        """Add and remove people, not faster than the answers are read; a request that is wrong ends the stream."""
        try:
            async for request in requests:
                await self.room()
                if request.HasField("subscribe"):
                    self._add(request.subscribe)
                else:
                    self._remove(request.unsubscribe.handle)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this stream's end and no other's
            self.end(_service_error(error))

    def send(self, subscriptions: list[Subscription], event: Event) -> None:
        """Write an event once for all of these."""
        self.put(_handles([each.handle for each in subscriptions]) + event.shared)

    def fail(self, subscription: Subscription, error: ServiceError) -> None:
        """End one person's part."""
        self._finish(subscription.handle, error.reason_name)

    async def next_payload(self) -> bytes:
        """What to write next; by the clock that is a sign of life, which takes everybody's cursor along who is live.

        Somebody on it always hears something, and most of them nothing for hours: the log may not go back so far.
        """
        now, payload = asyncio.get_running_loop().time, None
        while payload is None:
            payload = await self.take(self._heartbeat_at - now())
            if now() >= self._heartbeat_at:
                self.put(self._heartbeat())
                self._heartbeat_at = now() + self._connections.terms.heartbeat_s
        return payload

    def _heartbeat(self) -> bytes:
        live = self._connections.fanout.live_on(self)
        return _handles([each.handle for each in live]) + self._connections.syncing.heartbeat().shared

    def close(self) -> None:
        """Let everybody go."""
        for person in self._people.values():
            self._release(person)
        self._people.clear()

    def _add(self, request: inbox_pb2.InboxSubscribe) -> None:
        if request.handle in self._people:
            raise InvalidField(violations=[FieldViolation("subscribe.handle", "must not be in use")])
        person = self._people[request.handle] = _Person(cursor=request.cursor)
        person.admission = asyncio.create_task(self._admit(person, request))

    def _remove(self, handle: int) -> None:
        if handle in self._people:
            self._finish(handle, "")

    async def _admit(self, person: _Person, request: inbox_pb2.InboxSubscribe) -> None:
        handle = request.handle
        try:
            async with self._admitting:
                await self._subscribe(person, request)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is this person's end and nobody else's
            self._finish(handle, _service_error(error).reason_name)

    async def _subscribe(self, person: _Person, request: inbox_pb2.InboxSubscribe) -> None:
        if len(self._people) > _MOST_PEOPLE:
            raise TooManyStreams
        connections = self._connections
        number, remaining_s = await connections.admit(request.user_token)
        start = Start.of(request.cursor, connections.log_identity, skip_snapshot=request.skip_snapshot)
        subscription = Subscription(number, self, request.handle)
        connections.fanout.open(subscription)
        person.subscription = subscription
        loop = asyncio.get_running_loop()
        person.expiry = loop.call_later(remaining_s, self._finish, request.handle, TokenExpired().reason_name)
        connections.syncing.begin(subscription, start)
        subscribed = inbox_pb2.InboxSubscribed(cursor=connections.syncing.cursor(subscription))
        self._tell(inbox_pb2.ConnectInboxesResponse(handles=[request.handle], subscribed=subscribed))

    def _finish(self, handle: int, reason: str) -> None:
        """End one person's part, and say why and where it can go on."""
        person = self._people.pop(handle)
        subscription = person.subscription
        came_with = "" if reason == InvalidCursor().reason_name else person.cursor
        cursor = self._connections.syncing.cursor(subscription) if subscription is not None else came_with
        self._release(person)
        ended = inbox_pb2.InboxEnded(reason=reason, cursor=cursor)
        self._tell(inbox_pb2.ConnectInboxesResponse(handles=[handle], ended=ended))

    def _release(self, person: _Person) -> None:
        if person.expiry is not None:
            person.expiry.cancel()
        if person.subscription is not None:
            self._connections.syncing.end(person.subscription)
        elif person.admission is not None and person.admission is not asyncio.current_task():
            person.admission.cancel()

    def _tell(self, response: inbox_pb2.ConnectInboxesResponse) -> None:
        self.put(response.SerializeToString())


def _handles(handles: list[int]) -> bytes:
    """The first part of a response: whatever is appended is for these."""
    return inbox_pb2.ConnectInboxesResponse(handles=handles).SerializeToString()


def _service_error(error: Exception) -> ServiceError:
    told = to_service_error(error)
    if told is None:
        log.error("inbox_connection_failed", exc_info=error)
        return Internal()
    return told
