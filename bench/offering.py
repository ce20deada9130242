"""Calls offered at a fixed rate whatever comes back, each with a deadline, a process of its own: what became of them.

`python -m bench.offering PLAN` reads one JSON list a line, `[rate, seconds]`, and answers each with one object.
"""

import asyncio
import base64
import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

import grpc
from google.rpc.status_pb2 import Status

from bench import handover
from shared import event_loop
from shared.errors import from_rich_status

_CONNECTIONS: Final = 4
DEADLINE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """Calls of one method: each is a bearer token and a serialised request; with `is_new` each gets a request_id.

    They are made on these processor `cores` alone, all when there are none.
    """

    target: str
    method: str
    calls: Sequence[tuple[str, bytes]]
    is_new: bool = False
    cores: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the calls of an offer.

    Answered ones within their deadline, refused ones with ErrorInfo and RetryInfo (`unclear` without), late ones past
    their deadline. `codes` are those of all others.
    """

    offered: int
    seconds: float
    answered: int
    refused: int
    unclear: int
    late: int
    codes: Mapping[str, int]
    latencies_ms: Sequence[float]
    refusals_ms: Sequence[float]

    @property
    def goodput(self) -> float:
        """Calls answered in time, a second."""
        return self.answered / self.seconds

    @property
    def answered_share(self) -> float:
        """The part of the calls that was answered in time."""
        return self.answered / max(self.offered, 1)


class Offering:
    """The process, seen from the one that asks for rates."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, work: Work, folder: Path) -> Self:
        """Starts it; the work is handed over in a file in `folder`."""
        calls = [(token, base64.b64encode(request).decode()) for token, request in work.calls]
        return cls(await handover.start("bench.offering", asdict(work) | {"calls": calls}, folder))

    async def offer(self, rate: float, seconds: float) -> Outcome:
        """Calls at that rate for that long."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the offering process was started without pipes")
        self._process.stdin.write(json.dumps([rate, seconds]).encode() + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the offering process has ended")
        return Outcome(**json.loads(line))

    async def close(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


class _Caller:
    """The connections, and the calls in turn."""

    def __init__(self, work: Work) -> None:
        # Connections of its own each, which gRPC would otherwise share.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(work.target, options) for _ in range(_CONNECTIONS)]
        methods: list[Callable[..., Any]] = [channel.unary_unary(work.method) for channel in channels]
        self._methods = itertools.cycle(methods)
        self._calls = itertools.cycle([(_bearer(token), request) for token, request in work.calls])
        self._is_new = work.is_new

    async def offer(self, rate: float, seconds: float) -> Outcome:
        """Calls at random moments, `rate` a second on average."""
        tally = _Tally()
        started = due = perf_counter()
        async with asyncio.TaskGroup() as calls:
            while due < started + seconds:
                # At least one turn of the loop for each call, also while this process is behind.
                await asyncio.sleep(max(due - perf_counter(), 0))
                metadata, request = next(self._calls)
                if self._is_new:
                    request = handover.with_request_id(request)
                calls.create_task(tally.call(next(self._methods), request, metadata))
                due += random.expovariate(rate)
            elapsed_s = perf_counter() - started
        return tally.outcome(elapsed_s)


class _Tally:
    """The outcome of an offer, while it is made."""

    def __init__(self) -> None:
        self._codes: Counter[str] = Counter()
        self._refused = self._unclear = 0
        self._latencies_ms: list[float] = []
        self._refusals_ms: list[float] = []

    async def call(
        self, method: Callable[..., Any], request: bytes, metadata: Sequence[tuple[str, str]]
    ) -> None:
        """One call."""
        started = perf_counter()
        try:
            await method(request, metadata=metadata, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            self._note(error)
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._refusals_ms.append(round((perf_counter() - started) * 1e3, 2))
        else:
            self._latencies_ms.append(round((perf_counter() - started) * 1e3, 2))

    def outcome(self, seconds: float) -> Outcome:
        """All calls have come to their end."""
        # The server's clock may end a call before ours does.
        late = self._codes.pop("DEADLINE_EXCEEDED", 0) + self._codes.pop("CANCELLED", 0)
        answered = len(self._latencies_ms)
        offered = answered + self._refused + self._unclear + late + self._codes.total()
        return Outcome(
            offered,
            seconds,
            answered,
            self._refused,
            self._unclear,
            late,
            dict(self._codes),
            self._latencies_ms,
            self._refusals_ms,
        )

    def _note(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._codes[error.code().name] += 1
            return
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        if _is_clear(bytes(details)):
            self._refused += 1
        else:
            self._unclear += 1


@cache
def _is_clear(details: bytes) -> bool:
    """Whether a refusal says why, and when to come again; there are few that differ, and they are read ever again."""
    told = from_rich_status(Status.FromString(details))
    return told is not None and bool(told.retry_after_s)


async def serve(work: Work) -> None:
    """Answers what is asked on stdin until that ends."""
    if work.cores:
        os.sched_setaffinity(0, work.cores)
    caller = _Caller(work)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(await caller.offer(*json.loads(line)))), flush=True)


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _read(path: Path) -> Work:
    """What `start` wrote; it holds tokens, so it is not left lying about."""
    written: Mapping[str, Any] = json.loads(path.read_text())
    path.unlink()
    calls = [(token, base64.b64decode(request)) for token, request in written["calls"]]
    return Work(written["target"], written["method"], calls, written["is_new"], written["cores"])


if __name__ == "__main__":
    event_loop.run(serve(_read(Path(sys.argv[1]))))
