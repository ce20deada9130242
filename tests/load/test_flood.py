"""A server that is offered more than it can do: who is refused, how, and that it is well again afterwards."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from wedsync.broadcast.v1 import inbox_pb2

from shared.calls import CallLimits
from tests.integration.shared.edge import Counted, Edge, Refusal, read_refusal, refusal_of, serving

ASK = inbox_pb2.GetUnreadCountRequest()
WORK_S = 0.005
"""What a call keeps the server's event loop for: two hundred a second are all that it can do."""
OFFERED = 600
SECONDS = 4.0
DEADLINE_S = 1.0


async def work() -> Counted:
    """Keeps the event loop, as decoding and encoding do."""
    ended = time.perf_counter() + WORK_S
    while time.perf_counter() < ended:
        pass
    return Counted(unread_count=1)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A server whose every call is work."""
    async with serving(tmp_path) as running:
        running.inbox.count = work
        yield running


class Flood:
    """Calls that come at a fixed rate whatever comes back."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._metadata = edge.as_person()
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.refusals: list[Refusal] = []

    async def run(self, seconds: float) -> None:
        """Calls for that long, and waits for what is open."""
        started = due = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            while due < started + seconds:
                await asyncio.sleep(due - time.perf_counter())
                calls.create_task(self._call())
                due += 1 / OFFERED

    async def _call(self) -> None:
        try:
            await self._edge.stub.GetUnreadCount(ASK, metadata=self._metadata, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            self.codes[error.code()] += 1
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.refusals.append(read_refusal(error))
        else:
            self.codes[grpc.StatusCode.OK] += 1


async def test_flood_is_refused_clearly_and_leaves_no_trace(edge: Edge) -> None:
    """Calls beyond what can be done are told to come again, those within it are answered, and then all are."""
    flood = Flood(edge)
    await flood.run(SECONDS)
    assert flood.codes[grpc.StatusCode.OK] > 0
    assert flood.codes.keys() <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        # Those that came in the first moment, before anything had waited for long.
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    }
    assert {(each.reason, each.retry_after_s) for each in flood.refusals} == {("TOO_MANY_CALLS", 1.0)}
    async with asyncio.timeout(10):
        while edge.interceptor.traffic.calls.share:
            await asyncio.sleep(0.05)
    for _ in range(20):
        await edge.stub.GetUnreadCount(ASK, metadata=edge.as_person(), timeout=DEADLINE_S)


async def test_flood_keeps_neither_health_nor_the_suite_out(edge: Edge) -> None:
    """What is asked by those who run it, and by its own services, is answered whoever else calls."""
    flooding = asyncio.create_task(Flood(edge).run(SECONDS))
    async with asyncio.timeout(10):
        while edge.interceptor.traffic.calls.share < 0.3:
            await asyncio.sleep(0.05)
    health = HealthStub(edge.channel)
    internal = edge.as_service("internal")
    while not flooding.done():
        await health.Check(HealthCheckRequest(), timeout=5)
        refused = await refusal_of(
            edge.stub.GetEngagement(inbox_pb2.GetEngagementRequest(), metadata=internal, timeout=5)
        )
        # The test's servicer has it not, which is to say that the call came as far as that.
        assert refused.code in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT}
    await flooding


async def test_calls_that_wait_for_something_slow_do_not_pile_up(tmp_path: Path) -> None:
    """A few calls wait for what is slow, others for their turn, and those for a moment only."""
    release = asyncio.Event()

    async def slow() -> Counted:
        await release.wait()
        return Counted(unread_count=1)

    async with serving(tmp_path, limits=CallLimits(calls_at_once=2)) as edge:
        edge.inbox.count = slow
        metadata = edge.as_person()
        calls = [
            asyncio.create_task(refusal_of(edge.stub.GetUnreadCount(ASK, metadata=metadata, timeout=20)))
            for _ in range(40)
        ]
        done, running = await asyncio.wait(calls, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        async with asyncio.timeout(10):
            while len(running) > 2:
                done, running = await asyncio.wait(calls, timeout=0.1)
        assert {each.result().reason for each in done} == {"TOO_MANY_CALLS"}
        release.set()
        answered = await asyncio.gather(*running, return_exceptions=True)
        assert [type(each) for each in answered] == [AssertionError, AssertionError]
