"""What drivers raise: outages become DependencyUnavailable, defects stay unknown."""

import asyncio

import asyncpg
import grpc
import nats.errors
import pytest
import redis.exceptions

from shared.errors import DependencyUnavailable, NotFound
from shared.translations import to_service_error


def rpc_error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    """A call of another service that failed."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "secret details")


OUTAGES: list[BaseException] = [
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    asyncpg.ConnectionDoesNotExistError(),
    asyncpg.AdminShutdownError(),
    asyncpg.CannotConnectNowError(),
    asyncpg.TooManyConnectionsError(),
    asyncpg.InterfaceError("connection is closed"),
    redis.exceptions.ConnectionError(),
    redis.exceptions.TimeoutError(),
    nats.errors.NoServersError(),
    nats.errors.ConnectionClosedError(),
    nats.errors.TimeoutError(),
    rpc_error(grpc.StatusCode.UNAVAILABLE),
    rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED),
]
DEFECTS: list[BaseException] = [
    ValueError(),
    KeyError("user@example.com"),
    PermissionError(),
    asyncpg.UniqueViolationError(),
    asyncpg.UndefinedTableError(),
    asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"),
    redis.exceptions.ResponseError(),
    nats.errors.BadSubjectError(),
    rpc_error(grpc.StatusCode.INTERNAL),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_outage_is_a_dependency_that_is_unavailable(error: BaseException) -> None:
    """The caller learns that it may try again, and none of the details."""
    translated = to_service_error(error)
    assert isinstance(translated, DependencyUnavailable)
    assert str(translated) == DependencyUnavailable.__doc__


@pytest.mark.parametrize("error", DEFECTS, ids=repr)
def test_defect_is_not_an_error_of_the_contract(error: BaseException) -> None:
    """Whatever means a fault in our own code is not dressed up."""
    assert to_service_error(error) is None


def test_error_of_the_contract_is_itself() -> None:
    """Nothing is translated twice."""
    error = NotFound()
    assert to_service_error(error) is error


def test_group_is_what_all_of_its_members_are() -> None:
    """Tasks that failed together give the first error, unless a defect is among them."""
    lost, missing = ConnectionResetError(), NotFound()
    assert to_service_error(ExceptionGroup("tasks", [missing, lost])) is missing
    assert to_service_error(ExceptionGroup("tasks", [ExceptionGroup("inner", [missing])])) is missing
    assert to_service_error(ExceptionGroup("tasks", [missing, ValueError()])) is None
