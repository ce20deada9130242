"""People whose streams break and who all come back at once, a process of its own: each goes on from its last cursor.

`python -m bench.returning PLAN` opens everybody's stream and says so in a line; for each broadcast id that it reads it
waits until everybody is back and was shown it, and says in a line how that went. Whoever is refused comes again when
the refusal says, and somewhat later by chance; whoever is cut off, a little later each time.
"""

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self

import grpc
from google.rpc.status_pb2 import Status
from wedsync.broadcast.v1.inbox_pb2 import (
    ConnectInboxesRequest,
    InboxEvent,
    InboxSubscribe,
    WatchInboxRequest,
)
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from bench import handover
from shared import event_loop
from shared.errors import ServiceError, SlowReader, from_rich_status

_AT_FIRST: Final = 64
_LOOK_S: Final = 0.05
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_GONE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who comes, by their tokens, over so many connections; `shared_by` as in `bench.screens`."""

    target: str
    tokens: Sequence[str]
    connections: int
    shared_by: str = ""


@dataclass(frozen=True, slots=True)
class Return:
    """When each was back (seconds of the machine's monotonic clock), who was refused meanwhile, and what went wrong."""

    back_at: list[float]
    refused: int
    without_hint: int
    cut_off: int
    missed: int
    repeated: int


class Returning:
    """The process, seen from the one that breaks their streams."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, crowd: Crowd, folder: Path) -> Self:
        """Starts it; the crowd is handed over in a file in `folder`."""
        return cls(await handover.start("bench.returning", asdict(crowd), folder))

    async def connected(self) -> None:
        """Returns once everybody's stream is open."""
        await self._read()

    async def back(self, broadcast_id: str, timeout_s: float) -> Return:
        """How everybody came back, once they have and were shown this broadcast, or time is up."""
        if self._process.stdin is None:
            raise RuntimeError("the crowd was started without pipes")
        self._process.stdin.write(json.dumps([broadcast_id, timeout_s]).encode() + b"\n")
        return Return(**json.loads(await self._read()))

    def stall(self) -> None:
        """Nobody reads any more, as on a phone that sleeps with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Everybody goes on reading."""
        self._process.send_signal(signal.SIGCONT)

    async def close(self) -> None:
        """Ends it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    async def _read(self) -> bytes:
        if self._process.stdout is None:
            raise RuntimeError("the crowd was started without pipes")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the crowd has gone home")
        return line


@dataclass(slots=True)
class _Person:
    """Somebody, with where they can go on, since when they are connected, and what they were shown."""

    token: str
    cursor: str = ""
    open_since: float | None = None
    shown: Counter[str] = field(default_factory=Counter)

    def see(self, event: InboxEvent) -> None:
        if self.open_since is None:
            self.open_since = monotonic()
        self.cursor = event.cursor or self.cursor
        if event.HasField("added"):
            self.shown[event.added.item.broadcast_id] += 1


class _Everybody:
    """What the process itself holds."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._people = [_Person(token) for token in crowd.tokens]
        # Connections of its own each, which gRPC would otherwise share, and not two minutes between two attempts.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1_000)]
        channels = [grpc.aio.insecure_channel(crowd.target, options) for _ in range(crowd.connections)]
        self._stubs = [InboxServiceStub(channel) for channel in channels]
        self._at_first = asyncio.Semaphore(_AT_FIRST)
        self._tasks: list[asyncio.Task[None]] = []
        self._refused = 0
        self._without_hint = 0
        self._cut_off = 0

    async def connect(self) -> None:
        """Everybody, a few at a time."""
        for place, stub in enumerate(self._stubs):
            people = self._people[place :: len(self._stubs)]
            if self._crowd.shared_by:
                self._spawn(people, partial(self._share, stub, people))
            else:
                for person in people:
                    self._spawn([person], partial(self._watch, stub, person))
        await self._until(lambda: all(person.open_since is not None for person in self._people), 300)

    async def back(self, broadcast_id: str, timeout_s: float) -> Return:
        """See `Returning.back`."""
        await self._until(
            lambda: all(person.open_since and person.shown[broadcast_id] for person in self._people),
            timeout_s,
        )
        shown = [person.shown[broadcast_id] for person in self._people]
        back_at = [person.open_since for person in self._people if person.open_since is not None]
        refused, self._refused = self._refused, 0
        without_hint, self._without_hint = self._without_hint, 0
        cut_off, self._cut_off = self._cut_off, 0
        repeated = sum(max(person.shown.values(), default=0) > 1 for person in self._people)
        return Return(back_at, refused, without_hint, cut_off, shown.count(0), repeated)

    async def _stay(self, people: Sequence[_Person], stream: Callable[[], Awaitable[None]]) -> None:
        """Streams again and again."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await stream()
            except grpc.aio.AioRpcError as error:
                if error.code() not in _GONE:
                    raise
                was_open = any(person.open_since is not None for person in people)
                self._cut_off += was_open
                for person in people:
                    person.open_since = None
                pause_s = _FIRST_PAUSE_S if was_open else min(pause_s * 2, _LONGEST_PAUSE_S)
                await asyncio.sleep(self._pause_s(error, pause_s))

    def _pause_s(self, error: grpc.aio.AioRpcError, otherwise_s: float) -> float:
        told = _told(error)
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and not isinstance(told, SlowReader):
            self._refused += 1
            self._without_hint += told is None or told.retry_after_s is None
        hint_s = told.retry_after_s if told is not None else None
        return (hint_s or otherwise_s) * random.uniform(1.0, 1.2)

    async def _watch(self, stub: InboxServiceStub, person: _Person) -> None:
        async with contextlib.AsyncExitStack() as first:
            if not person.cursor:
                await first.enter_async_context(self._at_first)
            request = WatchInboxRequest(cursor=person.cursor)
            async for response in stub.WatchInbox(request, metadata=_bearer(person.token)):
                person.see(response.event)
                await first.aclose()

    async def _share(self, stub: InboxServiceStub, people: Sequence[_Person]) -> None:
        async def subscribe() -> AsyncIterator[ConnectInboxesRequest]:
            for handle, person in enumerate(people):
                yield ConnectInboxesRequest(
                    subscribe=InboxSubscribe(handle=handle, user_token=person.token, cursor=person.cursor)
                )

        async for response in stub.ConnectInboxes(subscribe(), metadata=_bearer(self._crowd.shared_by)):
            if response.HasField("ended"):
                raise RuntimeError(f"a handle has ended: {response.ended.reason}")
            if response.HasField("event"):
                for handle in response.handles:
                    people[handle].see(response.event)

    def _spawn(self, people: Sequence[_Person], stream: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.create_task(self._stay(people, stream)))

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = monotonic() + timeout_s
        while not condition() and monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
            for task in [task for task in self._tasks if task.done()]:
                task.result()


async def serve(crowd: Crowd) -> None:
    """Connects, and answers what is asked on stdin until that ends."""
    everybody = _Everybody(crowd)
    await everybody.connect()
    print("connected", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(await everybody.back(*json.loads(line)))), flush=True)


def _told(error: grpc.aio.AioRpcError) -> ServiceError | None:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return from_rich_status(Status.FromString(bytes(details))) if details else None


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _read(path: Path) -> Crowd:
    """What `start` wrote; it holds tokens, so it is not left lying about."""
    written: Mapping[str, Any] = json.loads(path.read_text())
    path.unlink()
    return Crowd(**written)


if __name__ == "__main__":
    event_loop.run(serve(_read(Path(sys.argv[1]))))
