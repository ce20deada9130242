"""Whether this process can do its work, told from checks of what it depends on."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from shared.errors import DependencyUnavailable
from shared.metrics import DEPENDENCY_UP

log = structlog.get_logger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# The health service's name for the process as a whole.
OVERALL = ""


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that must answer. Without a `required` one nothing can be served; without another, some things slower.

    `check` returns when the dependency is well and raises when it is not.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    required: bool = True


async def check_serving(channel: grpc.aio.Channel) -> None:
    """Returns when the service behind a channel says that it serves; DependencyUnavailable otherwise."""
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    if answer.status != _SERVING:
        raise DependencyUnavailable


class HealthMonitor:
    """Checks every dependency again and again and keeps the health service truthful.

    The process (`""`) and each of its services are SERVING while every required dependency answers; each dependency
    is also told under its own name. Until the first round has ended nothing is SERVING.
    """

    def __init__(
        self, dependencies: Sequence[Dependency], *, every_s: float = 2.0, timeout_s: float = 1.0
    ) -> None:
        """A check that takes longer than `timeout_s` has failed."""
        self.servicer = health_aio.HealthServicer()
        self._dependencies = tuple(dependencies)
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._services: list[str] = [OVERALL]
        self._up: dict[str, bool] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self, services: Sequence[str]) -> None:
        """Makes a first round, then goes on in the background; `services` are full gRPC service names."""
        self._services = [OVERALL, *services]
        await self._tell_services(_NOT_SERVING)
        await self.check()
        self._task = asyncio.create_task(self._watch(), name="health")

    async def check(self) -> None:
        """Makes one round: all checks at the same time."""
        results = await asyncio.gather(*(self._answers(each) for each in self._dependencies))
        for dependency, is_up in zip(self._dependencies, results, strict=True):
            await self._tell(dependency.name, is_up)
        required = [is_up for each, is_up in zip(self._dependencies, results, strict=True) if each.required]
        await self._tell_services(_SERVING if all(required) else _NOT_SERVING)

    async def leave(self) -> None:
        """Says NOT_SERVING for good, because the process is about to end."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.servicer.enter_graceful_shutdown()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.check()

    async def _answers(self, dependency: Dependency) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await dependency.check()
        except Exception as error:  # noqa: BLE001 any failure means that it is not well
            if self._up.get(dependency.name, True):
                log.warning("dependency_lost", dependency=dependency.name, error=type(error).__name__)
            return False
        if not self._up.get(dependency.name, True):
            log.info("dependency_restored", dependency=dependency.name)
        return True

    async def _tell(self, name: str, is_up: bool) -> None:
        self._up[name] = is_up
        DEPENDENCY_UP.labels(name).set(is_up)
        await self.servicer.set(name, _SERVING if is_up else _NOT_SERVING)

    async def _tell_services(self, status: int) -> None:
        for service in self._services:
            await self.servicer.set(service, status)
