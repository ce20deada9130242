"""Owns the end of a call, which is fixed when it begins: all that it waits for until then shares what is left."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import grpc
from wedsync.broadcast.client.errors import DeadlineExceeded

Answer = TypeVar("Answer")


class Deadline:
    """So many seconds from the moment it is made."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = asyncio.get_running_loop().time() + seconds

    def remaining_s(self) -> float:
        """Seconds until then, 0 when it has passed."""
        return max(0.0, self._end - asyncio.get_running_loop().time())

    async def wait_for(self, awaited: Awaitable[Answer], lack: str) -> Answer:
        """What is awaited. Raises DeadlineExceeded, which says what is lacking, when it has not come by then."""
        until = asyncio.timeout_at(self._end)
        try:
            async with until:
                return await awaited
        except TimeoutError:
            # Whatever is awaited may have a timeout of its own.
            if not until.expired():
                raise
            raise DeadlineExceeded(
                grpc.StatusCode.DEADLINE_EXCEEDED, details=f"{lack} within {round(self._seconds, 2):g} s."
            ) from None
