"""Health tells the truth: what is required decides, what is not is only told, and the end is for good."""

import asyncio

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from structlog.testing import capture_logs

from shared.health import Dependency, HealthMonitor

SERVICE = "wedsync.broadcast.v1.InboxService"


class Switch:
    """A dependency that is up or down as a test says."""

    def __init__(self) -> None:
        self.is_up = True
        self.hangs = False

    async def check(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if not self.is_up:
            raise ConnectionRefusedError


class World:
    """A monitor of one dependency that is required and one that is not."""

    def __init__(self) -> None:
        self.postgres, self.redis = Switch(), Switch()
        dependencies = [
            Dependency("postgres", self.postgres.check),
            Dependency("redis", self.redis.check, required=False),
        ]
        self.monitor = HealthMonitor(dependencies, every_s=0.005, timeout_s=0.02)

    async def statuses(self) -> list[str]:
        """Of the process, the service, postgres and redis."""
        names = ("", SERVICE, "postgres", "redis")
        answers = [
            await self.monitor.servicer.Check(HealthCheckRequest(service=name), None) for name in names
        ]
        return [HealthCheckResponse.ServingStatus.Name(answer.status) for answer in answers]


UP, DOWN = "SERVING", "NOT_SERVING"


@pytest.fixture
def world() -> World:
    """Everything is up, nothing has been checked."""
    return World()


async def test_everything_up_is_serving(world: World) -> None:
    """After the first round the process, its service and each dependency say so."""
    await world.monitor.start([SERVICE])
    assert await world.statuses() == [UP, UP, UP, UP]
    await world.monitor.leave()


async def test_nothing_is_serving_before_the_first_round(world: World) -> None:
    """A process whose database has not answered yet gets no callers."""
    world.postgres.hangs = True
    starting = asyncio.create_task(world.monitor.start([SERVICE]))
    await asyncio.sleep(0)
    assert (
        await world.monitor.servicer.Check(HealthCheckRequest(), None)
    ).status == HealthCheckResponse.NOT_SERVING
    await starting
    await world.monitor.leave()


async def test_process_without_something_required_does_not_serve(world: World) -> None:
    """Postgres down: nothing is served."""
    world.postgres.is_up = False
    await world.monitor.start([SERVICE])
    assert await world.statuses() == [DOWN, DOWN, DOWN, UP]
    await world.monitor.leave()


async def test_process_without_something_optional_serves(world: World) -> None:
    """Redis down: still served, and told under its own name."""
    world.redis.is_up = False
    await world.monitor.start([SERVICE])
    assert await world.statuses() == [UP, UP, UP, DOWN]
    await world.monitor.leave()


async def test_check_that_hangs_has_failed(world: World) -> None:
    """No answer in time is no answer."""
    world.postgres.hangs = True
    await world.monitor.start([SERVICE])
    assert await world.statuses() == [DOWN, DOWN, DOWN, UP]
    await world.monitor.leave()


async def test_loss_and_return_are_seen_and_told_once(world: World) -> None:
    """The rounds go on: a dependency that goes and comes back changes the status twice and leaves two lines."""
    with capture_logs() as lines:
        await world.monitor.start([SERVICE])
        for is_up, expected in ((False, DOWN), (True, UP)):
            world.postgres.is_up = is_up
            async with asyncio.timeout(5):
                while await world.statuses() != [expected, expected, expected, UP]:
                    await asyncio.sleep(0.001)
            await world.monitor.check()
        await world.monitor.leave()
    told = [(line["event"], line["dependency"]) for line in lines]
    assert told == [("dependency_lost", "postgres"), ("dependency_restored", "postgres")]


async def test_process_that_leaves_never_serves_again(world: World) -> None:
    """Once it is on its way out, no round of checks brings it back."""
    await world.monitor.start([SERVICE])
    await world.monitor.leave()
    await world.monitor.check()
    assert (await world.statuses())[:2] == [DOWN, DOWN]
