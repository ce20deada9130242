"""Log lines: one JSON object each with what every line has, from us and from libraries, and nobody's data."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context
from io import StringIO
from typing import Any

import pytest
import structlog

import shared.logging
from shared.logging import canonical, configure, correlation_id

QUOTING = "duplicate key\nDETAIL:  Key (email)=(ana@example.com) already exists."
"""What asyncpg says of a unique index."""


def fail() -> None:
    """Raises what holds somebody's data."""
    raise ValueError(QUOTING)


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leaves logging as it was for the other tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(shared.logging, "_write_canonical", None)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> StringIO:
    """Where the lines of a configured process go."""
    target = StringIO()
    configure("sender", log_format="json", stream=target)
    return target


def lines_in(stream: StringIO) -> list[dict[str, Any]]:
    """The lines, each read as JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_is_an_event_with_fields(stream: StringIO) -> None:
    """Time, level, event and service come first, then what the event is about."""
    structlog.get_logger().info("broadcast_accepted", broadcast_id="b1", recipients=10)
    (line,) = lines_in(stream)
    assert list(line) == ["at", "level", "event", "service", "broadcast_id", "recipients"]
    assert (line["level"], line["event"], line["service"]) == ("info", "broadcast_accepted", "sender")
    assert line["at"].endswith("+00:00")


def test_canonical_line_looks_like_any_other(stream: StringIO) -> None:
    """The shorter way writes the same form."""
    structlog.get_logger().warning("rpc", method="S/M", ms=1.5)
    canonical("warning", "rpc", {"method": "S/M", "ms": 1.5})
    first, second = lines_in(stream)
    assert {**first, "at": ""} == {**second, "at": ""}


def test_canonical_line_is_written_without_configuration() -> None:
    """In a test or a script it goes wherever structlog writes."""
    with structlog.testing.capture_logs() as lines:
        canonical("info", "rpc", {"method": "S/M"})
    assert lines == [{"event": "rpc", "log_level": "info", "method": "S/M"}]


def test_lines_of_one_call_share_its_id(stream: StringIO) -> None:
    """The correlation id is on every line of the context that set it, and on no other."""

    def call() -> None:
        correlation_id.set("c0ffee")
        structlog.get_logger().info("inside")

    copy_context().run(call)
    structlog.get_logger().info("outside")
    assert [line.get("correlation_id") for line in lines_in(stream)] == ["c0ffee", None]


@pytest.mark.parametrize("field", ["title", "message", "email", "phone", "token", "password", "display_name"])
def test_personal_fields_are_withheld(stream: StringIO, field: str) -> None:
    """A field that would show a person, a text or a secret is written without its value, by either way."""
    structlog.get_logger().info("slip", **{field: "Ana's secret"})
    canonical("info", "slip", {field: "Ana's secret"})
    assert [line[field] for line in lines_in(stream)] == ["[withheld]"] * 2


def test_traceback_leaves_out_what_postgres_quotes(stream: StringIO) -> None:
    """The error is there with its place in the code; the row's values are not."""
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("internal_error")
    (line,) = lines_in(stream)
    assert "ValueError: duplicate key" in line["exception"]
    assert "test_logging.py" in line["exception"]
    assert "ana@example.com" not in stream.getvalue()


def test_libraries_write_the_same_form(stream: StringIO) -> None:
    """What asyncio, grpc and the rest log is routed: warnings and worse, with the logger's name."""
    logging.getLogger("nats.client").info("chatter")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    (line,) = lines_in(stream)
    assert (line["level"], line["event"], line["service"], line["logger"]) == (
        "error",
        "Task exception was never retrieved",
        "sender",
        "asyncio",
    )


def test_exception_of_a_library_is_cleaned_too(stream: StringIO) -> None:
    """Also on this way nothing that Postgres quotes gets out."""
    try:
        fail()
    except ValueError:
        logging.getLogger("asyncio").exception("lost")
    (line,) = lines_in(stream)
    assert "ValueError: duplicate key" in line["exception"]
    assert "ana@example.com" not in stream.getvalue()


def test_values_that_json_has_not_are_written_as_text(stream: StringIO) -> None:
    """A UUID or an exception in a field does not cost the line."""
    structlog.get_logger().info("odd", error=ValueError("x"), when=asyncio.Lock)
    assert lines_in(stream)[0]["error"] == "x"


def test_debug_lines_are_not_written(stream: StringIO) -> None:
    """Info is the least that is logged."""
    structlog.get_logger().debug("detail")
    assert stream.getvalue() == ""


def test_terminal_gets_lines_for_people() -> None:
    """On a terminal there is no JSON, unless it is asked for."""
    terminal = Terminal()
    configure("sender", stream=terminal)
    structlog.get_logger().info("serving", listen="127.0.0.1:5001")
    assert "serving" in terminal.getvalue()
    assert "{" not in terminal.getvalue()
