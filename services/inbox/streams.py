"""Owns the streams of single people: everything that happens in one inbox, from a snapshot or a cursor on."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from typing_extensions import override

from services.inbox.changes import Event
from services.inbox.fanout import Fanout, Subscription
from services.inbox.outlets import Outlet
from services.inbox.syncing import Start, Syncing
from shared.errors import ServiceError

_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StreamTerms:
    """How often a quiet stream says that it lives, and how long one that was cut off has to read that it was."""

    heartbeat_s: float = 15.0
    unread_end_s: float = 30.0


class OwnStream(Outlet):
    """A stream with one person on it, made by the task that writes to it."""

    def __init__(self, terms: StreamTerms) -> None:
        super().__init__(_LIMIT_BYTES)
        self._terms = terms
        self._writer = asyncio.current_task()
        self._cut: asyncio.TimerHandle | None = None

    def send(self, subscriptions: list[Subscription], event: Event) -> None:
        """Write an event; there is only one whom it can be for."""
        self.put(event.alone, event.cursor)

    def fail(self, subscription: Subscription, error: ServiceError) -> None:
        """End with the only one on it."""
        self.end(error)

    @override
    def end(self, error: ServiceError) -> None:
        super().end(error)
        if self._writer is not None and self._cut is None:
            # Whoever does not read will not read the status either.
            self._cut = asyncio.get_running_loop().call_later(self._terms.unread_end_s, self._writer.cancel)

    def close(self) -> None:
        """The task that writes to it has come to its end."""
        if self._cut is not None:
            self._cut.cancel()


class InboxStreams:
    """Opens streams of single people."""

    def __init__(self, syncing: Syncing, fanout: Fanout, log_identity: UUID, terms: StreamTerms) -> None:
        self._syncing = syncing
        self._fanout = fanout
        self._log_identity = log_identity
        self._terms = terms

    async def watch(self, recipient_number: int, cursor: str) -> AsyncGenerator[bytes, None]:
        """Serialised events, without end: what follows a cursor, or a snapshot first. Raises InvalidCursor."""
        start = Start.of(cursor, self._log_identity)
        stream = OwnStream(self._terms)
        subscription = Subscription(recipient_number, stream)
        with self._fanout.carrying(stream, is_shared=False):
            self._fanout.open(subscription)
            self._syncing.begin(subscription, start)
            try:
                while True:
                    payload = await stream.take(self._terms.heartbeat_s)
                    if payload is not None:
                        yield payload
                    elif subscription.is_live:
                        yield self._syncing.heartbeat().alone
            finally:
                stream.close()
                self._syncing.end(subscription)
