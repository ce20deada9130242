"""Keeps processes running: starts them, restarts what ends by itself, gives up on what cannot stay, stops in order."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stack.processes import RunningProgram, Server

BAD_SETTINGS = 78
"""The exit code (EX_CONFIG of sysexits.h) of a service that would fail again in the same way."""

_READY_POLL_S = 0.05
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patient the supervisor is: `limit` runs in a row, each shorter than `fast_s`, are one too many."""

    fast_s: float = 10.0
    limit: int = 5
    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0
    ready_timeout_s: float = 120.0  # an index of a million people takes a while to build

    def pause_s(self, fast_crashes: int) -> float:
        """How long to wait before the next start."""
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** (fast_crashes - 1))


class Supervisor:
    """The processes of one stack, in groups that stop in the reverse order of their start."""

    def __init__(
        self,
        on_restart: Callable[[str, int, float], None],
        after_restart: Callable[[Server], Awaitable[None]],
        policy: RestartPolicy | None = None,
    ) -> None:
        """`on_restart` hears name, exit code and pause before a restart; `after_restart` runs when it is ready."""
        self._on_restart = on_restart
        self._after_restart = after_restart
        self._policy = policy or RestartPolicy()
        self._groups: list[list[_Kept]] = []

    def keep(self, servers: Sequence[Server]) -> None:
        """Start a group of processes, from the main thread, and keep them running."""
        group: list[_Kept] = []
        self._groups.append(group)
        for server in servers:
            kept = _Kept(server, server.spawn())
            kept.task = asyncio.create_task(self._keep(kept), name=f"keep-{server.name}")
            group.append(kept)

    async def until_ready(self, servers: Iterable[Server]) -> None:
        """Return when all are ready. Raises ServerFailedError for one that is given up or takes too long."""
        wanted = set(map(id, servers))
        kept = [each for each in self._all() if id(each.server) in wanted]
        await self.while_kept(self._all_ready(kept))

    async def while_kept(self, work: Coroutine[object, object, _Result]) -> _Result:
        """The result of `work`, or the error of the first process that had to be given up meanwhile."""
        working = asyncio.create_task(work)
        keepers = {each.task for each in self._all() if each.task is not None}
        try:
            finished, _ = await asyncio.wait({working, *keepers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not working.done():
                working.cancel()
                await asyncio.wait({working})
        for keeper in keepers & finished:
            keeper.result()
        return working.result()

    async def stop(self) -> None:
        """Stop every group, the last started first: ask, wait, kill."""
        tasks = [task for each in self._all() for task in (each.task, each.follow_up) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._groups:
            group = self._groups[-1]
            await asyncio.gather(*(_stop(each.running) for each in group))
            self._groups.pop()

    def hurry(self) -> None:
        """Let nothing take its time over stopping any more."""
        for each in self._all():
            each.running.force_to_stop()

    async def _keep(self, kept: "_Kept") -> None:
        fast_crashes = 0
        while True:
            started = time.monotonic()
            code = await kept.running.exited()
            if code == BAD_SETTINGS:
                raise kept.running.failure("cannot work with its settings")
            if time.monotonic() - started > self._policy.fast_s or kept.was_shot(code):
                fast_crashes = 0
            fast_crashes += 1
            if fast_crashes >= self._policy.limit:
                raise kept.running.failure(f"ended with code {code}, {fast_crashes} times in a row")
            pause_s = self._policy.pause_s(fast_crashes)
            self._on_restart(kept.server.name, code, pause_s)
            await asyncio.sleep(pause_s)
            kept.running, kept.was_ready = kept.server.spawn(), False
            if kept.follow_up is not None:
                kept.follow_up.cancel()
            kept.follow_up = asyncio.create_task(self._follow_up(kept), name=f"follow-{kept.server.name}")

    async def _follow_up(self, kept: "_Kept") -> None:
        with contextlib.suppress(TimeoutError):
            await self._until_ready(kept)
            await self._after_restart(kept.server)

    async def _all_ready(self, kept: Iterable["_Kept"]) -> None:
        await asyncio.gather(*(self._ready(each) for each in kept))

    async def _ready(self, kept: "_Kept") -> None:
        try:
            await self._until_ready(kept)
        except TimeoutError:
            raise kept.running.failure(f"was not ready after {self._policy.ready_timeout_s:g} s") from None

    async def _until_ready(self, kept: "_Kept") -> None:
        async with asyncio.timeout(self._policy.ready_timeout_s):
            while not await asyncio.to_thread(kept.server.is_ready):
                await asyncio.sleep(_READY_POLL_S)
        kept.was_ready = True

    def _all(self) -> list["_Kept"]:
        return [each for group in self._groups for each in group]


@dataclass(slots=True)
class _Kept:
    """A process, the task that keeps it running, and the one that does what must follow its last restart."""

    server: Server
    running: RunningProgram
    was_ready: bool = False
    task: asyncio.Task[None] | None = None
    follow_up: asyncio.Task[None] | None = None

    def was_shot(self, code: int) -> bool:
        """Whether somebody else ended a process that was well: no sign that it cannot stay."""
        return self.was_ready and code == -signal.SIGKILL


async def _stop(running: RunningProgram) -> None:
    running.ask_to_stop()
    try:
        async with asyncio.timeout(running.program.stop_timeout_s):
            await running.exited()
    except TimeoutError:
        running.kill()
