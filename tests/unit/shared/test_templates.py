"""Copies of the shared SQL: a migration that has the log, the outbox or requests has it as shared code expects it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MIGRATIONS = sorted(ROOT.glob("services/*/migrations/*.sql"))


def statements(path: Path) -> str:
    """The SQL of a file without comments and spacing."""
    code = re.sub(r"--[^\n]*", "", path.read_text(encoding="utf-8"))
    return " ".join(code.split())


@pytest.mark.parametrize(
    ("template", "mark", "owners"),
    [
        ("ordered_log_template.sql", "CREATE TABLE log_head", {"inbox", "preferences"}),
        ("outbox_template.sql", "CREATE TABLE outbox", {"sender", "preferences", "dispatcher"}),
        ("requests_template.sql", "CREATE FUNCTION take_requests", {"inbox", "preferences"}),
    ],
)
def test_copies_are_as_the_template(template: str, mark: str, owners: set[str]) -> None:
    """Whoever owns such tables has made them, word for word, from the template."""
    wanted = statements(ROOT / "shared" / "sql" / template)
    copies = [path for path in MIGRATIONS if mark in path.read_text(encoding="utf-8")]
    assert {path.parents[1].name for path in copies} >= owners
    assert [path.name for path in copies if wanted not in statements(path)] == []


def test_an_answer_holds_for_the_same_time_everywhere() -> None:
    """Also in the sender, which had answers before there was a template."""
    template = (ROOT / "shared" / "sql" / "requests_template.sql").read_text(encoding="utf-8")
    [wanted] = re.findall(r"CREATE FUNCTION answers_hold_after\b.*?\n(?=\n|\Z)", template, re.DOTALL)
    owners = {path.parents[1].name for path in MIGRATIONS if wanted in path.read_text(encoding="utf-8")}
    assert owners == {"sender", "inbox", "preferences"}
