"""Owns how long to wait before a call is made again: as the service says, else longer and longer, and never in step."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from wedsync.broadcast.client.errors import BroadcastError

Answer = TypeVar("Answer")

_FIRST_S: Final = 0.2
# Whoever is told to come again at once would otherwise do nothing else.
_LEAST_S: Final = 0.1
_CEILING_S: Final = 5.0
# Of those who were told the same moment, not all come in it.
_SPREAD: Final = 0.1


@dataclass(frozen=True, slots=True)
class Waiting:
    """The clock, the pauses and the chance of a client; a test has its own."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random

    def pause_s(self, failures: int, hint: timedelta | None) -> float:
        """Seconds until the next try, after so many failures in a row; never less than the hint of a service."""
        if hint is not None:
            return max(_LEAST_S, hint.total_seconds()) * (1.0 + _SPREAD * self.chance())
        whole = min(_CEILING_S, _FIRST_S * 2.0 ** min(failures - 1, 16))
        return whole * (0.5 + 0.5 * self.chance())

    async def patiently(self, call: Callable[[], Awaitable[Answer]], budget_s: float) -> Answer:
        """The answer to a call, made again whenever it is refused and told when to come again.

        Raises the refusal once that would be more than `budget_s` seconds of waiting in all.
        """
        while True:
            try:
                return await call()
            except BroadcastError as error:
                if error.retry_after is None:
                    raise
                pause_s = self.pause_s(1, error.retry_after)
                if pause_s > budget_s:
                    raise
            budget_s -= pause_s
            await self.sleep(pause_s)
