"""Owns child processes: each in a session of its own, logging to a file, and dead when its parent is."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.errors import NoSpaceError, ServerFailedError, is_disk_full
from stack.identity import Identity

_LAUNCH = Path(__file__).with_name("launch.py")
_POLL_S = 0.02
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Program:
    """What to run and how it is to end.

    `death_signal` is what the kernel sends when the parent dies without saying goodbye, so it must not be one
    that the program may ignore for long.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    identity: Identity | None = None
    niceness: int = 0
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL


class RunningProgram:
    """A started program: ask it to stop, wait for it, read the end of its log."""

    def __init__(self, program: Program, process: subprocess.Popen[bytes], log_start: int) -> None:
        self.program = program
        self._process = process
        self._log_start = log_start

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once it has ended, or None if it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_stop(self) -> None:
        """Send the program's stop signal; returns at once."""
        if self.exit_code() is None:
            self._process.send_signal(self.program.stop_signal)

    def kill(self) -> None:
        """End the program and everything in its session's group now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, timeout_s: float) -> None:
        """Ask, wait up to `timeout_s`, then kill; whatever the program left in its group goes too."""
        self.ask_to_stop()
        self.wait(timeout_s)
        self.kill()

    def log_tail(self) -> str:
        """What this run wrote at the end of its log, at most 4 KiB."""
        try:
            with self.program.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - _TAIL_BYTES))
                return log.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""

    def failure(self, happened: str) -> ServerFailedError:
        """The error that tells what happened to this program, with the end of its log."""
        return ServerFailedError(self.program.name, happened, self.program.log, self.log_tail())


def spawn(program: Program) -> RunningProgram:
    """Start a program, from the main thread: the kernel ties the child's life to the thread that starts it."""
    try:
        program.log.parent.mkdir(parents=True, exist_ok=True)
        with program.log.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                _launch_command(program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=program.folder,
                env=dict(program.environment),
                start_new_session=True,
            )
    except OSError as error:
        if is_disk_full(error):
            raise NoSpaceError(program.log.parent) from error
        raise
    return RunningProgram(program, process, start)


def _launch_command(program: Program) -> list[str]:
    identity = program.identity
    uid, gid = (identity.uid, identity.gid) if identity else (-1, -1)
    numbers = (os.getpid(), int(program.death_signal), program.niceness, uid, gid)
    return [sys.executable, "-I", "-S", str(_LAUNCH), *map(str, numbers), *program.command]


def run_to_end(program: Program, timeout_s: float) -> None:
    """Run a program that ends by itself; a failure or a timeout is an error with the end of its log."""
    running = spawn(program)
    code = running.wait(timeout_s)
    if code is None:
        running.kill()
        raise running.failure(f"did not end within {timeout_s:g} s")
    if code != 0:
        raise failure_of(running, f"ended with code {code}")


def wait_until_ready(running: RunningProgram, is_ready: Callable[[], bool], timeout_s: float) -> None:
    """Poll `is_ready` until it holds; the program ending first, or the timeout, is an error."""
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        code = running.wait(_POLL_S)
        if code is not None:
            raise failure_of(running, f"ended with code {code} before it was ready")
        if time.monotonic() > deadline:
            raise running.failure(f"was not ready after {timeout_s:g} s")


def failure_of(running: RunningProgram, happened: str) -> ServerFailedError | NoSpaceError:
    """The error for a program that failed: a full disk when its log says so, else the end of its log."""
    if "No space left on device" in running.log_tail():
        return NoSpaceError(running.program.folder)
    return running.failure(happened)
