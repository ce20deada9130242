"""Owns calling again, as a good client does: the same request, until a server that is too busy now has answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

_AGAIN: Final = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE})
_DEADLINE_S: Final = 30.0
_PAUSE_S: Final = 0.1
_Answer = TypeVar("_Answer")


async def until_answered(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """The answer. Raises grpc.aio.AioRpcError for a refusal, and when it takes too long."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AGAIN or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_PAUSE_S)


async def all_at_once(call: Callable[[], Awaitable[_Answer]], times: int) -> list[_Answer]:
    """The answers to that many calls, made at the same moment."""
    return await asyncio.gather(*(until_answered(call) for _ in range(times)))
