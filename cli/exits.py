"""The exit codes that a script can rely on, and how a refused call becomes one of them."""

from enum import IntEnum

import grpc
from google.rpc.status_pb2 import Status

from shared.errors import ServiceError, from_rich_status

_DETAILS_KEY = "grpc-status-details-bin"


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


_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.INVALID,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.INVALID,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.DENIED,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.DENIED,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: ExitCode.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: ExitCode.CONFLICT,
    grpc.StatusCode.ABORTED: ExitCode.CONFLICT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNAVAILABLE,
}


class Failure(Exception):
    """A command that ends with a message and an exit code; `fields` are broken fields with their rules."""

    def __init__(self, message: str, code: ExitCode, fields: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.fields = fields


def failure_of(error: grpc.aio.AioRpcError) -> Failure:
    """The failure that a refused call is: its sentence, its reason, and every field that it names."""
    code = _BY_STATUS.get(error.code(), ExitCode.UNEXPECTED)
    known = _service_error(error)
    if known is None:
        return Failure(f"{error.code().name}: {error.details()}", code)
    fields = tuple((violation.field, violation.description) for violation in known.violations)
    message = f"{error.code().name} ({known.reason_name}): {known.message}"
    if known.retry_after_s is not None:
        message += f" Try again in {known.retry_after_s:g} s."
    return Failure(message, code, fields)


def cursor_of(error: grpc.aio.AioRpcError) -> str | None:
    """Where to resume a stream that ended with this error, if it says so."""
    known = _service_error(error)
    return known.metadata.get("cursor") if known else None


def _service_error(error: grpc.aio.AioRpcError) -> ServiceError | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return from_rich_status(Status.FromString(value))
    return None
