"""Owns the receiving side of JetStream: hands each message to a handler and settles it by the outcome."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import Header
from prometheus_client import Histogram

from shared.backoff import backoff_s
from shared.errors import DependencyUnavailable
from shared.failpoints import declare, failpoint
from shared.logging import correlation_id
from shared.messaging import Messaging, Subscription
from shared.pull_requests import PullRequests
from shared.streams import Consumer

log = structlog.get_logger(__name__)

MESSAGE_SECONDS = Histogram(
    "wedsync_message_seconds",
    "Time from a message's arrival at the worker to its settling, by outcome.",
    ["consumer", "outcome"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

_RETRY_FIRST_S: Final = 0.5
_RETRY_CEILING_S: Final = 30.0
_ACK_TIMEOUT_S: Final = 2.0

_DONE: Final = "done"
_RETRIED: Final = "retried"
_BURIED: Final = "buried"
_GIVEN_UP: Final = "given_up"
_UNANSWERED: Final = "unanswered"
_LEVELS: Final = {
    _DONE: logging.INFO,
    _RETRIED: logging.WARNING,
    _BURIED: logging.ERROR,
    _GIVEN_UP: logging.ERROR,
    _UNANSWERED: logging.WARNING,
}


class Poison(Exception):
    """This message can never be handled; the reason is for an operator."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message, and what JetStream knows of it. `attempt` counts from 1; `lag` is how many wait behind it."""

    subject: str
    payload: bytes
    message_id: str
    attempt: int
    is_last: bool
    lag: int


Handle = Callable[[Delivery], Awaitable[None]]
Bury = Callable[[Delivery, str], Awaitable[None]]


class PullWorker:
    """Handles one consumer's messages, up to `concurrency` at a time. Any number may run, in any number of processes.

    The handler returns once its work is committed, and the message is acknowledged then. What raises is tried again
    later; but Poison, and any other defect on the last attempt, goes to `bury` with the reason. DependencyUnavailable
    is never buried: what is not done after the last attempt is re-driven by whoever owns it.
    """

    def __init__(
        self,
        messaging: Messaging,
        consumer: Consumer,
        handle: Handle,
        *,
        bury: Bury,
        concurrency: int = 1,
        batch: int | None = None,
        ack_sync: bool = False,
    ) -> None:
        """`batch` messages are held at most (by default as many as are handled at a time); with `ack_sync` the server
        must confirm each acknowledgement, which costs a round trip.
        """
        self._messaging = messaging
        self._consumer = consumer
        self._handle = handle
        self._bury = bury
        self._ack_sync = ack_sync
        self._capacity = max(concurrency, batch or concurrency)
        self._slots = asyncio.Semaphore(concurrency)
        self._requests = PullRequests(messaging, consumer)
        self._subscription: Subscription | None = None
        self._handling: set[asyncio.Task[None]] = set()
        self._stopping = False
        name = f"{consumer.name}.worker"
        self._before_handle, self._before_ack, self._after_ack = declare(
            f"{name}.before_handle", f"{name}.before_ack", f"{name}.after_ack"
        )

    async def run(self) -> None:
        """Receive until `stop`, through every outage of the server and loss of the stream."""
        self._subscription = await self._messaging.subscribe(self._requests.replies, self._receive)
        self._messaging.on_connected(self._requests.forget)
        while not self._stopping:
            await self._requests.ask(self._capacity, len(self._handling))

    async def stop(self) -> None:
        """Ask for no more, and return once all that has come is settled."""
        self._stopping = True
        self._requests.wake()
        if self._subscription is not None:
            await self._subscription.drain()
        while self._handling:
            await asyncio.wait(self._handling)

    async def check(self) -> None:
        """Return when messages can come; DependencyUnavailable when the server, stream or consumer is not there."""
        if self._requests.trouble:
            raise DependencyUnavailable(f"{self._consumer.name} cannot be reached.")
        if not self._messaging.is_connected:
            raise DependencyUnavailable("NATS cannot be reached.")

    async def _receive(self, message: Msg) -> None:
        if message.headers and Header.STATUS in message.headers:
            self._requests.note_status(message.subject, message.headers)
            return
        self._requests.note_message()
        task = asyncio.create_task(self._work_on(message))
        self._handling.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        self._requests.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("message_not_settled", consumer=self._consumer.name, exc_info=error)

    async def _work_on(self, message: Msg) -> None:
        """Take one message to its end, telling the server now and then that it is being worked on."""
        arrived = time.perf_counter()
        delivery = _read(message, self._consumer)
        correlation_id.set(delivery.message_id)
        keeping = _KeptInProgress(message, self._consumer.ack_wait_s / 3)
        try:
            async with self._slots:
                waited_s = time.perf_counter() - arrived
                outcome, error = await self._outcome(delivery)
        finally:
            keeping.cancel()
        await self._answer(message, delivery, outcome)
        self._tell(delivery, outcome, error, waited_s, time.perf_counter() - arrived)

    async def _outcome(self, delivery: Delivery) -> tuple[str, Exception | None]:
        try:
            await failpoint(self._before_handle)
            await self._handle(delivery)
            is_lost = await failpoint(self._before_ack)
        except DependencyUnavailable as error:
            return (_GIVEN_UP if delivery.is_last else _RETRIED), error
        except Exception as error:  # noqa: BLE001  # the defect of one message must not stop its neighbours
            if delivery.is_last or isinstance(error, Poison):
                return await self._buried(delivery, error), error
            return _RETRIED, error
        return _UNANSWERED if is_lost else _DONE, None

    async def _buried(self, delivery: Delivery, reason: Exception) -> str:
        try:
            await self._bury(delivery, str(reason) or type(reason).__name__)
        except Exception:
            log.exception("message_not_buried", consumer=self._consumer.name, message_id=delivery.message_id)
            return _GIVEN_UP if delivery.is_last else _RETRIED
        return _BURIED

    async def _answer(self, message: Msg, delivery: Delivery, outcome: str) -> None:
        # An answer that is lost means that the message comes again, which handlers bear.
        if outcome == _UNANSWERED:
            return
        with suppress(NatsError, OSError, TimeoutError):
            if outcome == _RETRIED:
                await message.nak(backoff_s(delivery.attempt, _RETRY_FIRST_S, _RETRY_CEILING_S))
            elif outcome != _DONE:
                await message.term()
            elif self._ack_sync:
                await message.ack_sync(_ACK_TIMEOUT_S)
            else:
                await message.ack()
            await failpoint(self._after_ack)

    def _tell(
        self, delivery: Delivery, outcome: str, error: Exception | None, waited_s: float, whole_s: float
    ) -> None:
        """The one line about this message, and its figure."""
        MESSAGE_SECONDS.labels(self._consumer.name, outcome).observe(whole_s)
        is_expected = error is None or isinstance(error, (DependencyUnavailable, Poison))
        details = {"error": str(error)} if error is not None and is_expected else {}
        log.log(
            _LEVELS[outcome],
            "message_handled",
            consumer=self._consumer.name,
            message_id=delivery.message_id,
            outcome=outcome,
            attempt=delivery.attempt,
            lag=delivery.lag,
            waited_ms=round(waited_s * 1e3, 2),
            ms=round(whole_s * 1e3, 2),
            exc_info=None if is_expected else error,
            **details,
        )


class _KeptInProgress:
    """Tells the server every so often that a message is being worked on, so that nobody else gets it."""

    def __init__(self, message: Msg, every_s: float) -> None:
        self._message = message
        self._every_s = every_s
        self._telling: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(every_s, self._beat)

    def cancel(self) -> None:
        """It is done."""
        self._timer.cancel()

    def _beat(self) -> None:
        self._telling = asyncio.create_task(self._tell())
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._beat)

    async def _tell(self) -> None:
        with suppress(NatsError, OSError):
            await self._message.in_progress()


def _read(message: Msg, consumer: Consumer) -> Delivery:
    metadata = message.metadata
    return Delivery(
        subject=message.subject,
        payload=message.data,
        message_id=(message.headers or {}).get(Header.MSG_ID, ""),
        attempt=metadata.num_delivered,
        is_last=metadata.num_delivered >= consumer.max_deliver,
        lag=metadata.num_pending,
    )
