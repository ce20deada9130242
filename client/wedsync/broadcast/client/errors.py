"""The errors that a call can end with: gRPC's own, each with what the service has said about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DOMAIN: Final = "broadcast.wedsync"
_STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
CLOSED: Final = "This client is closed."
"""What a ConfigurationError says of every call after `close`."""


class ConfigurationError(ValueError):
    """The client was told something that cannot work, or was closed: the call was not made."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One broken field: `field` is its path in the request (`targeting.user_ids[3]`), `description` the rule."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """One limit that is used up: `subject` says whose, `description` which and until when."""

    subject: str
    description: str


class BroadcastError(grpc.aio.AioRpcError):
    """A call has failed. What handles gRPC's errors handles this one as well."""

    def __init__(
        self,
        code: grpc.StatusCode,
        initial_metadata: grpc.aio.Metadata | None = None,
        trailing_metadata: grpc.aio.Metadata | None = None,
        details: str | None = None,
        debug_error_string: str | None = None,
    ) -> None:
        """Takes what gRPC's own takes; all else is read from `trailing_metadata`."""
        super().__init__(code, initial_metadata, trailing_metadata, details, debug_error_string)
        self.message: str = details or ""
        """What went wrong, in a sentence."""
        self.reason: str = ""
        """An ErrorReason without its prefix, such as OUTSIDE_REACH; empty when it was no service that said so."""
        self.metadata: Mapping[str, str] = {}
        """What goes with the reason, such as the reset_time of a limit."""
        self.violations: tuple[FieldViolation, ...] = ()
        """Every broken field of the request."""
        self.quota: tuple[QuotaViolation, ...] = ()
        """The limits that are used up."""
        self.retry_after: timedelta | None = None
        """When to come again, if the service said so."""
        for detail in _details(trailing_metadata):
            self._take(detail)

    def _take(self, detail: object) -> None:
        match detail:
            case error_details_pb2.ErrorInfo(domain=domain) if domain == _DOMAIN:
                self.reason, self.metadata = detail.reason, dict(detail.metadata)
            case error_details_pb2.BadRequest():
                self.violations = tuple(
                    FieldViolation(each.field, each.description) for each in detail.field_violations
                )
            case error_details_pb2.QuotaFailure():
                self.quota = tuple(
                    QuotaViolation(each.subject, each.description) for each in detail.violations
                )
            case error_details_pb2.RetryInfo():
                self.retry_after = detail.retry_delay.ToTimedelta()
            case _:
                pass

    def __str__(self) -> str:
        """`INVALID_ARGUMENT (INVALID_FIELD): The request …: title: must be …`, on one line."""
        reason = f" ({self.reason})" if self.reason else ""
        fields = "".join(f" {each.field}: {each.description}." for each in self.violations)
        return f"{self.code().name}{reason}: {self.message}{fields}"


class Unauthenticated(BroadcastError):
    """The token is missing, expired, or none that the suite takes."""


class PermissionDenied(BroadcastError):
    """This identity may not do this, or the request names a wedding or segment outside its reach."""


class NotFound(BroadcastError):
    """There is no such thing, or it is not this caller's to see."""


class InvalidRequest(BroadcastError):
    """The request breaks a rule; `violations` names every field that does."""


class Conflict(BroadcastError):
    """It cannot be done as things stand: a state, an etag, or a request_id that was used for something else."""


class Exhausted(BroadcastError):
    """Too much; `retry_after` says when there is room again, if there will be."""


class RateLimited(Exhausted):
    """The sender's limit of such broadcasts is used up; `quota` names it, `metadata` has what is left."""


class Overloaded(Exhausted):
    """A server has as many calls or streams as it takes just now, or its reader was too slow."""


class Unavailable(BroadcastError):
    """The service could not be reached, or was cut off: call again, with the same request_id if there was one."""


class DeadlineExceeded(Unavailable):
    """The call took longer than its deadline; it may have been done all the same."""


_BY_REASON: Final[Mapping[str, type[BroadcastError]]] = {
    "RATE_LIMITED": RateLimited,
    "TOO_MANY_CALLS": Overloaded,
    "TOO_MANY_STREAMS": Overloaded,
    "SLOW_READER": Overloaded,
}
_BY_CODE: Final[Mapping[grpc.StatusCode, type[BroadcastError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    # What its caller has cancelled raises no error: a server that goes, or has far too much to do, ends calls so.
    grpc.StatusCode.CANCELLED: Unavailable,
}


def error_of(error: grpc.aio.AioRpcError) -> BroadcastError:
    """The same error by its class of this module."""
    if isinstance(error, BroadcastError):
        return error
    untyped = BroadcastError(
        error.code(),
        error.initial_metadata(),
        error.trailing_metadata(),
        error.details(),
        error.debug_error_string(),
    )
    kind = _BY_REASON.get(untyped.reason) or _BY_CODE.get(error.code())
    if kind is not None:
        # The classes differ in what they are called, and in nothing that they hold.
        untyped.__class__ = kind
    return untyped


def _details(trailers: grpc.aio.Metadata | None) -> Iterator[object]:
    for key, value in trailers or ():
        if key != _STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            packed = status_pb2.Status.FromString(value).details
        except DecodeError:
            continue  # Some proxy's; the status itself says enough.
        for each in packed:
            for kind in _KINDS:
                detail = kind()
                if each.Unpack(detail):
                    yield detail


_KINDS: Final = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.QuotaFailure,
    error_details_pb2.RetryInfo,
)
