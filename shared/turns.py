"""Places for calls that are worked on at once, and the queue for them, which is short because nobody stays long."""

import asyncio
import time
from collections import deque
from typing import Any, Final

import grpc

from shared.errors import DeadlineExceeded, TooManyCalls

RETRY_S: Final = 1.0
"""When to come again, for a call that found no place."""


class Turns:
    """Places for calls that are worked on at once, and the queue for them: short, and nobody stays in it for long."""

    def __init__(self, at_once: int, longest_wait_s: float = 1.0) -> None:
        self._free = at_once
        self._longest_wait_s = longest_wait_s
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    def take(self) -> bool:
        """Take a place, if there is one and nobody waits for it."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        return False

    async def wait(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """Take a place once there is one. Raises TooManyCalls after too long, DeadlineExceeded when it is too late."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((time.monotonic(), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give()
            raise
        if context.time_remaining() == 0:
            # Nobody waits for the answer any more.
            self.give()
            raise DeadlineExceeded

    def give(self) -> None:
        """Let the next one have a place."""
        if self._waiting:
            self.refuse_late(time.monotonic())
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def refuse_late(self, now: float) -> None:
        """Refuse those who have waited too long."""
        while self._waiting and now - self._waiting[0][0] > self._longest_wait_s:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(TooManyCalls(retry_after_s=RETRY_S))

    def oldest_wait_s(self, now: float) -> float:
        """How long the first in the queue has waited."""
        return now - self._waiting[0][0] if self._waiting else 0.0
