"""Child processes: their logs, their ends, and that none outlives its parent."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stack.errors import NoSpaceError, ServerFailedError
from stack.identity import Identity
from stack.processes import Program, run_to_end, spawn

_DEADLINE_S = 15.0


def _python(folder: Path, source: str, *, identity: Identity | None = None, niceness: int = 0) -> Program:
    return Program(
        name="child",
        command=(sys.executable, "-S", "-c", textwrap.dedent(source)),
        environment={"PATH": "/usr/bin:/bin"},
        folder=folder,
        log=folder / "child.log",
        identity=identity,
        niceness=niceness,
        stop_timeout_s=0.2,
    )


def _await(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_program_says_is_in_its_log(tmp_path: Path) -> None:
    """Both of its outputs go to the file."""
    run_to_end(
        _python(tmp_path, "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr)"), 10
    )
    assert (tmp_path / "child.log").read_text() == "out\nerr\n"


def test_a_failure_shows_the_end_of_this_runs_log(tmp_path: Path) -> None:
    """What an earlier run wrote into the same file is not held against this one."""
    run_to_end(_python(tmp_path, "print('an earlier run')"), 10)
    with pytest.raises(ServerFailedError, match="child ended with code 3") as caught:
        run_to_end(_python(tmp_path, "import sys; sys.stderr.write('no luck'); sys.exit(3)"), 10)
    assert "no luck" in caught.value.remedy
    assert "earlier" not in caught.value.remedy


def test_a_full_disk_in_the_log_is_said_to_be_one(tmp_path: Path) -> None:
    """A server that ran out of space is a matter of space, not of the server."""
    source = "import sys; sys.exit('could not extend file: No space left on device')"
    with pytest.raises(NoSpaceError):
        run_to_end(_python(tmp_path, source), 10)


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """The timeout is an error, and the program is gone."""
    with pytest.raises(ServerFailedError, match=r"did not end within 0\.2 s"):
        run_to_end(_python(tmp_path, "import signal; signal.pause()"), 0.2)


def test_what_ignores_the_request_to_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    """A program that will not end, and one that it has started, are both gone."""
    running = spawn(
        _python(
            tmp_path,
            """
            import os, signal, sys
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = os.fork()
            if child:
                print(child, flush=True)
            signal.pause()
            """,
        )
    )
    _await(lambda: running.log_tail().strip(), "the program has started")
    child = int(running.log_tail())
    running.stop()
    assert running.exit_code() == -signal.SIGKILL
    _await(lambda: not _is_alive(child), "its child is gone")


async def test_an_end_is_noticed_without_asking(tmp_path: Path) -> None:
    """`exited` answers the code, also when it is asked again."""
    running = spawn(_python(tmp_path, "import sys; sys.exit(7)"))
    async with asyncio.timeout(_DEADLINE_S):
        assert [await running.exited(), await running.exited()] == [7, 7]


def test_it_runs_nicer_than_its_parent(tmp_path: Path) -> None:
    """Lanes that may wait run at a lower priority of the system."""
    run_to_end(_python(tmp_path, "import os; print(os.nice(0))", niceness=10), 10)
    assert min(19, os.nice(0) + 10) == int((tmp_path / "child.log").read_text())


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_its_parent(tmp_path: Path, death: signal.Signals) -> None:
    """However the parent ends, the kernel ends what it had started, even what ignores every request."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _await(lambda: "ready" in (tmp_path / "child.log").read_text(), "the child has started")
        parent.send_signal(death)
    _await(lambda: not _is_alive(child), "the child is gone")


_PARENT = """
import signal, sys
from pathlib import Path
from stack.processes import Program, spawn
folder = Path(sys.argv[1])
source = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
command = (sys.executable, "-S", "-c", source)
running = spawn(Program("child", command, {}, folder, folder / "child.log"))
print(running.pid, flush=True)
signal.pause()
"""
