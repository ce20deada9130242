"""How one service calls another: a channel with its token, deadlines and retries that raises errors of the contract."""

import json
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from typing_extensions import override

from shared.calls import CORRELATION_KEY
from shared.connection import Connection
from shared.errors import (
    DependencyUnavailable,
    Internal,
    ServiceError,
    TooManyCalls,
    TooManyStreams,
    Unauthenticated,
    Unimplemented,
    from_rich_status,
)
from shared.logging import correlation_id
from shared.settings import Address
from shared.tls import Transport

log = structlog.get_logger(__name__)

# Gives the bearer token for a call, None to call without one.
Token: TypeAlias = Callable[[], str | None]

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
# A call that ended so says nothing of the request: it may be made again.
_UNREACHABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
_OVERLOADED = (TooManyCalls, TooManyStreams, DependencyUnavailable)
# Between services these are faults of ours, and nothing that the caller of the caller could mend.
_OUR_FAULTS = (Unauthenticated, Unimplemented, Internal)


class ServiceChannel(grpc.aio.Channel):
    """A channel for generated stubs: `InboxServiceStub(channel)`.

    Unary calls without a deadline get `deadline_s`. Whatever a call raises is a ServiceError: what the other service
    said, except that one which cannot be reached, or has no room, is DependencyUnavailable, and that a defect there, or
    a refusal of our token, is Internal here. With `speaks_for_user` (a command line) every answer is passed on.
    """

    def __init__(
        self,
        dependency: str,
        connection: Connection,
        token: Token,
        *,
        deadline_s: float = 5.0,
        speaks_for_user: bool = False,
    ) -> None:
        """`dependency` is the other service's name, for logs and errors."""
        self._dependency = dependency
        self._connection = connection
        self._token = token
        self._deadline_s = deadline_s
        self._speaks_for_user = speaks_for_user

    @override
    def unary_unary(
        self, method: str, *args: Any, **kwargs: Any
    ) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        """A method with one request and one response; awaiting a call of it gives the response."""

        def find() -> Callable[..., Any]:
            return self._connection.current().unary_unary(method, *args, **kwargs)

        return cast("grpc.aio.UnaryUnaryMultiCallable[Any, Any]", _Method(self, find, self._deadline_s))

    @override
    def unary_stream(
        self, method: str, *args: Any, **kwargs: Any
    ) -> grpc.aio.UnaryStreamMultiCallable[Any, Any]:
        """A method that streams responses; iterate over a call of it."""

        def find() -> Callable[..., Any]:
            return self._connection.current().unary_stream(method, *args, **kwargs)

        return cast("grpc.aio.UnaryStreamMultiCallable[Any, Any]", _Method(self, find, None))

    @override
    def stream_unary(
        self, method: str, *args: Any, **kwargs: Any
    ) -> grpc.aio.StreamUnaryMultiCallable[Any, Any]:
        """A method that takes a stream of requests; awaiting a call of it gives the response."""

        def find() -> Callable[..., Any]:
            return self._connection.current().stream_unary(method, *args, **kwargs)

        return cast("grpc.aio.StreamUnaryMultiCallable[Any, Any]", _Method(self, find, None))

    @override
    def stream_stream(
        self, method: str, *args: Any, **kwargs: Any
    ) -> grpc.aio.StreamStreamMultiCallable[Any, Any]:
        """A method that streams both ways; iterate over a call of it, or read and write."""

        def find() -> Callable[..., Any]:
            return self._connection.current().stream_stream(method, *args, **kwargs)

        return cast("grpc.aio.StreamStreamMultiCallable[Any, Any]", _Method(self, find, None))

    @override
    async def close(self, grace: float | None = None) -> None:
        """Ends calls that still run after `grace` seconds, and the connection."""
        await self._connection.close(grace)

    @override
    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """How the connection is, from grpc.aio.Channel."""
        return self._connection.current().get_state(try_to_connect)

    @override
    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns once the state is another, from grpc.aio.Channel."""
        await self._connection.current().wait_for_state_change(last_observed_state)

    @override
    async def channel_ready(self) -> None:
        """Returns once the connection stands, from grpc.aio.Channel."""
        await self._connection.current().channel_ready()

    @override
    async def __aenter__(self) -> "ServiceChannel":
        return self

    @override
    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def metadata(self, given: Iterable[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
        """What goes out with a call: what was given, the token, and the id of the call that this one is part of."""
        metadata = list(given)
        token, identifier = self._token(), correlation_id.get()
        if token is not None:
            metadata.append(("authorization", f"Bearer {token}"))
        if identifier is not None:
            metadata.append((CORRELATION_KEY, identifier))
        return tuple(metadata)

    def translate(self, error: grpc.aio.AioRpcError) -> ServiceError:
        """The error of the contract for a call that failed."""
        told = _told(error)
        if isinstance(told, _OVERLOADED) or (told is None and error.code() in _UNREACHABLE):
            retry_after_s = (told.retry_after_s if told is not None else None) or 1.0
            message = f"The {self._dependency} service cannot be reached; try again soon."
            return DependencyUnavailable(message, retry_after_s=retry_after_s)
        if told is not None and (self._speaks_for_user or not isinstance(told, _OUR_FAULTS)):
            return told
        reason = told.reason_name if told is not None else None
        log.error("dependency_failed", dependency=self._dependency, code=error.code().name, reason=reason)
        return Internal(metadata=told.metadata if told is not None else None)


class _Method:
    """One method of the other service: calling it adds what every call needs."""

    def __init__(
        self, channel: ServiceChannel, find: Callable[[], Callable[..., Any]], deadline_s: float | None
    ) -> None:
        self._channel = channel
        self._find = find
        self._deadline_s = deadline_s

    def __call__(
        self,
        request: object = None,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        **options: object,
    ) -> "_Call":
        sent = self._channel.metadata(metadata or ())
        method = self._find()
        return _Call(
            self._channel, method(request, timeout=timeout or self._deadline_s, metadata=sent, **options)
        )


class _Call:
    """One call of the other service, with its errors translated; all else is as grpc.aio has it."""

    def __init__(self, channel: ServiceChannel, inner: Any) -> None:  # noqa: ANN401 one of four kinds of grpc.aio
        self._channel = channel
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, Any, object]:
        try:
            return (yield from self._inner.__await__())
        except grpc.aio.AioRpcError as error:
            raise self._channel.translate(error) from error

    async def __aiter__(self) -> AsyncIterator[object]:
        try:
            async for response in self._inner:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._channel.translate(error) from error
        finally:
            # Whoever stops listening early must not leave the other side talking.
            self._inner.cancel()

    async def read(self) -> object:
        try:
            return await self._inner.read()
        except grpc.aio.AioRpcError as error:
            raise self._channel.translate(error) from error

    async def write(self, request: object) -> None:
        try:
            await self._inner.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._channel.translate(error) from error


def open_channel(
    dependency: str,
    address: Address,
    transport: Transport,
    token: Token,
    *,
    retried: Iterable[str] = (),
    deadline_s: float = 5.0,
    speaks_for_user: bool = False,
) -> ServiceChannel:
    """A channel to another service, which connects at its first call.

    `retried` names idempotent methods (`wedsync.broadcast.v1.SenderService/GetDispatchOrder`) or whole services: they
    are tried up to four times within about half a second when the other side cannot be reached.
    """
    variable = f"{dependency.upper()}_ADDR"
    options = _options(service_config(retried))

    def connect() -> grpc.aio.Channel:
        credentials = transport.channel_credentials(variable, address)
        if credentials is None:
            return grpc.aio.insecure_channel(str(address), options=options)
        return grpc.aio.secure_channel(str(address), credentials, options=options)

    connection = Connection(transport, connect)
    return ServiceChannel(
        dependency, connection, token, deadline_s=deadline_s, speaks_for_user=speaks_for_user
    )


def service_config(retried: Iterable[str]) -> str:
    """The gRPC service config, as JSON, by which these methods are retried; see `open_channel`.

    It has less patience than that of `wedsync.broadcast.client`, so that an outage is told and not waited for, and like
    that one asks for no health checks.
    """
    names = [dict(zip(("service", "method"), each.split("/", 1), strict=False)) for each in retried]
    method = {
        "name": names,
        "waitForReady": False,
        "retryPolicy": {
            "maxAttempts": 4,
            "initialBackoff": "0.05s",
            "maxBackoff": "0.5s",
            "backoffMultiplier": 2,
            # A gRPC server that leaves says CANCELLED to calls that come before their caller knows of it.
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        },
    }
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [method] if names else [],
    }
    return json.dumps(config)


def _told(error: grpc.aio.AioRpcError) -> ServiceError | None:
    """What the other service said, None when the status is not one of ours."""
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_rich_status(status_pb2.Status.FromString(value))
            except DecodeError:
                return None
    return None


def _options(config: str) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", config),
        # gRPC's own waits, up to two minutes, would outlast any restart of the other side.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
