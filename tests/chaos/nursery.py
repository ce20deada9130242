"""Owns starting service processes fast: each is forked from a server that has imported the services already.

A process that is killed every second must not spend that second on imports. What it runs is the service's own `main`.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

from shared import failpoints
from shared.server import run_service

SERVICES: Final = ("sender", "preferences", "dispatcher", "inbox")


class Nursery:
    """Forks the processes of one run."""

    def __init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_module(service) for service in SERVICES])

    def start(self, service: str, environment: Mapping[str, str], log: Path) -> ForkServerProcess:
        """A running process; it ends with this one."""
        process = self._context.Process(
            target=_become, args=(service, dict(environment), str(log)), daemon=True
        )
        process.start()
        return process


def _module(service: str) -> str:
    return f"services.{service}.main"


def _end_with_parent() -> None:
    """The server that forked this one lives for as long as any of those that it has forked."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _become(service: str, environment: dict[str, str], log: str) -> None:
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)
    failpoints.read_environment()
    run_service(sys.modules[_module(service)].main)
