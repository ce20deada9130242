"""Owns what waits to be written to one stream, and how a stream ends: not later than its reader can bear."""

import asyncio
from collections import deque
from copy import copy
from typing import Final

from shared.errors import ServiceError, SlowReader

_SYNCS_AT_ONCE: Final = 16


class Outlet:
    """Payloads for one stream, in order. A reader `limit_bytes` behind is cut off; who has time waits for room."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting: deque[tuple[bytes, str]] = deque()
        self._waiting_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._error: ServiceError | None = None
        self._cursor = ""
        self.turn = asyncio.Semaphore(_SYNCS_AT_ONCE)
        """Held by who is about to put much: so that room is not promised twice."""

    def put(self, payload: bytes, cursor: str = "") -> None:
        """Write this next; the reader can go on after it from `cursor`."""
        if self._error is not None:
            return
        if self._waiting and self._waiting_bytes + len(payload) > self._limit_bytes:
            self.end(SlowReader())
            return
        self._waiting.append((payload, cursor))
        self._add_bytes(len(payload))
        _wake(self._reader)

    def end(self, error: ServiceError) -> None:
        """Write nothing more, not even what waits: the reader goes on after what it has."""
        if self._error is not None:
            return
        # One error may end many streams, each of which has a cursor of its own.
        self._error = copy(error)
        self._error.metadata = {**error.metadata, "cursor": self._cursor} if self._cursor else error.metadata
        self._waiting.clear()
        self._add_bytes(-self._waiting_bytes)
        _wake(self._reader)

    async def take(self, timeout_s: float) -> bytes | None:
        """The next payload, None when there was none for a while. Raises the error that ended the stream."""
        if not self._waiting and self._error is None:
            await self._wait(timeout_s)
        if self._error is not None:
            raise self._error
        if not self._waiting:
            return None
        payload, cursor = self._waiting.popleft()
        self._add_bytes(-len(payload))
        self._cursor = cursor or self._cursor
        return payload

    async def room(self) -> None:
        """Return when less waits than half of what may, or the stream has ended."""
        await self._has_room.wait()

    async def _wait(self, timeout_s: float) -> None:
        """Return when there is something to take, or time is up. A thousand streams come here for each broadcast."""
        loop = asyncio.get_running_loop()
        self._reader = loop.create_future()
        timer = loop.call_later(timeout_s, _wake, self._reader)
        try:
            await self._reader
        finally:
            self._reader = None
            timer.cancel()

    def _add_bytes(self, count: int) -> None:
        self._waiting_bytes += count
        if self._waiting_bytes * 2 < self._limit_bytes:
            self._has_room.set()
        else:
            self._has_room.clear()


def _wake(reader: "asyncio.Future[None] | None") -> None:
    if reader is not None and not reader.done():
        reader.set_result(None)
