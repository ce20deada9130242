"""What every call of a channel gets: a deadline, the token, a request_id, and errors by their class."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from wedsync.broadcast.client.deadlines import Deadline
from wedsync.broadcast.client.errors import CLOSED, ConfigurationError, error_of
from wedsync.broadcast.client.tokens import LACKING, Metadata, Tokens, authorized, bearer

Request = TypeVar("Request")
Response = TypeVar("Response")
Call = TypeVar("Call")
Details: TypeAlias = grpc.aio.ClientCallDetails
Requests: TypeAlias = AsyncIterable[Request] | Iterable[Request]

_AUTHORIZATION = "authorization"
_REQUEST_ID = "request_id"


@dataclass(frozen=True, slots=True)
class Terms:
    """What calls get whose caller says nothing else: unary ones `deadline_s`, all the token of `tokens`, if any."""

    tokens: Tokens | None
    deadline_s: float

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """What a channel needs to keep to them."""
        return [_UnaryCalls(self), _AnswerStreams(self), _Conversations(self)]

    def speaks_for(self, details: Details) -> Tokens | None:
        """Where the token comes from; None when the caller has given one, or there is none."""
        return None if _AUTHORIZATION in (details.metadata or ()) else self.tokens

    async def begin(self, details: Details) -> Details:
        """The details of a stream with what it lacks. Raises DeadlineExceeded when its token does not come in time."""
        tokens = self.speaks_for(details)
        if tokens is None:
            return details
        deadline = Deadline(self.deadline_s if details.timeout is None else details.timeout)
        token = await deadline.wait_for(tokens.current(), LACKING)
        left_s = None if details.timeout is None else deadline.remaining_s()
        return _with_metadata(details, bearer(token), left_s)


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """One request, one answer. A call that its token was refused for has done nothing, so it may be made again."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    async def intercept_unary_unary(
        self,
        continuation: Callable[[Details, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]],
        client_call_details: Details,
        request: Request,
    ) -> grpc.aio.UnaryUnaryCall[Request, Response]:
        details = client_call_details
        deadline_s = self._terms.deadline_s if details.timeout is None else details.timeout
        identified = _identified(request)

        async def attempt(metadata: Metadata, left_s: float) -> grpc.aio.UnaryUnaryCall[Request, Response]:
            call = await _made(continuation(_with_metadata(details, metadata, left_s), identified))
            try:
                await call
            except grpc.aio.AioRpcError as error:
                raise error_of(error) from error
            return call

        tokens = self._terms.speaks_for(details)
        return await (attempt((), deadline_s) if tokens is None else authorized(tokens, deadline_s, attempt))


class _AnswerStreams(grpc.aio.UnaryStreamClientInterceptor):
    """One request, many answers."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    async def intercept_unary_stream(
        self,
        continuation: Callable[[Details, Request], Awaitable[grpc.aio.UnaryStreamCall[Request, Response]]],
        client_call_details: Details,
        request: Request,
    ) -> AsyncIterator[Response]:
        details = await self._terms.begin(client_call_details)
        return _answers(await _made(continuation(details, request)))


class _Conversations(grpc.aio.StreamStreamClientInterceptor):
    """Many requests, many answers."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    async def intercept_stream_stream(
        self,
        continuation: Callable[
            [Details, Requests[Request]], Awaitable[grpc.aio.StreamStreamCall[Request, Response]]
        ],
        client_call_details: Details,
        request_iterator: Requests[Request],
    ) -> AsyncIterator[Response]:
        details = await self._terms.begin(client_call_details)
        return _answers(await _made(continuation(details, request_iterator)))


async def _made(call: Awaitable[Call]) -> Call:
    """A call that was begun. Raises ConfigurationError on a channel that the client has closed."""
    try:
        return await call
    except grpc.aio.UsageError as error:
        raise ConfigurationError(CLOSED) from error


async def _answers(
    call: grpc.aio.UnaryStreamCall[Any, Response] | grpc.aio.StreamStreamCall[Any, Response],
) -> AsyncIterator[Response]:
    """What a stream says; whoever stops listening early ends it."""
    try:
        async for answer in call:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from error
    finally:
        call.cancel()


def _identified(request: Request) -> Request:
    """The same request with a request_id if it may have one, so that gRPC can make the call again; as it is, if not."""
    if not isinstance(request, Message) or getattr(request, _REQUEST_ID, None) != "":
        return request
    identified = type(request)()
    identified.CopyFrom(request)
    setattr(identified, _REQUEST_ID, str(uuid4()))
    return identified


def _with_metadata(details: Details, added: Metadata, timeout: float | None) -> Details:
    """The details with more metadata and what is left of time, in a copy: gRPC hands the same to every attempt."""
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=timeout,
        metadata=grpc.aio.Metadata(*(details.metadata or ()), *added),
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )
