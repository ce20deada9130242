"""What is known of the calls that run now: how many there are, how each ends, and the line and figures it leaves."""

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import Self

import structlog
from prometheus_client import Histogram

from shared.admission import CallDoor, StreamDoor
from shared.auth import Identity
from shared.errors import Internal, TooManyCalls, TooManyStreams
from shared.logging import canonical, correlation_id
from shared.metrics import RPC_OPEN, RPC_SECONDS
from shared.settings import Environment
from shared.turns import Turns

log = structlog.get_logger(__name__)

CORRELATION_KEY = "x-correlation-id"
_LONGEST_CORRELATION_ID = 64
# Statuses that say that something is wrong here rather than with the request.
_OUR_FAULTS = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"})


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How many calls and streams a server takes at once, and how long a unary call that names no deadline may run.

    Of the calls from outside `calls_at_once` are worked on while the others wait, and of the streams `streams_opening`
    may be on their way to their first message.
    """

    max_calls: int = 1_000
    max_streams: int = 20_000
    calls_at_once: int = 64
    streams_opening: int = 256
    deadline_s: float = 10.0

    @classmethod
    def read(cls, env: Environment, prefix: str) -> Self:
        """Reads `<prefix>_MAX_CALLS`, `_MAX_STREAMS`, `_CALLS_AT_ONCE`, `_STREAMS_OPENING` and `_DEADLINE_S`."""
        usual = cls()

        def count(name: str, default: int) -> int:
            return env.integer(f"{prefix}_{name}", default, least=1, most=1_000_000)

        return cls(
            max_calls=count("MAX_CALLS", usual.max_calls),
            max_streams=count("MAX_STREAMS", usual.max_streams),
            calls_at_once=count("CALLS_AT_ONCE", usual.calls_at_once),
            streams_opening=count("STREAMS_OPENING", usual.streams_opening),
            deadline_s=env.seconds(f"{prefix}_DEADLINE_S", usual.deadline_s, least=0.01, most=3_600),
        )


class Traffic:
    """Counts the calls and streams that are open, and refuses those for which there is no room.

    Those from outside come in by the doors `calls` and `streams`, and calls work while they have one of the `turns`.
    """

    def __init__(self, limits: CallLimits) -> None:
        """Starts with none open."""
        self.limits = limits
        self._calls = 0
        self._streams = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.turns = Turns(limits.calls_at_once)
        self.calls = CallDoor(self.turns)
        self.streams = StreamDoor(limits.streams_opening)
        RPC_OPEN.labels("call").set_function(lambda: self._calls)
        RPC_OPEN.labels("stream").set_function(lambda: self._streams)

    def enter(self, *, is_stream: bool) -> None:
        """Takes in one more, or refuses it."""
        if is_stream:
            if self._streams >= self.limits.max_streams:
                raise TooManyStreams(retry_after_s=1.0)
            self._streams += 1
        else:
            if self._calls >= self.limits.max_calls:
                raise TooManyCalls(retry_after_s=1.0)
            self._calls += 1
        self._idle.clear()

    def leave(self, *, is_stream: bool) -> None:
        """Lets one go."""
        if is_stream:
            self._streams -= 1
        else:
            self._calls -= 1
        if not self._calls and not self._streams:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        """Returns once nothing is open."""
        await self._idle.wait()


class MethodFigures:
    """The figures of one method, by code; Prometheus' own look-up by labels costs more than counting does."""

    __slots__ = ("_by_code", "method")

    def __init__(self, method: str) -> None:
        """`method` is `SenderService/SendBroadcast`."""
        self.method = method
        self._by_code: dict[str, Histogram] = {}

    def count(self, code: str, seconds: float) -> None:
        """Adds one call that ended with `code`."""
        histogram = self._by_code.get(code)
        if histogram is None:
            histogram = self._by_code[code] = RPC_SECONDS.labels(self.method, code)
        histogram.observe(seconds)


class Call:
    """One call, from its start to the line that it leaves."""

    __slots__ = ("_figures", "_started", "identity", "request_id")

    def __init__(self, figures: MethodFigures) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()
        self._figures = figures
        self.identity: Identity | None = None
        self.request_id: str | None = None

    def end(self, code: str, reason: str | None = None) -> None:
        """Writes the call's line and adds it to the figures; `code` is the name of its status."""
        seconds = time.perf_counter() - self._started
        self._figures.count(code, seconds)
        fields: dict[str, object] = {
            "method": self._figures.method,
            "code": code,
            "ms": round(seconds * 1e3, 3),
        }
        if self.identity is not None:
            fields["caller"] = self.identity.kind.value
        if self.request_id:
            fields["request_id"] = self.request_id
        if reason is not None:
            fields["reason"] = reason
        canonical("warning" if code in _OUR_FAULTS else "info", "rpc", fields)

    def defect(self, error: Exception) -> Internal:
        """The answer to an error that nobody expected: only the id under which the log has the whole of it."""
        log.error("internal_error", method=self._figures.method, exc_info=error)
        identifier = correlation_id.get() or ""
        return Internal(f"{Internal.__doc__} It is {identifier}.", metadata={"correlation_id": identifier})


def begin_correlation(given: str | None) -> None:
    """Gives the running task the id that the caller sent, when it looks like one, else a new one."""
    if given is None or len(given) > _LONGEST_CORRELATION_ID or not given.replace("-", "").isalnum():
        given = secrets.token_hex(8)
    correlation_id.set(given)
