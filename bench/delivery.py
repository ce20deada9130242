"""Send accepted → durable in every recipient's inbox, beside the same work as one row per recipient, interleaved."""

import asyncio
import gc
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.broadcasts import DEADLINE_S, PAYMENT, Broadcasts
from bench.disk import calm
from bench.population import Audience, prepare
from bench.report import Bound, Result, Row, summarize
from bench.site import mailer, service, started
from shared.queries import load
from stack.background import BackgroundStack

SCENARIO = "delivery"
RECIPIENTS = 1_000_000
# The rows take seconds for the largest, and its shape does not need more.
RUNS = {"10": 40, "1,000": 40, "10,000 dense": 40, "10,000 scattered": 40, "100,000": 15, "1,000,000": 5}
ROWS_RUNS = {"10": 20, "1,000": 10, "10,000 dense": 10, "10,000 scattered": 10, "100,000": 5, "1,000,000": 2}
FULL_FACTOR = 3
WARM_UP = 3
STARTS = 3
# What each service's health must say: that it serves, and that it reaches those whom it calls.
HEALTH = {
    "preferences": ("",),
    "inbox": ("", "sender", "preferences"),
    "sender": ("", "preferences"),
    "dispatcher": ("", "sender", "preferences", "dispatcher_due_high", "dispatcher_report"),
}
_QUERIES = load(Path(__file__).with_name("queries.sql"), schema="bench")


@dataclass(slots=True)
class Samples:
    """Milliseconds of one audience: the call, from its answer to durable, and the baseline."""

    send: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)


class Delivery:
    """Both ways to deliver on a running stack."""

    def __init__(self, connection: asyncpg.Connection, broadcasts: Broadcasts) -> None:
        self._connection = connection
        self._broadcasts = broadcasts

    async def ours(self, audience: Audience, samples: Samples) -> None:
        """One broadcast, until the last inbox has it."""
        await self._broadcasts.settle()
        started_at = perf_counter()
        broadcast_id = await self._broadcasts.send(PAYMENT, audience.targeting, audience.size)
        accepted = perf_counter()
        await self._broadcasts.arrive(broadcast_id, audience.size, min(samples.durable, default=0.0) / 1e3)
        samples.durable.append((perf_counter() - accepted) * 1e3)
        samples.send.append((accepted - started_at) * 1e3)

    async def rows(self, audience: Audience, samples: Samples) -> None:
        """The same people as rows of one statement, committed."""
        broadcast_id = uuid4()
        started_at = perf_counter()
        await self._connection.execute(
            _QUERIES["insert_rows"], broadcast_id, audience.name, timeout=DEADLINE_S
        )
        samples.rows.append((perf_counter() - started_at) * 1e3)
        await self._connection.execute(_QUERIES["remove_rows"], broadcast_id, timeout=DEADLINE_S)
        await self._connection.execute(_QUERIES["clean_rows"], timeout=DEADLINE_S)


async def run(full: bool, console: Console) -> Result:
    """Starts a stack with a million recipients and measures."""
    with started(RECIPIENTS, console) as stack:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        async with (
            grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as sender,
            grpc.aio.insecure_channel(stack.environment["PREFERENCES_ADDR"]) as directory,
        ):
            broadcasts = await Broadcasts.open(connection, SenderServiceStub(sender), mailer(stack))
            with console.status("preparing audiences and the table of rows"):
                await _make_rows(connection)
                writer = service(stack, ["directory.write", "directory.admin"])
                audiences = await prepare(DirectoryServiceStub(directory), writer, RECIPIENTS)
                await _resolve_members(connection, audiences)
                await broadcasts.settle_disk()
                disk = await calm(stack.state.path)
            delivery = Delivery(connection, broadcasts)
            gc.freeze()
            samples = await _measure(delivery, audiences, full, console)
            with console.status("measuring what the first broadcast after a start costs"):
                first = await _after_starts(stack, delivery, audiences[0])
        await connection.close()
    rows = [_row(audience, each) for audience, each in zip(audiences, samples, strict=True)]
    return Result(
        scenario=SCENARIO,
        title="Send accepted → durable in every inbox",
        rows=[*rows, Row("10, the first after a start", summarize(first.durable), facts=_facts(first))],
        bounds=_bounds({row.case: row for row in rows}),
        baseline="rows",
        settings={
            "recipients": RECIPIENTS,
            "full": full,
            "priority": "high",
            "fsync_ms": asdict(disk),
        },
    )


def _row(audience: Audience, samples: Samples) -> Row:
    return Row(audience.name, summarize(samples.durable), summarize(samples.rows), _facts(samples))


def _facts(samples: Samples) -> dict[str, float]:
    return {"send p50": summarize(samples.send).median}


def _bounds(rows: Mapping[str, Row]) -> list[Bound]:
    bounds = []
    for case in ("10,000 dense", "10,000 scattered"):
        bounds += [
            Bound(f"{case} p50", rows[case].ours.median, 30.0),
            Bound(f"{case} p99", rows[case].ours.p99, 100.0),
        ]
    everyone = rows["1,000,000"]
    return [
        *bounds,
        Bound("1,000,000 p50", everyone.ours.median, 1_000.0),
        Bound("1,000,000 beside rows", everyone.ratio or 0.0, 20.0, "times faster", is_least=True),
    ]


async def _measure(
    delivery: Delivery, audiences: list[Audience], full: bool, console: Console
) -> list[Samples]:
    samples = [Samples() for _ in audiences]
    factor = FULL_FACTOR if full else 1
    for audience in audiences:
        for _ in range(WARM_UP):
            await delivery.ours(audience, Samples())
    rounds = factor * max(RUNS.values())
    with console.status("measuring") as status:
        for turn in range(rounds):
            for audience, each in zip(audiences, samples, strict=True):
                status.update(f"measuring: round {turn + 1} of {rounds}, {audience.name}")
                if turn < factor * RUNS[audience.name]:
                    await delivery.ours(audience, each)
                if turn < factor * ROWS_RUNS[audience.name]:
                    await delivery.rows(audience, each)
    return samples


async def _after_starts(stack: BackgroundStack, delivery: Delivery, audience: Audience) -> Samples:
    """The first broadcast after all services have been started anew, a few times."""
    samples = Samples()
    for _ in range(STARTS):
        for name in HEALTH:
            stack.kill(name)
        await _serving(stack)
        await delivery.ours(audience, samples)
    return samples


async def _serving(stack: BackgroundStack) -> None:
    """Return once every service says that it can serve, and reaches the others."""
    deadline = perf_counter() + DEADLINE_S
    for name, parts in HEALTH.items():
        address = stack.environment[f"{name.upper()}_ADDR"]
        while not all([await _is_serving(address, part) for part in parts]):
            if perf_counter() > deadline:
                raise RuntimeError(f"{name} does not serve after {DEADLINE_S:g} s")
            await asyncio.sleep(0.1)


async def _is_serving(address: str, part: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=part)
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=1.0)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _make_rows(connection: asyncpg.Connection) -> None:
    await connection.execute(_QUERIES["make_schema"])
    await connection.execute(_QUERIES["make_rows_table"])
    await connection.execute(_QUERIES["index_rows_by_recipient"])
    await connection.execute(_QUERIES["index_rows_by_broadcast"])
    await connection.execute(_QUERIES["fill_rows"], uuid4(), timeout=DEADLINE_S)
    await connection.execute(_QUERIES["clean_rows"], timeout=DEADLINE_S)


async def _resolve_members(connection: asyncpg.Connection, audiences: list[Audience]) -> None:
    await connection.execute(_QUERIES["make_members_table"])
    for audience in audiences:
        await connection.execute(
            _QUERIES["resolve_members"],
            audience.name,
            audience.word,
            list(audience.user_ids),
            timeout=DEADLINE_S,
        )
    await connection.execute(_QUERIES["analyze_members"])
