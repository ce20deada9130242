"""Turns what drivers and libraries raise into errors of the contract: the net under code that did not do it itself."""

import asyncpg
import grpc
import nats.errors
import nats.js.errors
import redis.exceptions

from shared.errors import DependencyUnavailable, ServiceError

_UNREACHABLE: tuple[type[BaseException], ...] = (
    ConnectionError,
    # A time-out that is not the call's own deadline is that of something it waits for.
    TimeoutError,
    asyncpg.PostgresConnectionError,
    # Shut down, starting up, or cancelled by a time-out of its own.
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # What a former primary says after a failover.
    asyncpg.ReadOnlySQLTransactionError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    nats.errors.ConnectionClosedError,
    nats.errors.ConnectionReconnectingError,
    nats.errors.NoRespondersError,
    nats.errors.NoServersError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.StaleConnectionError,
    nats.js.errors.NoStreamResponseError,
    nats.js.errors.ServiceUnavailableError,
)
_UNREACHABLE_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


def to_service_error(error: BaseException) -> ServiceError | None:
    """The error of the contract that `error` is or stands for; None for what is a defect of ours."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return _first_known(error)
    return DependencyUnavailable() if _is_unreachable(error) else None


def _first_known(group: BaseExceptionGroup[BaseException]) -> ServiceError | None:
    """A group has an error of the contract only when every member has one: a defect must not hide behind a refusal."""
    found = [to_service_error(member) for member in group.exceptions]
    return found[0] if all(found) else None


def _is_unreachable(error: BaseException) -> bool:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _UNREACHABLE_CODES
    if isinstance(error, asyncpg.InterfaceError):
        # The driver has one class for a closed connection and for wrong use of itself.
        return "clos" in str(error)
    return isinstance(error, _UNREACHABLE)
