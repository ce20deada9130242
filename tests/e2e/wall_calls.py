"""Asks a running suite as anybody, in bytes, and keeps everything that a caller gets to see."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from wedsync.broadcast.v1 import inbox_pb2

from shared.errors import from_rich_status
from tests.e2e.client import CALL_S, Client, Metadata
from tests.e2e.test_rights import SERVED
from tests.e2e.wall_requests import methods

_BUSY: Final = frozenset({"TOO_MANY_CALLS", "TOO_MANY_STREAMS"})
_ATTEMPTS: Final = 100
# What says when, or where in the log, and nothing of anybody.
_TIMES: Final = frozenset({"google.protobuf.Timestamp"})
_PLACES: Final = frozenset({"cursor", "directory_version", "team_version"})


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that a caller gets to see: of a stream, up to the first message that says something."""

    code: grpc.StatusCode
    message: str = ""
    trailers: tuple[tuple[str, bytes], ...] = ()
    body: bytes = b""

    @property
    def bytes_seen(self) -> bytes:
        """All of it, to be searched."""
        return b"\n".join((self.message.encode(), *(value for _, value in self.trailers), self.body))

    @property
    def reason(self) -> str:
        """The reason that an error gives."""
        details = dict(self.trailers).get("grpc-status-details-bin", b"")
        error = from_rich_status(Status.FromString(details))
        return error.reason_name if error else ""

    def secrets(self, secrets: dict[str, bytes], known: bytes) -> frozenset[str]:
        """The secrets in it, but for those that its caller has told themselves."""
        seen = self.bytes_seen
        return frozenset(name for name, value in secrets.items() if value in seen and value not in known)

    def without(self, ids: Iterable[str], rpc: str) -> "Answer":
        """The same as if other ids had been asked for, at another time."""
        answer = replace(self, body=_timeless(self.body, methods()[rpc]))
        for place, each in enumerate(ids):
            answer = answer._without(each.encode(), f"#{place}".ljust(len(each)).encode())
        return answer

    def _without(self, before: bytes, after: bytes) -> "Answer":
        trailers = tuple((key, value.replace(before, after)) for key, value in self.trailers)
        message = self.message.encode().replace(before, after).decode()
        return Answer(self.code, message, trailers, self.body.replace(before, after))


class Asking:
    """Channels to every server of the suite."""

    def __init__(self, client: Client) -> None:
        self._environment = client.stack.environment
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for server, services in SERVED.items():
            address = self._environment[f"{server.upper()}_ADDR"]
            channel = await self._exits.enter_async_context(grpc.aio.insecure_channel(address))
            self._channels |= {f"wedsync.broadcast.v1.{service}": channel for service in services}
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def ask(self, rpc: str, metadata: Metadata, request: bytes) -> Answer:
        """What an RPC answers; a server that is busy is asked again."""
        for _ in range(_ATTEMPTS):
            answer = await self._ask(methods()[rpc], metadata, request)
            if answer.reason not in _BUSY:
                return answer
            await asyncio.sleep(0.1)
        raise AssertionError(f"{rpc} is too busy to answer")

    async def _ask(self, method: MethodDescriptor, metadata: Metadata, request: bytes) -> Answer:
        service = method.containing_service.full_name
        # Serves for methods of every kind; a client that streams its requests sends one.
        open_stream = self._channels[service].unary_stream(f"/{service}/{method.name}")
        call = open_stream(request, metadata=metadata, timeout=CALL_S)
        parts: list[bytes] = []
        try:
            async for part in _messages(call):
                parts.append(part)
                if method.server_streaming and _says_something(method, part):
                    break
        except grpc.aio.AioRpcError as error:
            trailers = tuple((str(key), _bytes(value)) for key, value in error.trailing_metadata() or ())
            return Answer(error.code(), error.details() or "", trailers, b"".join(parts))
        finally:
            call.cancel()
        return Answer(grpc.StatusCode.OK, body=b"".join(parts))


async def _messages(call: Any) -> AsyncIterator[bytes]:  # noqa: ANN401 # a call of grpc.aio
    while (part := await call.read()) is not grpc.aio.EOF:
        yield part


def _says_something(method: MethodDescriptor, part: bytes) -> bool:
    """Whoever connects inboxes hears first that somebody is subscribed."""
    if method.name != "ConnectInboxes":
        return True
    return not inbox_pb2.ConnectInboxesResponse.FromString(part).HasField("subscribed")


def _timeless(body: bytes, method: MethodDescriptor) -> bytes:
    message = GetMessageClass(method.output_type)()
    message.MergeFromString(body)
    _clear_times(message)
    return message.SerializeToString(deterministic=True)


def _clear_times(message: Any) -> None:  # noqa: ANN401 # any message of the contract
    for field, value in message.ListFields():
        if field.name in _PLACES or (field.message_type and field.message_type.full_name in _TIMES):
            message.ClearField(field.name)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                _clear_times(each)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
