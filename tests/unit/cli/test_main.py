"""How the command ends when nobody listens to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WRITES = """
import sys
import typer
import cli.main
from cli import output
from cli.exits import ExitCode, Failure
from wedsync.broadcast.v1.inbox_pb2 import InboxItem

def app():
    {says}

cli.main.app = app
cli.main.main()
"""
UNREAD = {
    "a sentence": 'output.console.print("said"); raise Failure("Not reached.", ExitCode.INVALID)',
    "a table": 'output.table(("id",), [("said",)]); raise Failure("Not reached.", ExitCode.INVALID)',
    "JSON": 'output.print_json(InboxItem(title="said")); raise Failure("Not reached.", ExitCode.INVALID)',
    "a number": 'output.console.print_plain("3"); raise Failure("Not reached.", ExitCode.INVALID)',
}


def _ended(command: list[str], *, is_read: bool, is_complained_to: bool = True) -> tuple[int, str]:
    """The exit status and what was complained, with nobody at the other end of what is not read."""
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=buffered,
        stdout=subprocess.PIPE if is_read else writing,
        stderr=subprocess.PIPE if is_complained_to else writing,
        text=True,
        check=False,
    )
    os.close(writing)
    return ended.returncode, ended.stderr or ""


def _python(says: str) -> list[str]:
    return [sys.executable, "-c", WRITES.format(says=says)]


@pytest.mark.parametrize("says", UNREAD.values(), ids=UNREAD)
def test_an_answer_that_nobody_reads_to_its_end_is_no_failure(says: str) -> None:
    """As `broadcast inbox list | head -1` under pipefail wants it; nothing is said of it, and nothing done after it."""
    assert _ended(_python(says), is_read=False) == (0, "")


def test_a_failure_stays_one_when_nobody_reads() -> None:
    """Neither what is said nor what is complained has to be read for it."""
    fails = 'raise Failure("No.", ExitCode.INVALID)'
    assert _ended(_python(fails), is_read=False) == (3, "No.\n")
    assert _ended(_python(fails), is_read=False, is_complained_to=False) == (3, "")
    complains = 'output.errors.print("Interrupted.", style="dim"); raise Failure("No.", ExitCode.INVALID)'
    assert _ended(_python(complains), is_read=True, is_complained_to=False) == (3, "")


def test_what_typer_prints_by_itself_may_go_unread() -> None:
    """Its help too; what it complains of is a failure, read or not."""
    command = [sys.executable, "-m", "cli.main"]
    assert _ended([*command, "--help"], is_read=False) == (0, "")
    assert _ended([*command, "inbox", "list", "--help"], is_read=False) == (0, "")
    code, _ = _ended([*command, "inbox", "read-everything"], is_read=False, is_complained_to=False)
    assert code != 0
