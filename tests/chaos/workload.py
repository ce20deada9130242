"""Owns what is sent during a run: broadcasts of every size and priority, some later, some expiring, some cancelled."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from pyroaring import BitMap
from wedsync.broadcast.v1.common_pb2 import Priority, Targeting
from wedsync.broadcast.v1.sender_pb2 import CancelBroadcastRequest, SendBroadcastRequest

from services.sender.domain import Priority as Urgency
from services.sender.limits import PEOPLE
from tests.chaos.callers import RETRIED, Callers, Metadata
from tests.chaos.terms import CALL_S
from tests.chaos.truth import Meant, Truth

_IN_FLIGHT: Final = 24
_IMPATIENT: Final = 0.15
"""The share of callers that ask once and go away, whatever the answer was."""
_CANCELLED: Final = 0.2
_EXPIRING: Final = 0.1
_SCHEDULED: Final = 0.1

_CRITICAL, _HIGH, _NORMAL, _LOW = (
    Priority.PRIORITY_CRITICAL,
    Priority.PRIORITY_HIGH,
    Priority.PRIORITY_NORMAL,
    Priority.PRIORITY_LOW,
)
_ANY: Final = (_HIGH, _NORMAL, _LOW)
_TO_WEDDINGS: Final = {
    "timeline.changed": _ANY,
    "wedding.emergency": (_CRITICAL,),
    "coordinator.handoff": (_CRITICAL, _HIGH),
}
_TO_PEOPLE: Final = {
    "payment.required": _ANY,
    "journey.updated": _ANY,
    "security.alert": (_CRITICAL,),
    "feature.released": _ANY,
    "trial.ending": _ANY,
}


@dataclass(slots=True)
class Cancel:
    """A cancel: whether it hides, what was answered and when, and who had the broadcast just after that."""

    retract: bool
    confirmed_at: float | None = None
    already_sent: int = 0
    arrived: BitMap | None = None
    refused: str = ""


@dataclass(slots=True)
class Attempt:
    """One send, from the first try on; `key` is in its title. Times are Unix time."""

    key: str
    request: SendBroadcastRequest
    sender: Metadata
    meant: Meant
    audience: int
    due_at: float
    expires: bool
    started_at: float = 0.0
    accepted_at: float | None = None
    broadcast_id: str = ""
    is_recovered: bool = False
    refused: str = ""
    cancel: Cancel | None = None
    tries: list[tuple[float, float]] = field(default_factory=list)
    """When each try that was answered with OK began and ended."""


Arrived = Callable[[str], Awaitable[BitMap]]
Cancelled = Callable[[str, str, BitMap], Awaitable[None]]


class Workload:
    """Sends at a bounded rate until it is told to stop, then finishes what it has begun."""

    def __init__(
        self,
        callers: Callers,
        truth: Truth,
        random: Random,
        per_second: float,
        weddings: list[UUID],
        arrived: Arrived,
        cancelled: Cancelled,
    ) -> None:
        """`weddings` may be written to; `arrived` answers who has a broadcast; `cancelled` hears of each cancel.

        It is told the broadcast, its lane and who was meant.
        """
        self._callers = callers
        self._truth = truth
        self._random = random
        self._per_second = per_second
        self._weddings = weddings
        self._arrived = arrived
        self._cancelled = cancelled
        self._places = asyncio.Semaphore(_IN_FLIGHT)
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._by_admin: Counter[tuple[str, int, str]] = Counter()
        self.attempts: list[Attempt] = []

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping.set()

    async def run(self) -> None:
        """Send until `stop`; return when every send and cancel has come to its end."""
        while not self._stopping.is_set():
            await self._places.acquire()
            task = asyncio.create_task(self._one(self._draft()))
            self._running.add(task)
            task.add_done_callback(self._finished)
            pause_s = self._random.expovariate(self._per_second)
            try:
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            except TimeoutError:
                continue
        while self._running:
            await asyncio.wait(self._running)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()
        if not task.cancelled():
            task.result()

    def _draft(self) -> Attempt:
        key = f"chaos {len(self.attempts)}"
        random, now = self._random, datetime.now(UTC)
        request = SendBroadcastRequest(
            request_id=str(UUID(int=random.getrandbits(128), version=4)),
            title=key,
            message="Whoever reads this.",
        )
        draw = random.random()
        is_later, is_expiring = draw < _SCHEDULED, _SCHEDULED <= draw < _SCHEDULED + _EXPIRING
        audience = self._address(request, is_for_many=is_expiring)
        if is_later:
            request.scheduled_for.CopyFrom(_timestamp(now + timedelta(seconds=random.uniform(0.5, 2.0))))
        if is_expiring:
            request.expires_at.CopyFrom(_timestamp(now + timedelta(seconds=random.uniform(0.5, 3.0))))
        attempt = Attempt(
            key,
            request,
            self._sender(request),
            self._truth.meant(request.type, audience, request.wedding_id),
            len(audience),
            request.scheduled_for.ToDatetime(UTC).timestamp() if is_later else now.timestamp(),
            is_expiring,
        )
        self.attempts.append(attempt)
        return attempt

    def _sender(self, request: SendBroadcastRequest) -> Metadata:
        """The admin, as far as a person's limit goes; then an account whose quota is set for the run."""
        tally = (request.type, request.priority, request.wedding_id)
        self._by_admin[tally] += 1
        if self._by_admin[tally] <= PEOPLE[Urgency(request.priority)].hour:
            return self._callers.admin
        return self._callers.service("broadcast.send")

    def _address(self, request: SendBroadcastRequest, *, is_for_many: bool) -> BitMap:
        """Choose type, priority and audience; answers the audience. One for many leaves in several chunks."""
        random, truth = self._random, self._truth
        draw = 1.0 if is_for_many else random.random()
        kinds = _TO_WEDDINGS if draw < 0.25 else _TO_PEOPLE
        request.type = random.choice(sorted(kinds))
        request.priority = random.choice(kinds[request.type])
        if kinds is _TO_WEDDINGS:
            wedding_id = random.choice(self._weddings)
            request.wedding_id = str(wedding_id)
            return truth.weddings[wedding_id]
        if draw < 0.55:
            numbers = random.sample(sorted(truth.user_ids), random.choice((1, 1, 3, 40)))
            user_ids = [str(truth.user_ids[number]) for number in numbers]
            request.targeting.CopyFrom(Targeting(user_ids=user_ids))
            return BitMap(numbers)
        if draw < 0.8:
            role = random.choice(sorted(truth.roles))
            request.targeting.CopyFrom(Targeting(roles=[role]))
            return truth.roles[role]
        request.targeting.CopyFrom(Targeting(everyone=True))
        return truth.everyone

    async def _one(self, attempt: Attempt) -> None:
        cancels = self._random.random() < _CANCELLED and not attempt.expires
        await self._send(attempt, is_impatient=self._random.random() < _IMPATIENT)
        if cancels and attempt.broadcast_id:
            await asyncio.sleep(self._random.choice((0.0, 0.0, 0.02, 0.1, 0.5)))
            await self._cancel(attempt)

    async def _send(self, attempt: Attempt, *, is_impatient: bool) -> None:
        attempt.started_at = time.time()

        async def call() -> None:
            began = time.time()
            answer = await self._callers.sender.SendBroadcast(
                attempt.request, metadata=attempt.sender, timeout=CALL_S
            )
            attempt.broadcast_id, attempt.accepted_at = answer.broadcast.broadcast_id, time.time()
            attempt.tries.append((began, attempt.accepted_at))
            # The answer to an earlier try, which did not get through.
            attempt.is_recovered = answer.broadcast.create_time.ToDatetime(UTC).timestamp() < began

        asked = self._callers.once if is_impatient else self._callers.until_answered
        try:
            await asked("SendBroadcast", call)
        except grpc.aio.AioRpcError as error:
            # One who expired while the sender could not be reached is refused rightly.
            if error.code() not in RETRIED and not attempt.expires:
                attempt.refused = f"{error.code().name}: {error.details()}"

    async def _cancel(self, attempt: Attempt) -> None:
        attempt.cancel = Cancel(retract=self._random.random() < 0.5)
        request = CancelBroadcastRequest(
            request_id=str(UUID(int=self._random.getrandbits(128), version=4)),
            broadcast_id=attempt.broadcast_id,
            reason="chaos",
            retract=attempt.cancel.retract,
        )
        try:
            answer = await self._callers.until_answered(
                "CancelBroadcast",
                lambda: self._callers.sender.CancelBroadcast(
                    request, metadata=self._callers.admin, timeout=CALL_S
                ),
            )
        except grpc.aio.AioRpcError as error:
            attempt.cancel.refused = f"{error.code().name}: {error.details()}"
            return
        attempt.cancel.confirmed_at = time.time()
        attempt.cancel.already_sent = answer.already_sent
        attempt.cancel.arrived = await self._arrived(attempt.broadcast_id)
        lane = Priority.Name(attempt.request.priority).removeprefix("PRIORITY_").lower()
        await self._cancelled(attempt.broadcast_id, lane, attempt.meant.must)


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
