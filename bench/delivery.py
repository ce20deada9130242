"""Send accepted → durable in every recipient's inbox, beside the same work as one row per recipient, interleaved."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from uuid import UUID, uuid4

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Priority
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.population import Audience, prepare
from bench.report import Bound, Result, Row, summarize
from bench.site import Metadata, administrator, service, started
from shared.queries import load

SCENARIO = "delivery"
RECIPIENTS = 1_000_000
POLL_S = 0.0005
DEADLINE_S = 120.0
# The rows take ten seconds for the largest, and its shape does not need more.
RUNS = {"10": 40, "1,000": 40, "10,000 dense": 40, "10,000 scattered": 40, "100,000": 15, "1,000,000": 5}
ROWS_RUNS = {"10": 40, "1,000": 20, "10,000 dense": 10, "10,000 scattered": 10, "100,000": 5, "1,000,000": 2}
FULL_FACTOR = 3
WARM_UP = 3
_QUERIES = load(Path(__file__).with_name("queries.sql"), schema="bench")


@dataclass(slots=True)
class Samples:
    """Milliseconds of one audience: the call, from its answer to durable, both together, and the baseline."""

    send: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)


class Delivery:
    """The scenario on a running stack."""

    def __init__(self, connection: asyncpg.Connection, sender: SenderServiceStub, metadata: Metadata) -> None:
        self._connection = connection
        self._sender = sender
        self._metadata = metadata

    async def ours(self, audience: Audience, samples: Samples) -> None:
        """One broadcast, until the last inbox has it."""
        await self._settled()
        request = SendBroadcastRequest(
            request_id=str(uuid4()),
            # An essential type reaches the inbox whatever a person has muted, so the audience is of the exact size.
            type="payment.required",
            priority=Priority.PRIORITY_HIGH,
            title="Your subscription is due",
            message="Please update your payment details to keep your account active.",
            targeting=audience.targeting,
        )
        started = perf_counter()
        answer = await self._sender.SendBroadcast(request, metadata=self._metadata, timeout=30)
        accepted = perf_counter()
        if answer.targeted_users != audience.size:
            raise RuntimeError(f"{audience.name}: {answer.targeted_users} people are targeted")
        await self._durable(UUID(answer.broadcast.broadcast_id), audience.size)
        samples.send.append((accepted - started) * 1e3)
        samples.durable.append((perf_counter() - accepted) * 1e3)

    async def _durable(self, broadcast_id: UUID, size: int) -> None:
        deadline = perf_counter() + DEADLINE_S
        while (arrived := await self._connection.fetchval(_QUERIES["count_arrived"], broadcast_id)) < size:
            if perf_counter() > deadline:
                raise RuntimeError(f"{broadcast_id}: {arrived} of {size} after {DEADLINE_S:g} s")
            await asyncio.sleep(POLL_S)

    async def _settled(self) -> None:
        deadline = perf_counter() + DEADLINE_S
        while await self._connection.fetchval(_QUERIES["count_outstanding"]):
            if perf_counter() > deadline:
                raise RuntimeError("a broadcast before this one is still on its way")
            await asyncio.sleep(0.01)

    async def rows(self, audience: Audience, samples: Samples) -> None:
        """The same people as rows of one statement, committed."""
        broadcast_id = uuid4()
        started = perf_counter()
        await self._connection.execute(
            _QUERIES["insert_rows"], broadcast_id, audience.name, timeout=DEADLINE_S
        )
        samples.rows.append((perf_counter() - started) * 1e3)
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
            with console.status("preparing audiences and the table of rows"):
                await _make_rows(connection)
                writer = service(stack, ["directory.write", "directory.admin"])
                audiences = await prepare(DirectoryServiceStub(directory), writer, RECIPIENTS)
                await _resolve_members(connection, audiences)
            samples = await _measure(
                Delivery(connection, SenderServiceStub(sender), administrator(stack)),
                audiences,
                full,
                console,
            )
        await connection.close()
    rows = [_row(audience, each) for audience, each in zip(audiences, samples, strict=True)]
    return Result(
        scenario=SCENARIO,
        title="Send accepted → durable in every inbox",
        rows=rows,
        bounds=_bounds({row.case: row for row in rows}),
        baseline="rows",
        settings={"recipients": RECIPIENTS, "full": full, "priority": "high"},
    )


def _row(audience: Audience, samples: Samples) -> Row:
    facts = {"send p50": summarize(samples.send).median}
    return Row(audience.name, summarize(samples.durable), summarize(samples.rows), facts)


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
