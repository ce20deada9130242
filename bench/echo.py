"""The peer of the inbox's benchmark: a bare `grpc.aio` server that answers with what it was sent, a process of its own.

`python -m bench.echo` prints the port that it listens on, and serves until its input ends.
"""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

METHOD = "/bench.Echo/Call"


class _Echo(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(_answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        return self._handler


async def _answer(request: bytes, context: object) -> bytes:
    return request


async def serve() -> None:
    """Serves on a free port of loopback."""
    server = grpc.aio.server(handlers=[_Echo()])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve())
