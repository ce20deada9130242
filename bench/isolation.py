"""Critical broadcasts to fifty people on a fixed schedule: alone, and while five low ones to a million run."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Final
from uuid import UUID

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.directory_pb2 import SetWeddingTeamRequest
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.broadcasts import DEADLINE_S, EMERGENCY, ERRAND, POLL_S, Broadcasts
from bench.disk import calm
from bench.report import Bound, Result, Row, summarize
from bench.site import mailer, service, started
from stack.background import BackgroundStack
from stack.world import demo_id

SCENARIO: Final = "isolation"
RECIPIENTS: Final = 1_000_000
PEOPLE: Final = 50
FIRST: Final = 700_001
WEDDING: Final = str(demo_id("wedding-1"))
LOW: Final = 5
EVERY_S: Final = 0.1
TURNS: Final = 4
SENDS: Final = 50
FULL_SENDS: Final = 150
WARM_UP: Final = 20
LEAST_BOUND_MS: Final = 50.0


async def run(full: bool, console: Console) -> Result:
    """Starts a stack with a million recipients and measures."""
    sends = FULL_SENDS if full else SENDS
    with started(RECIPIENTS, console) as stack:
        connection, other = [await asyncpg.connect(stack.environment["DATABASE_URL"]) for _ in range(2)]
        async with grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as channel:
            sender = SenderServiceStub(channel)
            urgent = await Urgent.prepare(stack, connection, sender)
            low = await Broadcasts.open(other, sender, mailer(stack))
            await urgent.one_by_one(WARM_UP)
            await low.settle_disk()
            with console.status("waiting for a calm disk"):
                disk = await calm(stack.state.path)
            gc.freeze()
            idle: list[float] = []
            loaded: list[float] = []
            finished = 0
            with console.status("measuring"):
                for _ in range(TURNS):
                    idle += await urgent.on_schedule(sends)
                    async with _running(low) as running:
                        loaded += await urgent.on_schedule(sends)
                    finished += running.finished
                    await low.settle()
        for each in (connection, other):
            await each.close()
    rows = [
        Row("idle", summarize(idle)),
        Row(
            f"while {LOW} low to 1,000,000 run",
            summarize(loaded),
            facts={"low ones meanwhile": finished},
        ),
    ]
    bound_ms = max(2 * rows[0].ours.p99, LEAST_BOUND_MS)
    return Result(
        scenario=SCENARIO,
        title=f"Critical to {PEOPLE} people: scheduled → durable in every inbox",
        rows=rows,
        bounds=[Bound("p99 beside low ones", rows[1].ours.p99, bound_ms)],
        settings={"recipients": RECIPIENTS, "full": full, "every_s": EVERY_S, "fsync_ms": asdict(disk)},
    )


class Urgent:
    """Critical broadcasts to a team, each measured from when it was due, whatever became of those before it."""

    def __init__(self, broadcasts: Broadcasts) -> None:
        self._broadcasts = broadcasts
        self._due: dict[UUID, float] = {}
        self._took_ms: list[float] = []

    @classmethod
    async def prepare(
        cls, stack: BackgroundStack, connection: asyncpg.Connection, sender: SenderServiceStub
    ) -> "Urgent":
        """To people of neighbouring numbers, who are made the team of a wedding."""
        broadcasts = await Broadcasts.open(connection, sender, mailer(stack))
        users = await broadcasts.users(FIRST, FIRST + PEOPLE - 1)
        request = SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=map(str, users))
        async with grpc.aio.insecure_channel(stack.environment["PREFERENCES_ADDR"]) as channel:
            await DirectoryServiceStub(channel).SetWeddingTeam(
                request, metadata=service(stack, ["directory.write"]), timeout=DEADLINE_S
            )
        return cls(broadcasts)

    async def one_by_one(self, count: int) -> None:
        """Send `count`, each once the one before has arrived."""
        for _ in range(count):
            await self._broadcasts.arrive(await self._send_one(), PEOPLE)

    async def on_schedule(self, count: int) -> list[float]:
        """Milliseconds of each of `count`, sent at equal distances."""
        self._took_ms = []
        looking = asyncio.create_task(self._look(count))
        begun = perf_counter()
        async with asyncio.TaskGroup() as sending:
            for place in range(count):
                due = begun + place * EVERY_S
                await asyncio.sleep(due - perf_counter())
                sending.create_task(self._send(due))
        await asyncio.wait_for(looking, DEADLINE_S)
        return self._took_ms

    async def _send(self, due: float) -> None:
        self._due[await self._send_one()] = due

    async def _send_one(self) -> UUID:
        return await self._broadcasts.send(EMERGENCY, Targeting(), PEOPLE, WEDDING)

    async def _look(self, count: int) -> None:
        """Take the time of each that has arrived, until all have."""
        while len(self._took_ms) < count:
            if self._due:
                arrived = await self._broadcasts.arrived(list(self._due))
                now = perf_counter()
                for broadcast_id in [each for each, people in arrived.items() if people == PEOPLE]:
                    self._took_ms.append((now - self._due.pop(broadcast_id)) * 1e3)
            await asyncio.sleep(POLL_S)


class _Running:
    finished = 0


@asynccontextmanager
async def _running(low: Broadcasts) -> AsyncIterator[_Running]:
    """As many low broadcasts to everyone as there should be, always: one that has ended is followed by the next."""
    running, turns = _Running(), asyncio.Lock()

    async def keep_one() -> None:
        while True:
            broadcast_id = await low.send(ERRAND, Targeting(everyone=True), RECIPIENTS)
            while True:
                async with turns:
                    if await low.is_closed(broadcast_id):
                        break
                await asyncio.sleep(0.05)
            running.finished += 1

    keeping = [asyncio.create_task(keep_one()) for _ in range(LOW)]
    try:
        await asyncio.sleep(0.5)
        yield running
    finally:
        for task in keeping:
            task.cancel()
        ended = await asyncio.gather(*keeping, return_exceptions=True)
    failed = [outcome for outcome in ended if not isinstance(outcome, asyncio.CancelledError)]
    if failed:
        raise RuntimeError("a low broadcast did not go through") from failed[0]
