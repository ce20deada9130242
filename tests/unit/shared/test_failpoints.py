"""Failpoints: nothing when unarmed, exactly what was asked when armed, and proof that it happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.failpoints import (
    EXIT_STATUS,
    BadFailpoints,
    FailpointError,
    Fault,
    armed,
    check_declared,
    declare,
    failpoint,
    parse,
    read_environment,
)

ONE, TWO = declare("test.one", "test.two")

PROGRAM = """
import asyncio
from shared.failpoints import check_declared, declare, failpoint
declare("test.child")
check_declared()
async def main():
    for turn in range(3):
        await failpoint("test.child")
        print(turn, flush=True)
asyncio.run(main())
"""


def start(spec: str, log: Path) -> subprocess.Popen[str]:
    """A process that passes test.child three times."""
    environment = {**os.environ, "BROADCAST_FAILPOINTS": spec, "BROADCAST_FAILPOINTS_LOG": str(log)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


async def test_unarmed_it_does_nothing() -> None:
    """A failpoint that no one armed passes."""
    await failpoint(ONE)


async def test_an_error_fires_on_its_hit_only() -> None:
    """@2 raises the second time and lets the others pass; the hits are counted."""
    with armed("test.one=error@2") as plan:
        await failpoint(ONE)
        with pytest.raises(FailpointError, match=r"test\.one"):
            await failpoint(ONE)
        await failpoint(ONE)
        await failpoint(TWO)
        assert dict(plan.hits) == {ONE: 3}
    await failpoint(ONE)


async def test_a_delay_delays() -> None:
    """The delay is awaited before the code goes on."""
    started = time.monotonic()
    with armed("test.one=delay:0.05"):
        await failpoint(ONE)
    assert time.monotonic() - started >= 0.05


async def test_a_step_can_be_left_out() -> None:
    """`skip` tells the caller, on its hit only, to go on as if the step that follows had been lost."""
    assert await failpoint(ONE) is False
    with armed("test.one=skip@2"):
        assert [await failpoint(ONE) for _ in range(3)] == [False, True, False]


async def test_a_forked_process_is_armed_by_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read at import is another environment's: reading again arms what this one says."""
    monkeypatch.setenv("BROADCAST_FAILPOINTS", "test.one=error")
    with armed("test.two=error"):
        read_environment()
        with pytest.raises(FailpointError, match=r"test\.one"):
            await failpoint(ONE)
        await failpoint(TWO)


def test_a_process_tells_what_it_has_declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever wants every failpoint to fire can read which there are."""
    told = tmp_path / "declared"
    monkeypatch.setenv("BROADCAST_FAILPOINTS_DECLARED", str(told))
    check_declared()
    assert {ONE, TWO} <= set(told.read_text(encoding="utf-8").split())


async def test_a_name_that_nobody_declared_is_an_error() -> None:
    """A typo in a test or in the code is told, not passed over."""
    with pytest.raises(BadFailpoints, match=r"test\.unknown"), armed("test.unknown=error"):
        pass
    with armed("test.one=error"), pytest.raises(BadFailpoints, match=r"test\.unknown"):
        await failpoint("test.unknown")


@pytest.mark.parametrize(
    "text", ["test.one", "test.one=explode", "a=kill:2", "a=delay", "a=kill@0", "a=kill;a=exit"]
)
def test_what_cannot_be_read_is_an_error(text: str) -> None:
    """Each malformed value is refused whole."""
    with pytest.raises(BadFailpoints):
        parse(text)


def test_several_can_be_armed() -> None:
    """The form that the documentation gives is understood."""
    assert parse(" a.b=kill@3; c=error ;x=delay:0.5;") == {
        "a.b": Fault("kill", hit=3),
        "c": Fault("error"),
        "x": Fault("delay", seconds=0.5),
    }


@pytest.mark.parametrize(
    ("spec", "status", "turns", "line"),
    [
        ("test.child=kill@2", -signal.SIGKILL, "0\n", "test.child kill 2"),
        ("test.child=exit@3", EXIT_STATUS, "0\n1\n", "test.child exit 3"),
    ],
)
def test_a_process_dies_where_it_was_told_to(
    spec: str, status: int, turns: str, line: str, tmp_path: Path
) -> None:
    """The armed hit ends the process at once, and the log proves that it was the failpoint."""
    log = tmp_path / "fired"
    process = start(spec, log)
    printed, _ = process.communicate(timeout=20)
    assert (process.returncode, printed) == (status, turns)
    assert log.read_text(encoding="utf-8") == f"{line} {process.pid}\n"


def test_a_paused_process_goes_on_when_told(tmp_path: Path) -> None:
    """`pause` stops the whole process, as a stalled machine would, until SIGCONT."""
    process = start("test.child=pause@1", tmp_path / "fired")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    printed, _ = process.communicate(timeout=20)
    assert (process.returncode, printed) == (0, "0\n1\n2\n")


def test_an_unknown_name_stops_a_process_at_start(tmp_path: Path) -> None:
    """check_declared refuses to run with a failpoint that cannot fire."""
    process = start("test.other=kill", tmp_path / "fired")
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "BadFailpoints: no module declares test.other" in errors
