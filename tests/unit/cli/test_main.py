"""How the command ends."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ENDS_BADLY = """
import os, sys
import cli.main

def app():
    print("said")
    sys.exit(0)

cli.main.app = app
try:
    cli.main.main()
finally:
    os._exit(139)
"""


def test_what_was_said_is_out_whatever_becomes_of_the_process() -> None:
    """Into a pipe as well, which nothing is written to line by line."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", ENDS_BADLY]
    ended = subprocess.run(command, cwd=ROOT, env=buffered, stdout=subprocess.PIPE, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("said\n", 139)
