"""Errors of the contract: one class a reason, and a status that tells all of it and still fits into trailers."""

import base64

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from wedsync.broadcast.v1.error_reason_pb2 import ErrorReason

from shared.errors import (
    DependencyUnavailable,
    FieldViolation,
    Internal,
    InvalidField,
    NotFound,
    OutsideReach,
    PermissionDenied,
    QuotaViolation,
    RateLimited,
    ServiceError,
    from_rich_status,
)

# What grpc clients take in trailers unless told otherwise.
TRAILERS_BYTES = 8_192


def all_kinds(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """Every error class that shared/errors.py defines below `kind`."""
    children = [each for each in kind.__subclasses__() if each.__module__ == "shared.errors"]
    return children + [below for child in children for below in all_kinds(child)]


def trailers_bytes(status: status_pb2.Status) -> int:
    """How much room a status takes: its message percent-encoded, and all of it again in base64."""
    message = sum(1 if 0x20 <= byte < 0x7F else 3 for byte in status.message.encode())
    return message + len(base64.b64encode(status.SerializeToString())) + 100


def test_every_reason_of_the_contract_has_exactly_one_class() -> None:
    """Each value of ErrorReason but UNSPECIFIED, and those that are no longer said, is the reason of one class."""
    reasons = sorted(ErrorReason.Name(kind.reason) for kind in all_kinds())
    said = {value.name for value in ErrorReason.DESCRIPTOR.values if not value.GetOptions().deprecated}
    assert reasons == sorted(said - {"ERROR_REASON_UNSPECIFIED"})


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_default_message_is_the_class_sentence(kind: type[ServiceError]) -> None:
    """Raised without words, an error says its docstring, which is one sentence."""
    message = kind().to_rich_status().message
    assert (message, message.count("."), message[-1]) == (kind.__doc__, 1, ".")


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.__name__)
def test_error_survives_the_wire(kind: type[ServiceError]) -> None:
    """What a client reads from a status is an error of the same class and message."""
    read = from_rich_status(kind("just so").to_rich_status())
    assert (type(read), str(read)) == (kind, "just so")


def test_status_carries_every_detail() -> None:
    """ErrorInfo with reason and domain, BadRequest, QuotaFailure and RetryInfo are all there."""
    error = RateLimited(
        violations=[FieldViolation("priority", "is used up")],
        quota=[QuotaViolation("an hour", "5 of 5 sent")],
        retry_after_s=1.5,
        metadata={"reset": "noon"},
    )
    status = error.to_rich_status()
    details = [
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.QuotaFailure(),
        error_details_pb2.RetryInfo(),
    ]
    assert [detail.Unpack(into) for detail, into in zip(status.details, details, strict=True)] == [True] * 4
    info, _, _, retry = details
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert (status.code, info.reason, info.domain) == (
        code_pb2.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        "broadcast.wedsync",
    )
    assert (dict(info.metadata), retry.retry_delay.ToMilliseconds()) == ({"reset": "noon"}, 1500)


def test_details_survive_the_wire() -> None:
    """Violations, quota, delay and metadata are read back as they were."""
    sent = RateLimited(
        violations=[FieldViolation("a.b[3]", "is wrong")],
        quota=[QuotaViolation("an hour", "5 of 5 sent")],
        retry_after_s=0.25,
        metadata={"reset": "noon"},
    )
    read = from_rich_status(sent.to_rich_status())
    assert read is not None
    assert (read.violations, read.quota, read.retry_after_s, read.metadata) == (
        sent.violations,
        sent.quota,
        sent.retry_after_s,
        sent.metadata,
    )


def test_thousands_of_violations_still_fit_into_trailers() -> None:
    """As many as fit are listed from the first, the message counts them all, and clients can receive it."""
    violations = [FieldViolation(f"targeting.user_ids[{i}]", "must be a valid UUID") for i in range(5_000)]
    status = InvalidField(violations=violations).to_rich_status()
    read = from_rich_status(status)
    assert read is not None
    assert read.violations == tuple(violations[: len(read.violations)])
    assert len(read.violations) >= 40
    assert f"5000 fields are wrong, the first {len(read.violations)} are listed." in status.message
    assert trailers_bytes(status) < TRAILERS_BYTES


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, "婚" * 10_000, "bad \ud800 surrogate"])
def test_any_message_fits_into_trailers(text: str) -> None:
    """A message is cut between characters, and one that is no text is replaced, not raised about."""
    violations = [FieldViolation("f" * 100, "d" * 100)] * 100
    assert trailers_bytes(InvalidField(text, violations=violations).to_rich_status()) < TRAILERS_BYTES


def test_unavailable_says_when_to_try_again() -> None:
    """A dependency that is down asks for a second of patience unless told otherwise."""
    assert DependencyUnavailable().retry_after_s == 1.0


def test_status_of_another_system_is_no_error_of_ours() -> None:
    """A status without ErrorInfo, of another domain, with an unknown reason or the wrong code is not taken for ours."""
    foreign = NotFound().to_rich_status()
    foreign.details[0].Pack(error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="example.com"))
    unknown = NotFound().to_rich_status()
    unknown.details[0].Pack(error_details_pb2.ErrorInfo(reason="MOON_PHASE", domain="broadcast.wedsync"))
    mismatched = NotFound().to_rich_status()
    mismatched.code = code_pb2.INTERNAL
    statuses = [status_pb2.Status(code=code_pb2.NOT_FOUND), foreign, unknown, mismatched]
    assert [from_rich_status(status) for status in statuses] == [None] * 4


def test_internal_error_is_read_back_as_internal() -> None:
    """The reason INTERNAL gives Internal, not the hierarchy's root."""
    assert type(from_rich_status(Internal().to_rich_status())) is Internal


def test_what_is_not_yours_looks_like_what_does_not_exist() -> None:
    """To the byte; only the audit log is told of the one and not of the other."""
    assert NotFound.or_not_yours().to_rich_status() == NotFound().to_rich_status()
    assert (NotFound.or_not_yours().is_at_a_wall, OutsideReach().is_at_a_wall) == (True, True)
    assert (NotFound().is_at_a_wall, PermissionDenied().is_at_a_wall) == (False, False)
