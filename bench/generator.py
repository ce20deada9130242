"""Calls at a fixed rate whatever comes back, a process of its own: a latency counts from when its call was due.

`python -m bench.generator PLAN` reads one JSON object a line, `{"name", "rate", "seconds"}`, and answers each with one.
"""

import asyncio
import base64
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

import grpc

from bench import handover
from shared import event_loop

_CONNECTIONS: Final = 4
_CALL_TIMEOUT_S: Final = 5.0
# A rate that lets so many calls pile up is not sustained, and more would only take longer to say so.
_MOST_OPEN: Final = 2_000

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Calls of one method: each is a bearer token, empty for none, and a serialised request; they come in turn.

    With `is_new` each call gets a request_id of its own.
    """

    target: str
    method: str
    calls: Sequence[tuple[str, bytes]]
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of a rate: milliseconds of the calls that were answered, in no order, and how many were not."""

    name: str
    rate: float
    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99_ms(self) -> float:
        """Nearest rank; what was not answered took for ever."""
        ordered = sorted(self.latencies_ms) + [float("inf")] * self.failed
        return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else float("inf")


class Generator:
    """The process, seen from the one that asks for rates."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, loads: Mapping[str, Load], folder: Path) -> Self:
        """Starts it with these loads, by name; they are handed over in a file in `folder`."""
        plan = folder / "loads.json"
        plan.write_text(json.dumps({name: _written(load) for name, load in loads.items()}))
        plan.chmod(0o600)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.generator",
            str(plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 << 20,
        )
        return cls(process)

    async def probe(self, name: str, rate: float, seconds: float) -> Probe:
        """Calls at that rate for that long."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the generator was started without pipes")
        self._process.stdin.write(
            json.dumps({"name": name, "rate": rate, "seconds": seconds}).encode() + b"\n"
        )
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the generator has ended")
        return Probe(**json.loads(answer))

    async def stop(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


class _Caller:
    """The connections and calls of one load."""

    def __init__(self, load: Load) -> None:
        # Connections of its own each, which gRPC would otherwise share.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(load.target, options) for _ in range(_CONNECTIONS)]
        self._methods: Iterator[Callable[..., Any]] = itertools.cycle(
            [channel.unary_unary(load.method) for channel in self._channels]
        )
        self._calls: Iterator[tuple[Metadata, bytes]] = itertools.cycle(
            [(_bearer(token), request) for token, request in load.calls]
        )
        self._is_new = load.is_new

    async def run(self, name: str, rate: float, seconds: float) -> Probe:
        """Calls at random moments, `rate` a second on average."""
        for channel in self._channels:
            await channel.channel_ready()
        probe = _Running(Probe(name, rate, seconds))
        started = due = perf_counter()
        while due < started + seconds and probe.open < _MOST_OPEN:
            if (early := due - perf_counter()) > 0:
                await asyncio.sleep(early)
            metadata, request = next(self._calls)
            if self._is_new:
                request = handover.with_request_id(request)
            probe.start(next(self._methods), request, metadata, due)
            due += random.expovariate(rate)
        return await probe.finish()


class _Running:
    """A probe while its calls are open."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = 0

    @property
    def open(self) -> int:
        return len(self._tasks)

    def start(self, method: Callable[..., Any], request: bytes, metadata: Metadata, due: float) -> None:
        task = asyncio.create_task(self._call(method, request, metadata, due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, method: Callable[..., Any], request: bytes, metadata: Metadata, due: float) -> None:
        try:
            await method(request, metadata=metadata, timeout=_CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self._failed += 1
        else:
            self._probe.latencies_ms.append((perf_counter() - due) * 1e3)

    async def finish(self) -> Probe:
        if self._tasks:
            await asyncio.wait(self._tasks)
        done = self._probe
        return Probe(done.name, done.rate, done.seconds, done.latencies_ms, self._failed)


async def serve(loads: Mapping[str, Load]) -> None:
    """Answers what is asked on stdin until that ends."""
    callers = {name: _Caller(load) for name, load in loads.items()}
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        probe = await callers[asked["name"]].run(asked["name"], asked["rate"], asked["seconds"])
        print(json.dumps(asdict(probe)), flush=True)


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),) if token else ()


def _written(load: Load) -> dict[str, object]:
    calls = [(token, base64.b64encode(request).decode()) for token, request in load.calls]
    return {"target": load.target, "method": load.method, "calls": calls, "is_new": load.is_new}


def _read(plan: Path) -> dict[str, Load]:
    """What `start` wrote; it holds tokens, so it is not left lying about."""
    written = json.loads(plan.read_text())
    plan.unlink()
    return {
        name: Load(
            load["target"],
            load["method"],
            [(token, base64.b64decode(request)) for token, request in load["calls"]],
            load["is_new"],
        )
        for name, load in written.items()
    }


if __name__ == "__main__":
    event_loop.run(serve(_read(Path(sys.argv[1]))))
