"""Owns child processes: each in a session of its own, logging to a file, and dead when its parent is."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
    stop_timeout_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL


class RunningProgram:
    """A started program: ask it to stop, wait for it, read the end of its log."""

    def __init__(self, program: Program, process: subprocess.Popen[bytes], log_start: int) -> None:
        self.program = program
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._log_start = log_start
        self._exit_code: int | None = None

    @property
    def pid(self) -> int:
        """The number of the process, which stays its own until its exit code has been taken."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self.wait(0)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once it has ended, or None if it still runs after `timeout_s`."""
        if self._exit_code is None and select.select([self._pidfd], [], [], timeout_s)[0]:
            self._bury()
        return self._exit_code

    async def exited(self) -> int:
        """Wait without a limit for the exit code."""
        if self._exit_code is None:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            loop.add_reader(self._pidfd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._pidfd)
        return self._bury()

    def ask_to_stop(self) -> None:
        """Send the program's stop signal; returns at once."""
        if self.exit_code() is None:
            self._process.send_signal(self.program.stop_signal)

    def force_to_stop(self) -> None:
        """End the program and everything in its group; returns at once."""
        if self._exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the program and everything in its group, and take its exit code."""
        self._bury()

    def stop(self) -> None:
        """Ask, wait as long as the program may take, then kill."""
        self.ask_to_stop()
        self.wait(self.program.stop_timeout_s)
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

    def failure(self, happened: str) -> ServerFailedError | NoSpaceError:
        """The error for a program that failed: a full disk when its log says so, else the end of its log."""
        tail = self.log_tail()
        if "No space left on device" in tail:
            return NoSpaceError(self.program.folder)
        return ServerFailedError(self.program.name, happened, self.program.log, tail)

    def _bury(self) -> int:
        """Take the exit code, after killing the group: until then its number cannot belong to anybody else."""
        self.force_to_stop()
        if self._exit_code is None:
            self._exit_code = self._process.wait()
            os.close(self._pidfd)
        return self._exit_code


class Server(Protocol):
    """Something that can be started and then takes a moment until it is ready."""

    @property
    def name(self) -> str:
        """What people call it."""

    def spawn(self) -> RunningProgram:
        """Start it; returns before it is ready."""

    def is_ready(self) -> bool:
        """Whether it can be used now; may block for a second."""


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


def run_to_end(program: Program, timeout_s: float) -> None:
    """Run a program that ends by itself; a failure or a timeout is an error with the end of its log."""
    running = spawn(program)
    code = running.wait(timeout_s)
    running.kill()
    if code is None:
        raise running.failure(f"did not end within {timeout_s:g} s")
    if code != 0:
        raise running.failure(f"ended with code {code}")


def start(server: Server, timeout_s: float = 60.0) -> RunningProgram:
    """Start a server and return once it is ready; its ending first, or the timeout, is an error."""
    running = server.spawn()
    deadline = time.monotonic() + timeout_s
    while not server.is_ready():
        code = running.wait(_POLL_S)
        if code is not None:
            raise running.failure(f"ended with code {code} before it was ready")
        if time.monotonic() > deadline:
            running.kill()
            raise running.failure(f"was not ready after {timeout_s:g} s")
    return running


def _launch_command(program: Program) -> list[str]:
    identity = program.identity
    uid, gid = (identity.uid, identity.gid) if identity else (-1, -1)
    numbers = (os.getpid(), int(program.death_signal), program.niceness, uid, gid)
    return [sys.executable, "-I", "-S", str(_LAUNCH), *map(str, numbers), *program.command]
