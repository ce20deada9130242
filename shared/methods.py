"""One method behind the edge, from the bytes of a request to the status of its call.

In order: room for one more call, authenticate, replay, right, parse, rules, the servicer, errors to status, one log
line and the figures. A servicer sees verified callers and valid requests only, and raises errors; it never aborts.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from typing_extensions import override

from shared.admission import STATUS_DETAILS_KEY, Opening
from shared.auth import LEEWAY_S, Identity, TokenVerifier, set_caller
from shared.calls import CORRELATION_KEY, Call, MethodFigures, Traffic, begin_correlation
from shared.errors import (
    DeadlineExceeded,
    InvalidField,
    ServiceError,
    TokenExpired,
    Unauthenticated,
    Unimplemented,
)
from shared.rights import INTERNAL, Right, RoleOf, admit
from shared.translations import to_service_error
from shared.validation import RequestReader, Rules
from shared.wall_refusals import WallRefusals

# Answers a repeated request before anybody asks for its caller's right, None for one that is new; may refuse one that
# is known to be too much. `current_identity` is set; the request is parsed and its rules are not checked yet.
Replay: TypeAlias = Callable[[Any], Awaitable[Message | None]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
_Incoming: TypeAlias = bytes | AsyncIterator[bytes]
_Outgoing: TypeAlias = Message | bytes
_Behaviour: TypeAlias = Callable[[Any, Context], Any]
_Work: TypeAlias = Awaitable[None] | AsyncGenerator[_Outgoing, None]
_Result = TypeVar("_Result")

_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
# The end of the name of every module of generated servicers.
_GENERATED = "_pb2_grpc"
_HANDLERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """What every method of a server asks before it lets a call in."""

    verifier: TokenVerifier
    role_of: RoleOf | None
    traffic: Traffic
    refusals: WallRefusals | None = None

    async def authenticate(self, call: Call, context: Context) -> Identity:
        """The caller, by the one bearer token among the call's metadata."""
        token = correlation = None
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                if token is not None or not isinstance(value, str) or value[:7].lower() != "bearer ":
                    raise Unauthenticated
                token = value[7:]
            elif key == CORRELATION_KEY:
                correlation = str(value)
        begin_correlation(correlation)
        if token is None:
            raise Unauthenticated
        call.identity = await self.verifier.verify(token)
        return call.identity

    async def admit(self, identity: Identity, right: Right) -> None:
        """Refuses who has not the right; for the others `current_role` answers from here on."""
        set_caller(identity, await admit(identity, right, self.role_of))

    def note(self, error: BaseException, identity: Identity | None, method: str) -> None:
        """Adds up who was refused at a wall."""
        if self.refusals is None or identity is None:
            return
        told = to_service_error(error)
        if told is not None and told.is_at_a_wall:
            self.refusals.note(identity.name, method)


class _GuardedMethod:
    """The frame around any method: room, figures, and errors turned into a status."""

    def __init__(self, gate: Gate, name: str, *, is_stream: bool, is_outside: bool) -> None:
        self._gate = gate
        self._is_stream = is_stream
        self._is_outside = is_outside
        self._figures = MethodFigures(name)

    async def _serve(self, incoming: _Incoming, context: Context) -> bytes | None:
        call = Call(self._figures)
        traffic = self._gate.traffic
        try:
            traffic.enter(is_stream=self._is_stream)
            try:
                answer = await self._in_turn(call, incoming, context)
            finally:
                traffic.leave(is_stream=self._is_stream)
        except BaseException as error:
            if self._is_outside:
                self._gate.note(error, call.identity, self._figures.method)
            await _fail(call, error, context)
            raise
        call.end("OK")
        return answer

    async def _in_turn(self, call: Call, incoming: _Incoming, context: Context) -> bytes | None:
        """Calls from outside are worked on a few at a time, so that those which are come to their end."""
        if self._is_stream or not self._is_outside:
            return await self._respond(call, incoming, context)
        turns = self._gate.traffic.turns
        if not turns.take():
            await turns.wait(context)
        try:
            return await self._respond(call, incoming, context)
        finally:
            turns.give()

    async def _respond(self, call: Call, incoming: _Incoming, context: Context) -> bytes | None:
        raise Unimplemented


class UnknownMethod(_GuardedMethod):
    """Whatever is called by a name that this server has not: known callers learn that, strangers learn nothing."""

    def __init__(self, gate: Gate) -> None:
        """One for all names, so that inventing names costs us nothing."""
        super().__init__(gate, "unknown", is_stream=False, is_outside=False)

    def handler(self) -> Handler:
        """The handler to give to gRPC, of the kind that suits calls of every kind."""
        return grpc.stream_stream_rpc_method_handler(self._serve)

    @override
    async def _respond(self, call: Call, incoming: _Incoming, context: Context) -> bytes | None:
        await self._gate.authenticate(call, context)
        raise Unimplemented("There is no such method.")


class ProtectedMethod(_GuardedMethod):
    """A method of a servicer."""

    def __init__(
        self,
        gate: Gate,
        method: MethodDescriptor,
        inner: Handler,
        right: Right,
        replay: Replay | None,
        rules: Rules | None,
    ) -> None:
        """`inner` is the handler that generated code made for the servicer; TypeError when it is not async."""
        is_stream = inner.request_streaming or inner.response_streaming
        name = f"{method.containing_service.name}/{method.name}"
        super().__init__(gate, name, is_stream=is_stream, is_outside=right != INTERNAL)
        self._inner = inner
        self._right = right
        self._replay = replay
        self._rules = rules
        self._reader: RequestReader[Message] = RequestReader(GetMessageClass(method.input_type))
        self._has_request_id = "request_id" in method.input_type.fields_by_name
        self._behaviour = _behaviour(inner)

    @property
    def is_repeatable(self) -> bool:
        """Whether it is served and its callers may give their calls an id."""
        return self._has_request_id and self._behaviour is not None

    def handler(self) -> Handler:
        """The handler to give to gRPC; it takes raw bytes, so that a broken message is answered here too."""
        make = _HANDLERS[self._inner.request_streaming, self._inner.response_streaming]
        return make(self._serve, request_deserializer=None, response_serializer=_serialize)

    @override
    async def _respond(self, call: Call, incoming: _Incoming, context: Context) -> bytes | None:
        identity = await self._gate.authenticate(call, context)
        earlier, parsed = await self._answered_before(identity, incoming)
        if earlier is not None:
            return _serialize(earlier)
        await self._gate.admit(identity, self._right)
        if self._behaviour is None:
            raise Unimplemented
        if isinstance(incoming, bytes):
            work = self._behaviour(self._request(call, incoming, parsed), context)
        else:
            work = self._behaviour(self._requests(incoming), context)
        if self._inner.response_streaming:
            await self._stream(identity, work, context)
            return None
        if self._is_stream:
            return _serialize(await _until_token_ends(identity, work))
        return _serialize(await self._until_deadline(work, context))

    async def _answered_before(
        self, identity: Identity, incoming: _Incoming
    ) -> tuple[Message | None, Message | None]:
        """The first answer to a repeated request, and the request, so far as anybody looked.

        What is no request is told later, to those who have the right.
        """
        if self._replay is None or not isinstance(incoming, bytes):
            return None, None
        try:
            request = self._reader.parse(incoming)
        except InvalidField:
            return None, None
        set_caller(identity, None)
        return await self._replay(request), request

    async def _stream(self, identity: Identity, work: _Work, context: Context) -> None:
        opening = self._gate.traffic.streams.begin(counts=self._is_outside)
        try:
            await _until_token_ends(identity, _send_all(work, context, opening))
        finally:
            opening.end(is_open=False)

    def _request(self, call: Call, raw: bytes, parsed: Message | None) -> Message:
        request = self._reader.parse(raw) if parsed is None else parsed
        self._reader.check(request, raw, self._rules)
        if self._has_request_id:
            call.request_id = getattr(request, "request_id", None)
        return request

    async def _requests(self, incoming: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        async for raw in incoming:
            request = self._reader.parse(raw)
            self._reader.check(request, raw)
            yield request

    async def _until_deadline(self, work: Awaitable[_Result], context: Context) -> _Result:
        """gRPC cancels a call whose own deadline has come; one without gets ours."""
        if context.time_remaining() is not None:
            return await work
        return await _within(self._gate.traffic.limits.deadline_s, DeadlineExceeded, work)


async def _until_token_ends(identity: Identity, work: Awaitable[_Result]) -> _Result:
    """A stream lives no longer than the token that opened it."""
    remaining_s = identity.expires_at.timestamp() + LEEWAY_S - time.time()
    return await _within(remaining_s, TokenExpired, work)


async def _within(limit_s: float, late: type[ServiceError], work: Awaitable[_Result]) -> _Result:
    scope = asyncio.timeout(limit_s)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise late from error
        raise


async def _send_all(work: _Work, context: Context, opening: Opening) -> None:
    """Servicers stream by yielding responses, or by writing them to the context."""
    if not isinstance(work, AsyncGenerator):
        opening.end(is_open=True)
        await work
        return
    async with aclosing(work) as responses:
        async for response in responses:
            opening.end(is_open=True)
            await context.write(response)


def _behaviour(inner: Handler) -> _Behaviour | None:
    """The servicer's own method, None when it left this one to the generated class."""
    given = inner.unary_unary or inner.unary_stream or inner.stream_unary or inner.stream_stream
    behaviour = cast(_Behaviour | None, given)
    if behaviour is None or behaviour.__module__.endswith(_GENERATED):
        return None
    if not inspect.iscoroutinefunction(behaviour) and not inspect.isasyncgenfunction(behaviour):
        raise TypeError(f"{behaviour!r} is not async, so it would stop every other call while it runs")
    return behaviour


def _serialize(response: Message | bytes) -> bytes:
    """Bytes go out as they are, so that many streams can share one serialised event."""
    return response if isinstance(response, bytes) else response.SerializeToString()


async def _fail(call: Call, error: BaseException, context: Context) -> None:
    """Ends a call with the status that an error stands for; those that have their status already only leave a line."""
    if isinstance(error, grpc.aio.AbortError):
        call.end(context.code().name)
    elif isinstance(error, grpc.aio.BaseError):
        # gRPC could not write any more: the caller has gone, or the server has stopped.
        call.end("CANCELLED")
    elif isinstance(error, asyncio.CancelledError):
        late = context.time_remaining() == 0
        call.end("DEADLINE_EXCEEDED" if late else "CANCELLED")
    elif isinstance(error, Exception):
        failure = to_service_error(error) or call.defect(error)
        code = _STATUS_CODES[failure.status]
        call.end(code.name, failure.reason_name)
        status = failure.to_rich_status()
        await context.abort(code, status.message, ((STATUS_DETAILS_KEY, status.SerializeToString()),))
