"""Peak memory of each service while broadcasts to a hundred thousand and to a million people go out."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.broadcasts import PAYMENT, Broadcasts
from bench.peak_memory import forget_peak, peak_mib
from bench.population import Audience, prepare
from bench.report import Bound, Result, Row, summarize
from bench.site import mailer, service, started
from stack.background import BackgroundStack

SCENARIO: Final = "memory"
RECIPIENTS: Final = 1_000_000
SERVICES: Final = ("sender", "preferences", "dispatcher", "inbox")
BOUNDED: Final = ("dispatcher", "inbox")
SMALL, LARGE = "100,000", "1,000,000"
WARM_UP: Final = 3
RUNS: Final = 5
FULL_RUNS: Final = 20
MOST_MIB: Final = 250.0
MOST_GROWTH_MIB: Final = 60.0


async def run(full: bool, console: Console) -> Result:
    """Starts a stack with a million recipients and measures."""
    with started(RECIPIENTS, console) as stack:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        async with (
            grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as sender,
            grpc.aio.insecure_channel(stack.environment["PREFERENCES_ADDR"]) as directory,
        ):
            with console.status("preparing audiences"):
                writer = service(stack, ["directory.write", "directory.admin"])
                prepared = await prepare(DirectoryServiceStub(directory), writer, RECIPIENTS)
                audiences = {audience.name: audience for audience in prepared}
            broadcasts = await Broadcasts.open(connection, SenderServiceStub(sender), mailer(stack))
            with console.status("measuring"):
                # The smaller first: what a process has taken once it need not give back.
                await _peaks(stack, broadcasts, audiences["10"], WARM_UP)
                small, large = [
                    await _peaks(stack, broadcasts, audiences[name], FULL_RUNS if full else RUNS)
                    for name in (SMALL, LARGE)
                ]
        await connection.close()
    return Result(
        scenario=SCENARIO,
        title="Peak resident memory of all processes of a service during a broadcast",
        rows=list(_rows(small, large)),
        bounds=list(_bounds(small, large)),
        unit="MiB",
        settings={"recipients": RECIPIENTS, "full": full},
    )


async def _peaks(
    stack: BackgroundStack, broadcasts: Broadcasts, audience: Audience, runs: int
) -> dict[str, list[float]]:
    """The peaks of each service, one a broadcast."""
    peaks: dict[str, list[float]] = {name: [] for name in SERVICES}
    for _ in range(runs):
        processes = {name: stack.services(name) for name in SERVICES}
        for process in chain.from_iterable(processes.values()):
            forget_peak(process.pid)
        broadcast_id = await broadcasts.send(PAYMENT, audience.targeting, audience.size)
        await broadcasts.arrive(broadcast_id, audience.size)
        await broadcasts.settle()
        for name, found in processes.items():
            peaks[name].append(sum(peak_mib(process.pid) for process in found))
    return peaks


def _rows(small: Mapping[str, list[float]], large: Mapping[str, list[float]]) -> Iterator[Row]:
    for name in SERVICES:
        for case, peaks in ((SMALL, small[name]), (LARGE, large[name])):
            yield Row(f"{name}, {case}", summarize(peaks))


def _bounds(small: Mapping[str, list[float]], large: Mapping[str, list[float]]) -> Iterator[Bound]:
    for name in BOUNDED:
        yield Bound(f"{name} at {LARGE}", max(large[name]), MOST_MIB, "MiB")
        growth = max(large[name]) - max(small[name])
        yield Bound(f"{name} from {SMALL} to {LARGE}", growth, MOST_GROWTH_MIB, "MiB")
