"""Log lines as events with fields: JSON unless on a terminal, one stream for ours and the libraries', nobody's data."""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from shared.settings import Environment

# The id that ties together every line about one call or message; it travels with calls to other services.
correlation_id: ContextVar[str | None] = ContextVar("correlation_id", default=None)

# Fields that would put a person or what they are told into the logs. A defect elsewhere must not get that far.
_WITHHELD = frozenset(
    {
        "address", "authorization", "body", "couple_name", "display_name", "email", "full_name", "message",
        "password", "phone", "secret", "text", "title", "token", "url",
    }
)  # fmt: skip
# Postgres quotes the values of the row in question on a line of this kind.
_QUOTING_LINES = ("DETAIL:", "CONTEXT:", "HINT:")

_encode = json.JSONEncoder(default=str, ensure_ascii=False, separators=(",", ":")).encode
_write_canonical: Callable[[str, EventDict], None] | None = None


def read_format(env: Environment) -> str | None:
    """LOG_FORMAT: json or console; None when it is not set, which leaves the choice to where the lines go."""
    return env.choice("LOG_FORMAT", ("json", "console"), "json") if env.optional_text("LOG_FORMAT") else None


def configure(service: str, *, log_format: str | None = None, stream: TextIO | None = None) -> None:
    """Routes every log line of this process to `stream` (stdout), as `log_format` json or console, or as fits it."""
    global _write_canonical  # noqa: PLW0603 a process has one log
    target = stream or sys.stdout
    if log_format is None:
        log_format = "console" if target.isatty() else "json"
    complete, render = _completer(service), _renderer(log_format)
    structlog.configure(
        processors=[complete, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=True,
    )
    _route_libraries(target, complete, render)

    def write_canonical(level: str, event: EventDict) -> None:
        target.write(f"{render(None, level, complete(None, level, event))!s}\n")
        target.flush()

    _write_canonical = write_canonical


def canonical(level: str, event: str, fields: EventDict) -> None:
    """Writes the one line that a call or a message leaves: as any other, by a shorter way, for there are many."""
    if _write_canonical is None:
        getattr(structlog.get_logger(), level)(event, **fields)
    else:
        _write_canonical(level, {"event": event, **fields})


def _completer(service: str) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    """The step that adds what every line has and takes out what none may have."""
    render_exception = structlog.processors.ExceptionRenderer(_render_exception)

    def complete(logger: WrappedLogger, level: str, event: EventDict) -> EventDict:
        line: EventDict = {
            "at": datetime.now(UTC).isoformat(),
            "level": level,
            "event": event.pop("event", ""),
            "service": service,
        }
        identifier = correlation_id.get()
        if identifier is not None:
            line["correlation_id"] = identifier
        if "exc_info" in event:
            render_exception(logger, level, event)
        for field in event.keys() & _WITHHELD:
            event[field] = "[withheld]"
        line.update(event)
        return line

    return complete


def _renderer(log_format: str) -> Processor:
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(timestamp_key="at")
    return lambda _logger, _level, event: _encode(event)


def _route_libraries(target: TextIO, complete: Processor, render: Processor) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, complete],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def _render_exception(exc_info: ExcInfo) -> str:
    lines = "".join(traceback.format_exception(*exc_info)).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(_QUOTING_LINES))
