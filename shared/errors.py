"""The errors that a call can end with: each with its status, its reason and the details that a client can act on."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from wedsync.broadcast.v1 import error_reason_pb2
from wedsync.broadcast.v1.error_reason_pb2 import ErrorReason

ERROR_DOMAIN = "broadcast.wedsync"
_REASON_PREFIX = "ERROR_REASON_"

# A status travels in HTTP/2 trailers, for which grpc clients keep 8 KiB by default; past that they drop the whole
# answer. These bounds leave room for base64 (4/3), percent-encoding and the other trailers.
_MESSAGE_BYTES = 400
_VIOLATIONS_BYTES = 3_600


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


class ServiceError(Exception):
    """The call could not be served."""

    status: ClassVar[int] = code_pb2.INTERNAL
    reason: ClassVar["ErrorReason.ValueType"] = error_reason_pb2.ERROR_REASON_INTERNAL
    is_at_a_wall: bool = False
    """Whether the caller named what is outside their reach, which the audit log is to know."""

    def __init__(
        self,
        message: str | None = None,
        *,
        violations: Iterable[FieldViolation] = (),
        quota: Iterable[QuotaViolation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`message` replaces the class's own sentence; it reaches the caller, so it must not name people or texts."""
        self.message = message or inspect.cleandoc(type(self).__doc__ or "")
        self.violations = tuple(violations)
        self.quota = tuple(quota)
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})
        super().__init__(self.message)

    @property
    def reason_name(self) -> str:
        """The reason as ErrorInfo carries it, without the enum's prefix: `STALE_ETAG`."""
        return ErrorReason.Name(self.reason).removeprefix(_REASON_PREFIX)

    def to_rich_status(self) -> status_pb2.Status:
        """The google.rpc.Status of this error with all its details, small enough for HTTP/2 trailers."""
        listed = _fitting(self.violations)
        message = self.message
        if len(listed) < len(self.violations):
            message = (
                f"{message} {len(self.violations)} fields are wrong, the first {len(listed)} are listed."
            )
        status = status_pb2.Status(code=self.status, message=_clipped(message))
        for detail in self._details(listed):
            status.details.add().Pack(detail)
        return status

    def _details(self, listed: Sequence[FieldViolation]) -> list[Message]:
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason_name, domain=ERROR_DOMAIN, metadata=self.metadata)
        ]
        if listed:
            fields = [{"field": each.field, "description": each.description} for each in listed]
            details.append(error_details_pb2.BadRequest(field_violations=fields))
        if self.quota:
            limits = [{"subject": each.subject, "description": each.description} for each in self.quota]
            details.append(error_details_pb2.QuotaFailure(violations=limits))
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(round(self.retry_after_s * 1e9))
            details.append(retry)
        return details


class Unauthenticated(ServiceError):
    """A valid bearer token is required."""

    status = code_pb2.UNAUTHENTICATED
    reason = error_reason_pb2.ERROR_REASON_UNAUTHENTICATED


class TokenExpired(Unauthenticated):
    """The token has expired."""

    reason = error_reason_pb2.ERROR_REASON_TOKEN_EXPIRED


class PermissionDenied(ServiceError):
    """This identity may not do this."""

    status = code_pb2.PERMISSION_DENIED
    reason = error_reason_pb2.ERROR_REASON_PERMISSION_DENIED


class OutsideReach(PermissionDenied):
    """The request names a wedding or segment outside the caller's reach."""

    reason = error_reason_pb2.ERROR_REASON_OUTSIDE_REACH
    is_at_a_wall = True


class NotFound(ServiceError):
    """There is no such thing, or it is not yours to see."""

    status = code_pb2.NOT_FOUND
    reason = error_reason_pb2.ERROR_REASON_NOT_FOUND

    @classmethod
    def or_not_yours(cls, message: str | None = None) -> Self:
        """The same, for a caller who does not see everything: it may be a wall that keeps them out."""
        error = cls(message)
        error.is_at_a_wall = True
        return error


class InvalidField(ServiceError):
    """The request breaks a rule of its fields."""

    status = code_pb2.INVALID_ARGUMENT
    reason = error_reason_pb2.ERROR_REASON_INVALID_FIELD


class InvalidPageToken(InvalidField):
    """The page token was not given by this query."""

    reason = error_reason_pb2.ERROR_REASON_INVALID_PAGE_TOKEN


class InvalidCursor(InvalidField):
    """The cursor was not given by this service."""

    reason = error_reason_pb2.ERROR_REASON_INVALID_CURSOR


class RequestIdReused(ServiceError):
    """The request_id was already used with another body."""

    status = code_pb2.ALREADY_EXISTS
    reason = error_reason_pb2.ERROR_REASON_REQUEST_ID_REUSED


class IllegalState(ServiceError):
    """The present state does not allow this."""

    status = code_pb2.FAILED_PRECONDITION
    reason = error_reason_pb2.ERROR_REASON_ILLEGAL_STATE


class SenderLostRight(ServiceError):
    """The sender may no longer send this."""

    status = code_pb2.FAILED_PRECONDITION
    reason = error_reason_pb2.ERROR_REASON_SENDER_LOST_RIGHT


class StaleEtag(ServiceError):
    """It was changed since it was read; read it again."""

    status = code_pb2.ABORTED
    reason = error_reason_pb2.ERROR_REASON_STALE_ETAG


class RateLimited(ServiceError):
    """The sender's limit is used up."""

    status = code_pb2.RESOURCE_EXHAUSTED
    reason = error_reason_pb2.ERROR_REASON_RATE_LIMITED


class TooManyCalls(ServiceError):
    """This server has as many calls as it takes."""

    status = code_pb2.RESOURCE_EXHAUSTED
    reason = error_reason_pb2.ERROR_REASON_TOO_MANY_CALLS


class TooManyStreams(ServiceError):
    """This server, or this person, has as many open streams as allowed."""

    status = code_pb2.RESOURCE_EXHAUSTED
    reason = error_reason_pb2.ERROR_REASON_TOO_MANY_STREAMS


class TooLarge(ServiceError):
    """The request is larger than allowed."""

    status = code_pb2.RESOURCE_EXHAUSTED
    reason = error_reason_pb2.ERROR_REASON_TOO_LARGE


class SlowReader(ServiceError):
    """The stream fell behind and was ended; resume from its last cursor."""

    status = code_pb2.RESOURCE_EXHAUSTED
    reason = error_reason_pb2.ERROR_REASON_SLOW_READER


class DependencyUnavailable(ServiceError):
    """Something that this service needs cannot be reached; try again soon."""

    status = code_pb2.UNAVAILABLE
    reason = error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class DeadlineExceeded(ServiceError):
    """The call took longer than its deadline."""

    status = code_pb2.DEADLINE_EXCEEDED
    reason = error_reason_pb2.ERROR_REASON_DEADLINE_EXCEEDED


class Internal(ServiceError):
    """A defect on our side; quote the correlation id."""


class Unimplemented(ServiceError):
    """This method is declared in the contract and not served yet."""

    status = code_pb2.UNIMPLEMENTED
    reason = error_reason_pb2.ERROR_REASON_UNIMPLEMENTED


def from_rich_status(status: status_pb2.Status) -> ServiceError | None:
    """The error that a service of ours put into `status`, or None when it is no error of ours."""
    info = error_details_pb2.ErrorInfo()
    if not any(detail.Unpack(info) for detail in status.details) or info.domain != ERROR_DOMAIN:
        return None
    kind = _BY_REASON.get(info.reason)
    if kind is None or kind.status != status.code:
        return None
    error = kind(status.message)
    error.metadata = dict(info.metadata)
    _unpack_details(error, status)
    return error


def _unpack_details(error: ServiceError, status: status_pb2.Status) -> None:
    bad, quota, retry = (
        error_details_pb2.BadRequest(),
        error_details_pb2.QuotaFailure(),
        error_details_pb2.RetryInfo(),
    )
    for detail in status.details:
        if detail.Unpack(bad):
            error.violations = tuple(
                FieldViolation(each.field, each.description) for each in bad.field_violations
            )
        elif detail.Unpack(quota):
            error.quota = tuple(QuotaViolation(each.subject, each.description) for each in quota.violations)
        elif detail.Unpack(retry):
            error.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9


def _clipped(message: str) -> str:
    encoded = message.encode("utf-8", "replace")
    return encoded[:_MESSAGE_BYTES].decode("utf-8", "ignore")


def _fitting(violations: Sequence[FieldViolation]) -> Sequence[FieldViolation]:
    """As many of the violations, from the first, as trailers have room for."""
    room = _VIOLATIONS_BYTES
    for position, violation in enumerate(violations):
        # 12 bytes of tags and lengths surround each.
        text = violation.field + violation.description
        room -= len(text.encode("utf-8", "replace")) + 12
        if room < 0:
            return violations[:position]
    return violations


def _reasons(kind: type[ServiceError]) -> dict[str, type[ServiceError]]:
    found = {ErrorReason.Name(kind.reason).removeprefix(_REASON_PREFIX): kind}
    for child in kind.__subclasses__():
        found = _reasons(child) | found
    return found


_BY_REASON = _reasons(ServiceError) | {"INTERNAL": Internal}
