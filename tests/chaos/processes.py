"""Owns the run's service processes: keeps each running, and can kill, hold and pause it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from stack.services import ServiceProcess, ServiceServer, Surroundings
from tests.chaos.arming import Arming
from tests.chaos.ending import end
from tests.chaos.nursery import Nursery

_RESTART_PAUSE_S: Final = 0.05
_TROUBLED_PAUSE_S: Final = 0.3
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended, at which moment of Unix time, by which failpoint if by one, and with which code."""

    process: str
    at: float
    failpoint: str | None
    code: int

    @property
    def is_killed(self) -> bool:
        """Whether it was killed, and did not end by itself."""
        return self.code == -signal.SIGKILL


class KeptProcess:
    """One process of the table, started again whenever it ends, unless it is held."""

    def __init__(
        self,
        process: ServiceProcess,
        surroundings: Surroundings,
        nursery: Nursery,
        arming: Arming,
        on_death: Callable[[Death], None],
    ) -> None:
        self.name = process.name
        self.service = process.service
        self._server = ServiceServer(process, surroundings)
        self._environment = surroundings.environment(process)
        self._declared = surroundings.logs / f"{process.name}.declared"
        self._log = surroundings.logs / f"{process.name}.log"
        self._nursery = nursery
        self._arming = arming
        self._on_death = on_death
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._running: ForkServerProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Keep it running from now on."""
        self._task = asyncio.create_task(self._keep(), name=f"keep-{self.name}")

    @property
    def is_running(self) -> bool:
        """Whether there is a process now, ready or not."""
        return self._running is not None

    async def until_ready(self) -> None:
        """Return when it serves."""
        while not (self.is_running and await asyncio.to_thread(self._server.is_ready)):
            self.check()
            await asyncio.sleep(_POLL_S)

    def declared(self) -> list[str]:
        """The failpoints that it has declared at its last start."""
        return self._declared.read_text(encoding="utf-8").split()

    @property
    def age_s(self) -> float:
        """How long it has run since it was started last."""
        return time.monotonic() - self._started if self.is_running else 0.0

    def signal(self, which: signal.Signals) -> bool:
        """Send a signal; whether there was a process to send it to."""
        if self._running is None or self._running.pid is None:
            return False
        try:
            os.kill(self._running.pid, which)
        except ProcessLookupError:  # it has just ended, and that is about to be noticed
            return False
        return True

    def check(self) -> None:
        """Raise what went wrong with keeping it."""
        if self._task is not None and self._task.done():
            self._task.result()

    def hold(self) -> None:
        """Kill it, and do not start it again until `release`."""
        self._may_run.clear()
        self.signal(signal.SIGKILL)

    def release(self) -> None:
        """Let it run again."""
        self._may_run.set()

    async def stop(self) -> None:
        """End it for good."""
        if self._task is not None:
            await end([self._task])
        if self._running is not None:
            self._running.kill()
            await asyncio.to_thread(self._running.join, 5.0)

    async def _keep(self) -> None:
        while True:
            await self._may_run.wait()
            armed = self._arming.take(self.name, self.service)
            self._running = self._nursery.start(self.service, self._with(armed), self._log)
            pid, self._started = self._running.pid or 0, time.monotonic()
            code = await _ended(self._running)
            self._running = None
            failpoint = self._arming.note_end(self.name, self.service, pid)
            death = Death(self.name, time.time(), failpoint, code)
            self._on_death(death)
            await asyncio.sleep(_RESTART_PAUSE_S if death.is_killed else _TROUBLED_PAUSE_S)

    def _with(self, armed: str) -> Mapping[str, str]:
        return {
            **self._environment,
            "LOG_FORMAT": "json",
            "BROADCAST_FAILPOINTS": armed,
            "BROADCAST_FAILPOINTS_LOG": str(self._arming.log),
            "BROADCAST_FAILPOINTS_DECLARED": str(self._declared),
        }


async def _ended(process: ForkServerProcess) -> int:
    """The exit code, negative for a signal, once it has ended."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()
    return process.exitcode or 0


def table(settings: Mapping[str, Mapping[str, str]]) -> Sequence[ServiceProcess]:
    """Two of every service of which several may run, on one port each; all of them do everything."""

    def of(service: str, count: int) -> list[ServiceProcess]:
        names = [service] if count == 1 else [f"{service}-{n}" for n in range(1, count + 1)]
        return [ServiceProcess(name, service, service, settings[service]) for name in names]

    return [*of("preferences", 1), *of("inbox", 2), *of("sender", 2), *of("dispatcher", 2)]


def log_files(logs: Path) -> list[Path]:
    """What the services have written."""
    return sorted(logs.glob("*.log"))
