"""`broadcast admin bootstrap`: what an operator is told, and by which exit code a script knows it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from uuid import uuid4

import pytest

from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite

ADA = str(uuid4())


@pytest.fixture
async def suite(make_suite: MakeSuite) -> SuiteDatabase:
    """A database with an empty directory."""
    return await make_suite("preferences")


def bootstrap(database_url: str, *arguments: str, as_json: bool = False) -> tuple[int, list[str]]:
    """The exit status and what is said."""
    whole = [*(["--json"] if as_json else []), "admin", "bootstrap", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *whole],
        env={"PATH": os.environ["PATH"], "COLUMNS": "200", "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


async def test_the_first_admin_is_made_once(suite: SuiteDatabase) -> None:
    """0 the first time; 6 from then on, with the way by which others are made."""
    arguments = ("--user", ADA, "--name", "Ada", "--time-zone", "Europe/Vienna")
    assert bootstrap(suite.admin_url, *arguments) == (
        0,
        [f"{ADA} is the first admin: recipient 1, new in the directory."],
    )
    for user in (ADA, str(uuid4())):
        status, said = bootstrap(suite.admin_url, "--user", user, "--name", "Ada")
        assert (status, said[0]) == (6, "There is an admin already.")


async def test_a_script_reads_who_was_made(suite: SuiteDatabase) -> None:
    """One JSON object a line, for what has been done and for what was refused."""
    arguments = ("--user", ADA, "--name", "Ada")
    status, (said,) = bootstrap(suite.admin_url, *arguments, as_json=True)
    assert (status, json.loads(said)) == (0, {"user_id": ADA, "number": 1, "is_new": True})
    status, said = bootstrap(suite.admin_url, *arguments, as_json=True)
    assert (status, json.loads("".join(said))["exit_code"]) == (6, 6)


async def test_somebody_unknown_needs_a_name(suite: SuiteDatabase) -> None:
    """5, as for whatever is not there, and what to do."""
    assert bootstrap(suite.admin_url, "--user", ADA) == (
        5,
        [f"The directory does not know {ADA}.", "To make them known, add --name."],
    )


def test_an_entry_that_breaks_rules_is_told_by_its_fields() -> None:
    """3, all of them at once, by the rules that UpsertRecipients has; nothing was asked of the database for it."""
    status, said = bootstrap(
        "postgresql://nowhere.invalid/x", "--user", ADA, "--name", "", "--time-zone", "Mars/Olympus"
    )
    assert (status, said) == (
        3,
        [
            "The first admin breaks a rule of the directory.",
            "  display_name: must be at least 1 characters",
            "  time_zone: must be a time zone of the IANA database, such as Europe/Vienna",
        ],
    )


def test_what_is_missing_is_named(make_database: Callable[[str], str]) -> None:
    """2 for a command that is not whole, 8 for a database that is not there or has no directory yet."""
    assert bootstrap("", "--user", ADA) == (2, ["DATABASE_URL is not set."])
    assert bootstrap("x", "--user", "Ada")[0] == 2
    status, said = bootstrap(make_database("empty"), "--user", ADA, "--name", "Ada")
    assert (status, said[-1]) == (8, "Run `broadcast admin provision` first.")
    status, said = bootstrap("postgresql://postgres@127.0.0.1:1/x", "--user", ADA, "--name", "Ada")
    assert (status, said[0].startswith("PostgreSQL at 127.0.0.1:1 does not let the stack in")) == (8, True)
