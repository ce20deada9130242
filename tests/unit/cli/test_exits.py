"""What a script can tell apart: an exit code for each kind of error, and for settings that cannot work."""

import grpc
import pytest
from wedsync.broadcast.client import (
    BroadcastError,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from wedsync.broadcast.v1.sender_pb2 import GetQuotaRequest, GetQuotaResponse

from cli.connection import Connection, run
from cli.exits import ExitCode, Failure, failure_of
from cli.settings import Settings


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (InvalidRequest, ExitCode.INVALID),
        (Unauthenticated, ExitCode.DENIED),
        (PermissionDenied, ExitCode.DENIED),
        (NotFound, ExitCode.NOT_FOUND),
        (Conflict, ExitCode.CONFLICT),
        (RateLimited, ExitCode.EXHAUSTED),
        (Overloaded, ExitCode.EXHAUSTED),
        (Unavailable, ExitCode.UNAVAILABLE),
        (DeadlineExceeded, ExitCode.UNAVAILABLE),
        (BroadcastError, ExitCode.UNEXPECTED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(kind: type[BroadcastError], code: ExitCode) -> None:
    """Whatever gRPC's own code is, which the message begins with."""
    failure = failure_of(kind(grpc.StatusCode.DATA_LOSS, details="No."))
    assert (failure.code, failure.message) == (code, "DATA_LOSS: No.")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, r"SENDER_ADDR is not set.*make run"),
        ({"SENDER_ADDR": "nowhere"}, "SENDER_ADDR must be host:port"),
        ({"SENDER_ADDR": "10.0.0.7:5001"}, r"SENDER_ADDR: 10\.0\.0\.7:5001 is not a loopback address"),
        ({"SENDER_ADDR": "127.0.0.1:1"}, r"BROADCAST_TOKEN is not set.*make run"),
    ],
)
def test_settings_that_cannot_work_are_a_command_that_is_not_whole(
    values: dict[str, str], complaint: str
) -> None:
    """The variable is named, and nothing is called."""

    async def call(connection: Connection) -> GetQuotaResponse:
        return await connection.sender.GetQuota(GetQuotaRequest())

    with pytest.raises(Failure, match=complaint) as failed:
        run(Settings(values, json=False, token=None, acts_as=None), call)
    assert failed.value.code is ExitCode.USAGE
