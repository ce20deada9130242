"""Whether things are where one first looks for them, and small enough to be read."""

import ast
import re
from pathlib import Path

import pytest

from shared.migrations import read

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("bench", "cli", "client", "protos", "services", "shared", "stack", "tests")
SERVICES = ("dispatcher", "inbox", "preferences", "sender")
SERVICE_FILES = ("README.md", "config.py", "domain.py", "main.py", "migrations", "queries.sql", "store.py")
EDGES = ("servicer.py", "consumer.py")
MOST_LINES = 400
MEANINGLESS_NAMES = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
STATEMENT = re.compile(
    r"\s*(select\s.+\sfrom|insert\s+into|update\s.+\sset|delete\s+from|with\s+\w+\s+as|merge\s+into|copy\s+\w+|"
    r"truncate\s|grant\s|revoke\s|(create|alter|drop)\s+(table|index|schema|role|user|policy|function|type|database)|"
    r"set\s+(local|role|session)\b|listen\s+\w+$|notify\s+\w+)",
    re.IGNORECASE | re.DOTALL,
)


def modules(*rooms: str) -> list[Path]:
    """Every Python file of these folders that a person wrote."""
    found = (path for room in rooms for path in (ROOT / room).rglob("*.py"))
    return sorted(path for path in found if "_pb2" not in path.name)


def named(path: Path) -> str:
    """A path as it is written at the root of the repository."""
    return str(path.relative_to(ROOT))


def test_no_module_is_longer_than_one_can_hold_in_mind() -> None:
    """A module stops at 400 lines; what is longer owns more than one thing."""
    lengths = {named(path): len(path.read_text().splitlines()) for path in modules(*ROOMS)}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    """What a file owns is in its name."""
    assert [named(path) for path in modules(*ROOMS) if path.stem in MEANINGLESS_NAMES] == []
    assert [
        named(path) for path in (ROOT / "protos/wedsync").rglob("*.proto") if path.stem in {"utils", "misc"}
    ] == []


def test_every_statement_to_the_database_is_in_a_sql_file() -> None:
    """Whoever changes a table finds all that touches it in .sql files."""
    strays = [
        f"{named(path)}:{node.lineno}"
        for path in modules("bench", "cli", "client", "services", "shared", "stack")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.match(node.value)
    ]
    assert strays == []


@pytest.mark.parametrize(
    "text", ["SELECT 1 FROM t", "\n  insert into t values (1)", "SET LOCAL role x", "LISTEN due"]
)
def test_a_statement_is_recognised(text: str) -> None:
    """The check above can fail."""
    assert STATEMENT.match(text)


def test_services_take_the_time_from_a_clock_that_is_handed_in() -> None:
    """Rules can be tested at any moment, and leases agree: `shared.clock` or the database tells the time."""
    clocks = re.compile(r"\b(datetime\.now|datetime\.utcnow|date\.today|time\.time)\(")
    assert [named(path) for path in modules("services") if clocks.search(path.read_text())] == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_the_same_files(service: str) -> None:
    """Learn one service and you know four."""
    room = ROOT / "services" / service
    assert [name for name in SERVICE_FILES if not (room / name).exists()] == []
    for edge in EDGES:
        assert (room / edge).exists() or (room / edge).with_suffix("").is_dir(), edge


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_can_be_migrated_from_nothing(service: str) -> None:
    """Its migrations are there, numbered without gaps, and each opens with the reason for it."""
    assert read(ROOT / "services" / service / "migrations")
