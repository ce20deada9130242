"""Owns asking JetStream for messages: a pull request is kept with the server at all times, so that they come at once.

nats-py's `fetch` waits for a whole batch once its first message has come. Here each message is handed on the moment it
is there. Requests carry a number, so that the answer to one that was given up is not taken for the present one's.
"""

import asyncio
import json
import time
from contextlib import suppress
from typing import Final

import structlog
from nats.js.api import Header

from shared import subjects
from shared.backoff import backoff_s
from shared.errors import DependencyUnavailable
from shared.messaging import Messaging
from shared.streams import Consumer
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_EXPIRES_S: Final = 30.0
_HEARTBEAT_S: Final = 5.0
_SILENCE_S: Final = 2.5 * _HEARTBEAT_S
_ASK_FIRST_S: Final = 0.1
_ASK_CEILING_S: Final = 2.0
_NANOSECONDS: Final = 1_000_000_000

_HEARTBEAT_STATUS: Final = "100"
_EXPIRED_STATUS: Final = "408"
_BATCH_COMPLETED: Final = "Batch Completed"
_UNDELIVERED: Final = "Nats-Pending-Messages"


class PullRequests:
    """What this worker has asked the server for and not got yet."""

    def __init__(self, messaging: Messaging, consumer: Consumer) -> None:
        self._messaging = messaging
        self._name = consumer.name
        self._subject = subjects.next_request(consumer.stream, consumer.name)
        self._inbox = messaging.new_inbox()
        self._number = 0
        self._outstanding = 0
        self._last_heard = 0.0
        self._failures = 0
        self._not_before = 0.0
        self._wake = asyncio.Event()

    @property
    def replies(self) -> str:
        """The subject on which messages and the server's word on requests come."""
        return f"{self._inbox}.*"

    @property
    def trouble(self) -> bool:
        """Whether the last that was heard of the consumer is that it cannot serve."""
        return self._failures > 0

    def wake(self) -> None:
        """There may be room for more."""
        self._wake.set()

    def forget(self) -> None:
        """The server knows nothing of what was asked before; ask again."""
        self._number += 1
        self._outstanding = 0
        self._not_before = 0.0
        self.wake()

    async def ask(self, capacity: int, held: int) -> None:
        """Ask for as many as there is room for, then return when that may have changed."""
        self._wake.clear()
        now = time.monotonic()
        if self._outstanding and now - self._last_heard > _SILENCE_S:
            self._fail("silence")
        pause_s = self._not_before - now
        if pause_s <= 0:
            pause_s = _HEARTBEAT_S
            missing = capacity - held - self._outstanding
            # Half the capacity at a time, so that a busy worker does not ask for each message on its own.
            if missing > 0 and (not self._outstanding or missing * 2 >= capacity):
                await self._request(missing, now)
        await wait_for_hint(self._wake, pause_s)

    def note_message(self) -> None:
        """One of those asked for has come."""
        self._outstanding = max(0, self._outstanding - 1)
        self._note_service()

    def note_status(self, subject: str, headers: dict[str, str]) -> None:
        """The server's word on a request: that it is still there, that it has ended, or that it cannot be served."""
        if subject != self._reply:
            return
        status, description = headers[Header.STATUS], headers.get(Header.DESCRIPTION, "")
        if status == _HEARTBEAT_STATUS:
            self._note_service()
        elif status == _EXPIRED_STATUS or description == _BATCH_COMPLETED:
            self._outstanding = max(0, self._outstanding - int(headers.get(_UNDELIVERED, self._outstanding)))
            self._note_service()
            self.wake()
        else:
            self._fail(f"{status} {description}".strip())

    @property
    def _reply(self) -> str:
        return f"{self._inbox}.{self._number}"

    async def _request(self, count: int, now: float) -> None:
        request = {
            "batch": count,
            "expires": int(_EXPIRES_S * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT_S * _NANOSECONDS),
        }
        with suppress(DependencyUnavailable):  # once connected again, `forget` wakes us
            await self._messaging.send(self._subject, json.dumps(request).encode(), reply=self._reply)
            if not self._outstanding:
                self._last_heard = now
            self._outstanding += count

    def _note_service(self) -> None:
        self._last_heard = time.monotonic()
        if self._failures:
            log.info("consumer_restored", consumer=self._name, failures=self._failures)
            self._failures = 0

    def _fail(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            log.warning("consumer_lost", consumer=self._name, reason=reason)
        self.forget()
        self._not_before = time.monotonic() + backoff_s(self._failures, _ASK_FIRST_S, _ASK_CEILING_S)
