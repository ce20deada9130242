"""Owns the end of quiet hours: the loop that lets go what was held, of all lanes at one rate."""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from services.dispatcher.figures import LET_GO
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.lanes import Lane
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_MOST_CHUNKS: Final = 256
# A second is spent by four fifths of it, so there is time for a look that comes late.
_RELEASING_PAUSE_S: Final = 0.1
_IDLE_PAUSE_S: Final = 1.0


class Releases:
    """Lets alerts go whose hold has ended. Any number may run, in any number of processes, and keep one rate together.

    Each of them releases for all lanes, so who is next is next wherever their lane is served. It wakes its own: others
    are woken by the loop of their process.
    """

    def __init__(self, store: HoldStore, lanes: Iterable[Lane], release_per_second: int) -> None:
        self._store = store
        self._lanes = tuple(lanes)
        self._release_per_second = release_per_second
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return once the present step is through."""
        self._stop.set()

    async def run(self) -> None:
        """Release until `stop`."""
        while not self._stop.is_set():
            try:
                pause_s = await self.release()
            except DependencyUnavailable as error:
                pause_s = _IDLE_PAUSE_S
                log.warning("release_interrupted", error=str(error))
            except Exception:
                pause_s = _IDLE_PAUSE_S
                log.exception("release_failed")
            await wait_for_hint(self._stop, pause_s)

    async def release(self) -> float:
        """Let go whom this moment has room for; in how many seconds to look again."""
        done = await self._store.let_go(self._release_per_second, _MOST_CHUNKS)
        if done.people:
            LET_GO.inc(done.people)
        for lane in self._lanes:
            if lane.priority in done.lanes:
                lane.wake()
        if done.next_s == 0:
            return _RELEASING_PAUSE_S
        return min(_IDLE_PAUSE_S, done.next_s or _IDLE_PAUSE_S)
