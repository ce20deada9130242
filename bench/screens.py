"""Holds everybody's screens open, a process of its own: streams of an inbox, and when each showed a broadcast.

`python -m bench.screens PLAN` connects, says so in a line, and answers each broadcast id that it reads with the moments
at which it was shown: seconds of the machine's monotonic clock, and to how many at each.
"""

import asyncio
import gc
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

import grpc
from wedsync.broadcast.v1.inbox_pb2 import (
    ConnectInboxesRequest,
    ConnectInboxesResponse,
    InboxSubscribe,
    WatchInboxRequest,
    WatchInboxResponse,
)
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from shared import event_loop

_OPENING_AT_ONCE: Final = 64
_SHOWN_WITHIN_S: Final = 20.0
# Moments are taken as they come, so this costs no latency.
_LOOK_S: Final = 0.2
_WATCH: Final = "/wedsync.broadcast.v1.InboxService/WatchInbox"

Metadata = tuple[tuple[str, str], ...]
Moment = tuple[float, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Whose screens, by their tokens, over so many connections: one shared stream on each, or everybody's own."""

    target: str
    tokens: Sequence[str]
    connections: int
    shared_by: str = ""
    """The token of the service that shares streams; empty for none, which is a stream for everybody."""


class Screens:
    """The process, seen from the one that sends."""

    def __init__(self, process: asyncio.subprocess.Process, connected_s: float) -> None:
        self._process = process
        self.connected_s = connected_s
        """How long it took until everybody was connected and had their snapshot."""

    @classmethod
    async def open(cls, plan: Plan, folder: Path, timeout_s: float) -> Self:
        """Returns once everybody is connected; the plan is handed over in a file in `folder`."""
        path = folder / "screens.json"
        path.write_text(json.dumps(asdict(plan)))
        path.chmod(0o600)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.screens", str(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 << 20,
        )
        screens = cls(process, 0.0)
        screens.connected_s = float(await asyncio.wait_for(screens._read(), timeout_s))
        return screens

    async def shown(self, broadcast_id: str) -> list[Moment]:
        """When a broadcast was shown, and to how many at once, once everybody saw it or time is up."""
        if self._process.stdin is None:
            raise RuntimeError("the screens were started without pipes")
        self._process.stdin.write(f"{broadcast_id}\n".encode())
        return [(moment, people) for moment, people in json.loads(await self._read())]

    async def close(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def _read(self) -> bytes:
        if self._process.stdout is None:
            raise RuntimeError("the screens were started without pipes")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the screens have gone dark")
        return line


class _Wall:
    """What the process itself holds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Connections of its own each, which gRPC would otherwise share.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(plan.target, options) for _ in range(plan.connections)]
        self._stubs = [InboxServiceStub(channel) for channel in channels]
        # Read as bytes, and looked at later: a thousand screens are one process here, which must not be the slow part.
        self._own: list[Any] = [
            channel.unary_stream(_WATCH, WatchInboxRequest.SerializeToString) for channel in channels
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: list[tuple[float, bytes]] = []
        self._moments: dict[str, list[Moment]] = defaultdict(list)
        self._ready = 0

    async def connect(self) -> float:
        """Connect everybody; the seconds that it took."""
        started, people = monotonic(), len(self._plan.tokens)
        if self._plan.shared_by:
            for place, stub in enumerate(self._stubs):
                self._spawn(self._share(stub, range(place, people, len(self._stubs))))
        else:
            opening = asyncio.Semaphore(_OPENING_AT_ONCE)
            for place, token in enumerate(self._plan.tokens):
                self._spawn(self._watch(self._own[place % len(self._own)], token, opening))
        await self._until(lambda: self._ready >= people)
        return monotonic() - started

    async def shown(self, broadcast_id: str) -> list[Moment]:
        """The moments, once everybody has seen it or it has taken too long."""
        people, deadline = len(self._plan.tokens), monotonic() + _SHOWN_WITHIN_S
        await self._until(
            lambda: monotonic() > deadline or sum(n for _, n in self._moments[broadcast_id]) >= people
        )
        return self._moments.pop(broadcast_id)

    async def _share(self, stub: InboxServiceStub, handles: Sequence[int]) -> None:
        async def subscribe() -> AsyncIterator[ConnectInboxesRequest]:
            for handle in handles:
                token = self._plan.tokens[handle]
                yield ConnectInboxesRequest(subscribe=InboxSubscribe(handle=handle, user_token=token))

        async for response in stub.ConnectInboxes(subscribe(), metadata=_bearer(self._plan.shared_by)):
            self._see(monotonic(), response, len(response.handles))

    async def _watch(self, watch: Callable[..., Any], token: str, opening: asyncio.Semaphore) -> None:
        async with opening:
            responses = aiter(watch(WatchInboxRequest(), metadata=_bearer(token)))
            self._see(monotonic(), WatchInboxResponse.FromString(await anext(responses)), 1)
        async for response in responses:
            self._seen.append((monotonic(), response))

    def _see(self, moment: float, response: ConnectInboxesResponse | WatchInboxResponse, people: int) -> None:
        change = response.event.WhichOneof("change")
        if change == "added":
            self._moments[response.event.added.item.broadcast_id].append((moment, people))
        elif change == "snapshot":
            self._ready += people
        elif isinstance(response, ConnectInboxesResponse) and response.HasField("ended"):
            raise RuntimeError(f"a handle has ended: {response.ended.reason}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(_LOOK_S)
            seen, self._seen = self._seen, []
            for moment, response in seen:
                self._see(moment, WatchInboxResponse.FromString(response), 1)
            # Streams that have ended, which none should.
            for task in [task for task in self._tasks if task.done()]:
                task.result()


async def serve(plan: Plan) -> None:
    """Connects, and answers what is asked on stdin until that ends."""
    wall = _Wall(plan)
    print(await wall.connect(), flush=True)
    # What is open stays open: looking through it for garbage would be taken for latency.
    gc.collect()
    gc.freeze()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await wall.shown(line.strip())), flush=True)


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def _read(path: Path) -> Plan:
    """What `open` wrote; it holds tokens, so it is not left lying about."""
    written: Mapping[str, Any] = json.loads(path.read_text())
    path.unlink()
    return Plan(**written)


if __name__ == "__main__":
    event_loop.run(serve(_read(Path(sys.argv[1]))))
