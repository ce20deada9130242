"""Runs a whole stack as a child process, for tests and benchmarks that need one of their own."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from stack.environment import read_environment
from stack.errors import StackError
from stack.processes import Program, RunningProgram, spawn
from stack.state import CHECKOUT, StateFolder

_POLL_S = 0.1
_STOP_TIMEOUT_S = 60.0


class BackgroundStack:
    """A stack in a folder of its own that is gone afterwards. Enter it to start it and to wait until it serves."""

    def __init__(
        self,
        recipients: int,
        *,
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        ready_timeout_s: float = 120.0,
    ) -> None:
        """`settings` are environment variables for all its processes, `arguments` go to `stack run`.

        The loading of `recipients` counts as start.
        """
        # Not below the caller's temporary folder, which the user that Postgres runs as might not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="wedsync-stack-"))
        self._folder.chmod(0o711)
        self._recipients = recipients
        self._settings = dict(settings or {})
        self._arguments = tuple(arguments)
        self._ready_timeout_s = ready_timeout_s
        self._running: RunningProgram | None = None
        self.environment: dict[str, str] = {}

    @property
    def state(self) -> StateFolder:
        """Its state folder."""
        return StateFolder(self._folder / "state")

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self._folder / "output").read_text(errors="replace")

    def __enter__(self) -> Self:
        options = ("--state-dir", str(self.state.path), "--recipients", str(self._recipients))
        self._running = spawn(
            Program(
                name="stack",
                command=(sys.executable, "-m", "stack", "run", *options, *self._arguments),
                environment={**os.environ, **self._settings},
                folder=CHECKOUT,
                log=self._folder / "output",
                stop_signal=signal.SIGINT,
                stop_timeout_s=_STOP_TIMEOUT_S,
                death_signal=signal.SIGTERM,  # so that it stops in order when the caller is killed
            )
        )
        try:
            self._wait_until_ready(self._running)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def services(self, name: str) -> list[psutil.Process]:
        """The running processes of a service such as "sender"."""
        if self._running is None:
            return []
        module = f"services.{name}.main"
        children = psutil.Process(self._running.pid).children(recursive=True)
        return [child for child in children if module in _command(child)]

    def kill(self, name: str) -> int:
        """Ends every process of a service with SIGKILL; answers how many there were. The stack starts them again."""
        found = self.services(name)
        for process in found:
            process.kill()
        return len(found)

    def stop(self) -> None:
        """Ends it as Ctrl-C does, and removes its folder."""
        if self._running is not None:
            self._running.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_ready(self, running: RunningProgram) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        while not self.state.env.exists():
            if running.wait(_POLL_S) is not None or time.monotonic() > deadline:
                raise StackError("The stack did not start.", f"It printed:\n{self.output}")
        self.environment = read_environment(self.state.env)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
