"""A call of a server's own to itself, over a socket that nobody else knows: whatever it waits inside gRPC, all wait."""

import os
import secrets
from collections.abc import Mapping
from typing import Any, Final

import grpc

from shared.methods import Handler

SERVICE: Final = "wedsync.edge.Loopback"
_METHOD: Final = "Ask"
_TIMEOUT_S: Final = 10.0


class Loopback:
    """Asks the server that it is added to."""

    def __init__(self, server: grpc.aio.Server) -> None:
        """Listens for itself; the server must not have started yet."""
        # An abstract socket is gone with its process, whatever became of it.
        address = f"unix-abstract:wedsync-{os.getpid()}-{secrets.token_hex(8)}"
        server.add_insecure_port(address)
        self._channel = grpc.aio.insecure_channel(address)
        self._ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            f"/{SERVICE}/{_METHOD}"
        )

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What answers, by the method's name."""
        return {_METHOD: grpc.unary_unary_rpc_method_handler(_answer)}

    async def ask(self) -> None:
        """Returns when the server has answered; it asks like any caller from outside, so that may be a refusal."""
        try:
            await self._ask(b"", timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()


async def _answer(request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
    return request
