"""Decides before a call is read whether it comes in: what would wait too long is refused while that costs little.

Under overload calls queue inside gRPC, out of Python's sight, so what they wait there is measured by a call of our own
that waits like any other. While that is too long, a growing share of the calls from outside is refused at the door;
health, and what the suite's own services ask each other, always come in.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
import structlog

from shared.errors import TooManyCalls, TooManyStreams
from shared.metrics import RPC_REFUSED, RPC_SHED_SHARE
from shared.shedding import TICK_S, Shedding
from shared.turns import RETRY_S, Turns

log = structlog.get_logger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
# One call through the server, from the client's side to its answer.
Probe: TypeAlias = Callable[[], Awaitable[object]]

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
# Fewer calls than that in a tick need nobody to watch their wait.
_FEW: Final = 2
_QUIET_TICKS: Final = 20
_LONGEST_RETRY_S: Final = 30.0
_LEAST_RATE: Final = 100.0
_RATE_SAMPLES: Final = 128


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as it goes out, made once: to refuse must cost little."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...]

    def handler(self) -> Handler:
        """A handler of the kind that suits calls of every kind, which answers with this and reads nothing."""

        async def refuse(_: object, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
            # To abort would raise, which costs a tenth more of what a refusal costs.
            context.set_code(self.code)
            context.set_details(self.message)
            context.set_trailing_metadata(self.trailers)

        return grpc.stream_stream_rpc_method_handler(refuse)


def refusal(error: TooManyCalls | TooManyStreams) -> Refusal:
    """What tells a caller of `error`."""
    status = error.to_rich_status()
    trailers = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, status.message, trailers)


class CallDoor:
    """Where unary calls from outside come in: a share of them while those that are in cannot be kept up with."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._refusal = refusal(TooManyCalls(retry_after_s=RETRY_S))
        self._probe: Probe | None = None
        self._probing: asyncio.Task[None] | None = None
        self._probe_started = 0.0
        self._probed_s = 0.0
        self._controlling: asyncio.Task[None] | None = None
        self._arrived = 0
        self._refused = 0
        self._credit = 0.0
        self._shedding = Shedding()

    @property
    def share(self) -> float:
        """The part of the calls that is refused now."""
        return self._shedding.share

    def measure_by(self, probe: Probe) -> None:
        """From now on `probe` tells what a call waits inside gRPC."""
        self._probe = probe

    def refusal(self) -> Refusal | None:
        """What a call is told that may not come in; None for one that may."""
        self._arrived += 1
        if self._controlling is None:
            self._controlling = asyncio.create_task(self._control(), name="admission")
        share = self._shedding.share
        if not share:
            return None
        self._credit += 1 - share
        if self._credit >= 1:
            self._credit -= 1
            return None
        self._refused += 1
        return self._refusal

    async def close(self) -> None:
        """Measure no more."""
        tasks = [task for task in (self._probing, self._controlling) if task is not None]
        self._probe = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _control(self) -> None:
        """Follow the wait for as long as there are calls."""
        quiet_ticks = told = 0
        try:
            while quiet_ticks < _QUIET_TICKS or self.share:
                await asyncio.sleep(TICK_S)
                arrived, self._arrived = self._arrived, 0
                quiet_ticks = 0 if arrived >= _FEW else quiet_ticks + 1
                now = time.monotonic()
                if arrived >= _FEW or self.share:
                    self._begin_probe(now)
                self._turns.refuse_late(now)
                self._shedding.follow(now, self._wait_s(now))
                RPC_SHED_SHARE.set(self.share)
                told += 1
                if self._refused and told * TICK_S >= 1:
                    self._tell()
                    told = 0
        finally:
            self._controlling = None
            if self._refused:
                self._tell()

    def _wait_s(self, now: float) -> float:
        """What a call waits that comes now, at least."""
        under_way_s = now - self._probe_started if self._probing is not None else 0.0
        return max(self._probed_s, under_way_s, self._turns.oldest_wait_s(now))

    def _begin_probe(self, now: float) -> None:
        if self._probe is not None and self._probing is None:
            self._probe_started = now
            self._probing = asyncio.create_task(self._run_probe(self._probe), name="admission_probe")

    async def _run_probe(self, probe: Probe) -> None:
        try:
            await probe()
            self._probed_s = time.monotonic() - self._probe_started
        except grpc.aio.AioRpcError as error:
            # Nothing is known then, and nobody is refused on a guess.
            self._probed_s = 0.0
            log.warning("admission_probe_failed", code=error.code().name)
        finally:
            self._probing = None

    def _tell(self) -> None:
        refused, self._refused = self._refused, 0
        RPC_REFUSED.labels("call").inc(refused)
        wait_ms = round(self._shedding.wait_s * 1e3, 1)
        log.warning("calls_refused", calls=refused, share=round(self.share, 3), wait_ms=wait_ms)


class StreamDoor:
    """Where streams come in: so many may be on their way to their first message, the others are told when to come.

    Whoever is refused is given a moment of their own, as far away as those refused before them take to open, so that
    ten thousand who come at once come back one after the other.
    """

    def __init__(self, opening_at_once: int) -> None:
        self._at_once = opening_at_once
        self._opening = 0
        self._opened: deque[float] = deque(maxlen=_RATE_SAMPLES)
        self._booked = 0.0
        self._refusals: dict[float, Refusal] = {}

    def refusal(self) -> Refusal | None:
        """What a stream is told that may not open now; None for one that may."""
        if self._opening < self._at_once:
            return None
        now = time.monotonic()
        self._booked = min(max(self._booked, now) + 1 / self._rate(now), now + _LONGEST_RETRY_S)
        RPC_REFUSED.labels("stream").inc()
        retry_s = round(max(self._booked - now, 0.1), 1)
        told = self._refusals.get(retry_s)
        if told is None:
            told = self._refusals[retry_s] = refusal(TooManyStreams(retry_after_s=retry_s))
        return told

    def begin(self, *, counts: bool) -> "Opening":
        """One more is on its way; one that does not count came in by no door."""
        if not counts:
            return Opening(None)
        self._opening += 1
        return Opening(self)

    def end(self, *, is_open: bool) -> None:
        """One less is; `is_open` when it has come to its first message."""
        self._opening -= 1
        if is_open:
            self._opened.append(time.monotonic())

    def _rate(self, now: float) -> float:
        """How many streams a second have opened lately."""
        while self._opened and now - self._opened[0] > 1:
            self._opened.popleft()
        if len(self._opened) < 2:
            return _LEAST_RATE
        return max(_LEAST_RATE, len(self._opened) / max(now - self._opened[0], 0.01))


class Opening:
    """A stream on its way to its first message."""

    __slots__ = ("_door",)

    def __init__(self, door: StreamDoor | None) -> None:
        self._door = door

    def end(self, *, is_open: bool) -> None:
        """It is open, or it never will be; only the first word counts."""
        if self._door is not None:
            self._door.end(is_open=is_open)
            self._door = None
