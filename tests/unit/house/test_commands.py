"""What a person types at the root of the repository, and what continuous integration runs."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TARGETS = ("run", "test", "verify", "protos", "migrate", "bench", "chaos", "lint", "reset", "wheel")
SETTINGS = ("ARGS", "MAKE", "MFLAGS", "MINUTES", "RECIPIENTS")


def make(*arguments: str) -> str:
    """What make says; it must succeed. The settings of a make that runs these tests are kept away from it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=inherited, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_make_alone_lists_what_can_be_typed() -> None:
    """Every target that a person needs is in the help, on a line that says what it does."""
    lines = dict(re.findall(r"^  make (\w+) +(\S.*)$", make(), re.MULTILINE))
    assert lines.keys() >= set(TARGETS)
    assert all(len(f"  make {name:8} {text}") <= 120 for name, text in lines.items())


def test_make_test_runs_every_check_and_ends_on_pytest() -> None:
    """The last line that a person sees is the outcome of the tests, after checks that any of could have stopped it."""
    commands = re.findall(r"^\.venv/bin/(.+?) *$", make("--dry-run", "test"), re.MULTILINE)
    checks = (
        "ruff check", "ruff format --check", "mypy", "lint-imports", "python protos/generate.py --check",
        "python protos/check.py", "squawk", "pytest -q tests/unit/house",
    )  # fmt: skip
    for check in checks:
        assert any(command.startswith(check) for command in commands[:-1]), check
    assert commands[-1].startswith("pytest tests/")


def test_make_test_runs_each_test_once() -> None:
    """Whatever is in a folder of tests is in one of the runs of pytest, and in no other."""
    commands = re.findall(r"^\.venv/bin/pytest (tests/.+?) *$", make("--dry-run", "test"), re.MULTILINE)
    folders = [Path(folder) for command in commands for folder in command.split()]
    files = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")]
    assert {file: sum(folder in file.parents for folder in folders) for file in files} == dict.fromkeys(
        files, 1
    )


def test_tests_that_are_named_are_run_alone() -> None:
    """`make test ARGS=...` gives pytest what was typed, and runs nothing else of it."""
    assert make("--dry-run", "test", "ARGS=-k quiet_hours").endswith(".venv/bin/pytest -k quiet_hours\n")


def test_settings_typed_after_a_target_reach_the_program() -> None:
    """`make run RECIPIENTS=1000000` loads a million people."""
    assert make("--dry-run", "run", "RECIPIENTS=1000000").endswith("stack run --recipients 1000000 \n")


def test_continuous_integration_runs_make_test() -> None:
    """.ci/run can be executed, runs what everybody runs, and waits for no answer."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test </dev/null"
