"""Processes that are kept running: restarted, given up, stopped in order."""

import asyncio
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from stack.errors import ServerFailedError
from stack.processes import Program, RunningProgram, Server, spawn
from stack.supervisor import RestartPolicy, Supervisor

_DEADLINE_S = 15.0
_POLICY = RestartPolicy(fast_s=10, limit=3, first_pause_s=0.01, longest_pause_s=0.01, ready_timeout_s=5)
_WAIT = "import signal; print('ready', flush=True); signal.pause()"
_END_ON_REQUEST = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print(time.monotonic_ns(), flush=True), sys.exit(0)))
print('ready', flush=True)
while True: signal.pause()
"""


class Standin:
    """A small program in place of a server; ready when it has said so."""

    def __init__(self, name: str, source: str, folder: Path) -> None:
        self.name = name
        self.starts: list[RunningProgram] = []
        command = (sys.executable, "-S", "-c", source)
        self._program = Program(name, command, {}, folder, folder / f"{name}.log", stop_timeout_s=0.5)

    def spawn(self) -> RunningProgram:
        """Start it and remember the process."""
        self.starts.append(spawn(self._program))
        return self.starts[-1]

    def is_ready(self) -> bool:
        """Whether the latest process has said that it is."""
        return "ready" in self.starts[-1].log_tail()


class Observed:
    """A supervisor and what it reported."""

    def __init__(self) -> None:
        self.restarts: list[tuple[str, int]] = []
        self.after: list[str] = []
        self.supervisor = Supervisor(self._restarting, self._restarted, _POLICY)

    def _restarting(self, name: str, code: int, _pause_s: float) -> None:
        self.restarts.append((name, code))

    async def _restarted(self, server: Server) -> None:
        self.after.append(server.name)


@pytest.fixture
async def observed() -> AsyncIterator[Observed]:
    """A supervisor that is stopped in the end."""
    observed = Observed()
    yield observed
    await observed.supervisor.stop()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_ends_by_itself_is_started_again(observed: Observed, tmp_path: Path) -> None:
    """A killed process is replaced, the person is told, and what must follow a restart follows."""
    server = Standin("server", _WAIT, tmp_path)
    observed.supervisor.keep([server])
    await observed.supervisor.until_ready([server])
    server.starts[0].force_to_stop()
    await _until(lambda: len(server.starts) == 2 and server.is_ready())
    await _until(lambda: observed.after)
    assert observed.restarts == [("server", -signal.SIGKILL)]
    assert observed.after == ["server"]


async def test_being_shot_is_no_reason_to_give_up(observed: Observed, tmp_path: Path) -> None:
    """A process that was well each time comes back however often somebody kills it."""
    server = Standin("target", _WAIT, tmp_path)
    observed.supervisor.keep([server])
    await observed.supervisor.until_ready([server])
    for _ in range(_POLICY.limit + 1):
        observed.after.clear()
        server.starts[-1].force_to_stop()
        await _until(lambda: observed.after)
    assert _POLICY.limit + 2 == len(server.starts)


async def test_what_cannot_stay_is_given_up_with_the_end_of_its_log(
    observed: Observed, tmp_path: Path
) -> None:
    """After the limit of fast crashes the last words of the program are what the person sees."""
    server = Standin("broken", "import sys; sys.exit('the cause')", tmp_path)
    observed.supervisor.keep([server])
    with pytest.raises(ServerFailedError, match="broken ended with code 1, 3 times in a row") as caught:
        async with asyncio.timeout(_DEADLINE_S):
            await observed.supervisor.until_ready([server])
    assert "the cause" in caught.value.remedy
    assert len(server.starts) == 3


async def test_bad_settings_are_given_up_at_once(observed: Observed, tmp_path: Path) -> None:
    """A service that says its settings are wrong would say so again."""
    server = Standin("misled", "import sys; print('X must be a port', flush=True); sys.exit(78)", tmp_path)
    observed.supervisor.keep([server])
    with pytest.raises(ServerFailedError, match="misled cannot work with its settings") as caught:
        async with asyncio.timeout(_DEADLINE_S):
            await observed.supervisor.until_ready([server])
    assert "X must be a port" in caught.value.remedy
    assert len(server.starts) == 1


async def test_what_never_becomes_ready_is_an_error(tmp_path: Path) -> None:
    """Waiting has an end."""
    policy = RestartPolicy(ready_timeout_s=0.2)
    observed = Observed()
    observed.supervisor = Supervisor(observed._restarting, observed._restarted, policy)
    server = Standin("mute", "import signal; signal.pause()", tmp_path)
    observed.supervisor.keep([server])
    try:
        with pytest.raises(ServerFailedError, match=r"mute was not ready after 0\.2 s"):
            await observed.supervisor.until_ready([server])
    finally:
        await observed.supervisor.stop()


async def test_a_failure_interrupts_other_work(observed: Observed, tmp_path: Path) -> None:
    """While the stack runs, a process that cannot stay ends the waiting."""
    observed.supervisor.keep([Standin("broken", "raise SystemExit(1)", tmp_path)])
    with pytest.raises(ServerFailedError):
        async with asyncio.timeout(_DEADLINE_S):
            await observed.supervisor.while_kept(asyncio.Event().wait())


async def test_groups_stop_in_the_reverse_order_of_their_start(observed: Observed, tmp_path: Path) -> None:
    """The first started is the last to go, and each is asked before it is killed."""
    first, second = Standin("first", _END_ON_REQUEST, tmp_path), Standin("second", _END_ON_REQUEST, tmp_path)
    observed.supervisor.keep([first])
    observed.supervisor.keep([second])
    await observed.supervisor.until_ready([first, second])
    await observed.supervisor.stop()
    assert [each.starts[0].exit_code() for each in (first, second)] == [0, 0]
    stopped = [int((tmp_path / f"{name}.log").read_text().split()[-1]) for name in ("first", "second")]
    assert stopped[1] < stopped[0]


async def test_what_does_not_stop_in_time_is_killed(observed: Observed, tmp_path: Path) -> None:
    """A process that ignores the request holds nobody up for longer than its timeout."""
    source = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    server = Standin("stubborn", source, tmp_path)
    observed.supervisor.keep([server])
    await observed.supervisor.until_ready([server])
    await observed.supervisor.stop()
    assert server.starts[0].exit_code() == -signal.SIGKILL
    assert len(server.starts) == 1


async def test_hurrying_ends_the_patience(observed: Observed, tmp_path: Path) -> None:
    """A second Ctrl-C does not wait for anybody."""
    source = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    server = Standin("slow", source, tmp_path)
    server._program = dataclasses.replace(server._program, stop_timeout_s=3600.0)
    observed.supervisor.keep([server])
    await observed.supervisor.until_ready([server])
    stopping = asyncio.create_task(observed.supervisor.stop())
    await asyncio.sleep(0)
    async with asyncio.timeout(_DEADLINE_S):
        while not stopping.done():
            observed.supervisor.hurry()
            await asyncio.sleep(0.01)
    assert server.starts[0].exit_code() == -signal.SIGKILL
