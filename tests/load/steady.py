"""Calls at a steady pace whatever comes back, and what became of them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from wedsync.broadcast.client import BroadcastError

PAUSE_S = 0.15


class Steady:
    """Calls one after the other every few moments, and what became of each."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """Calls until cancelled, whatever comes back."""
        while True:
            task = asyncio.create_task(self._one(name, call))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            await asyncio.sleep(PAUSE_S)

    async def finish(self) -> None:
        """Waits for what is open now."""
        if self._calls:
            await asyncio.wait(self._calls.copy())

    async def _one(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except BroadcastError as error:
            self.failures.append((name, str(error)))
        else:
            self.answered[name] += 1
