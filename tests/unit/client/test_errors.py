"""Every error of the suite has a class of the client's, with all that the service said."""

import pickle
from collections.abc import Iterator
from datetime import timedelta

import grpc
import pytest
from wedsync.broadcast.client import (
    BroadcastError,
    Conflict,
    DeadlineExceeded,
    Exhausted,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from wedsync.broadcast.client.errors import error_of

from shared import errors
from shared.errors import FieldViolation, QuotaViolation, ServiceError

BY_STATUS: dict[str, type[BroadcastError]] = {
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "NOT_FOUND": NotFound,
    "INVALID_ARGUMENT": InvalidRequest,
    "ALREADY_EXISTS": Conflict,
    "FAILED_PRECONDITION": Conflict,
    "ABORTED": Conflict,
    "RESOURCE_EXHAUSTED": Exhausted,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "INTERNAL": BroadcastError,
    "UNIMPLEMENTED": BroadcastError,
}


def kinds(kind: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Every error that a service may answer with."""
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def received(error: ServiceError) -> grpc.aio.AioRpcError:
    """What gRPC raises where a service has raised this."""
    status = error.to_rich_status()
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, status.message)


@pytest.mark.parametrize("kind", list(kinds()))
def test_every_error_of_the_suite_has_its_class(kind: type[ServiceError]) -> None:
    """By its status; and its reason and sentence are the service's own."""
    told = kind()
    error = error_of(received(told))
    assert isinstance(error, BY_STATUS[error.code().name])
    assert (error.reason, error.message) == (told.reason_name, told.message)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (errors.RateLimited(), RateLimited),
        (errors.TooManyCalls(), Overloaded),
        (errors.TooManyStreams(), Overloaded),
        (errors.SlowReader(), Overloaded),
        (errors.TooLarge(), Exhausted),
    ],
)
def test_kinds_of_too_much_can_be_told_apart(told: ServiceError, kind: type[BroadcastError]) -> None:
    """A limit is another thing than a busy server, and what is too large will never have room."""
    assert type(error_of(received(told))) is kind


def test_all_that_a_service_says_is_there() -> None:
    """Broken fields, limits, when to come again, and what goes with the reason."""
    told = ServiceError(
        "No.",
        violations=[FieldViolation("title", "too long"), FieldViolation("type", "unknown")],
        quota=[QuotaViolation("user:1", "5 in an hour")],
        retry_after_s=2.5,
        metadata={"cursor": "c"},
    )
    error = error_of(received(told))
    assert [(each.field, each.description) for each in error.violations] == [
        ("title", "too long"),
        ("type", "unknown"),
    ]
    assert [(each.subject, each.description) for each in error.quota] == [("user:1", "5 in an hour")]
    assert (error.retry_after, error.metadata) == (timedelta(seconds=2.5), {"cursor": "c"})
    assert str(error) == "INTERNAL (INTERNAL): No. title: too long. type: unknown."


@pytest.mark.parametrize("details", [b"\xff\xff", b""])
def test_what_is_not_the_suites_is_what_grpc_said(details: bytes) -> None:
    """Some proxy's answer, or that nobody is there: by its code, without a reason."""
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", details))
    error = error_of(
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailers, "no route")
    )
    assert type(error) is Unavailable
    assert (error.reason, str(error)) == ("", "UNAVAILABLE: no route")


def test_a_call_that_was_cut_off_may_be_made_again() -> None:
    """A server that ends while it is at it leaves nothing but a bare CANCELLED behind."""
    error = error_of(grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, details="CANCELLED"))
    assert (type(error), error.code()) == (Unavailable, grpc.StatusCode.CANCELLED)


def test_an_error_survives_another_process() -> None:
    """Task queues pickle what their workers raise."""
    error = error_of(received(errors.RateLimited(retry_after_s=3.0)))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 # made just now
    assert (type(again), again.retry_after, str(again)) == (RateLimited, error.retry_after, str(error))
