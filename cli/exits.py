"""The exit codes that a script can rely on, and how a refused call becomes one of them."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from wedsync.broadcast.client import (
    BroadcastError,
    Conflict,
    Exhausted,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


class ExitCode(IntEnum):
    """What a script can tell apart."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    INVALID = 3
    DENIED = 4
    NOT_FOUND = 5
    CONFLICT = 6
    EXHAUSTED = 7
    UNAVAILABLE = 8
    BROKEN = 9
    INTERRUPTED = 130


_BY_KIND: Final[Mapping[type[BroadcastError], ExitCode]] = {
    InvalidRequest: ExitCode.INVALID,
    Unauthenticated: ExitCode.DENIED,
    PermissionDenied: ExitCode.DENIED,
    NotFound: ExitCode.NOT_FOUND,
    Conflict: ExitCode.CONFLICT,
    Exhausted: ExitCode.EXHAUSTED,
    Unavailable: ExitCode.UNAVAILABLE,
}


class Failure(Exception):
    """A command that ends with a message and an exit code; `fields` are broken fields with their rules."""

    def __init__(self, message: str, code: ExitCode, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.fields = fields


def failure_of(error: BroadcastError) -> Failure:
    """The failure that a refused call is: its sentence, its reason, and every field that it names."""
    codes = (code for kind, code in _BY_KIND.items() if isinstance(error, kind))
    reason = f" ({error.reason})" if error.reason else ""
    message = f"{error.code().name}{reason}: {error.message}"
    if error.retry_after is not None:
        message += f" Try again in {error.retry_after.total_seconds():g} s."
    fields = tuple((violation.field, violation.description) for violation in error.violations)
    return Failure(message, next(codes, ExitCode.UNEXPECTED), fields)
