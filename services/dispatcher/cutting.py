"""Owns that what is due soon is in small parts: a plan, which somebody waits for, cuts what is held only coarsely."""

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from services.dispatcher.domain import Priority
from services.dispatcher.figures import tell_closed
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.snapshot import Redecision
from services.dispatcher.store import DispatchStore
from services.dispatcher.turns import in_turn
from services.dispatcher.work import WaitingChunk
from shared.audience import Audience
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_EVERY_S: Final = 1.0


class Cutting:
    """Looks every second for what is due within a minute. Whatever it does not get to is released coarsely instead."""

    def __init__(
        self, holds: HoldStore, store: DispatchStore, lanes: Collection[Priority], part: int
    ) -> None:
        """`part` is how many people may go at a time."""
        self._holds = holds
        self._store = store
        self._lanes = lanes
        self._part = part
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return once the present round is through."""
        self._stop.set()

    async def run(self) -> None:
        """Make a round every second until `stop`."""
        while not self._stop.is_set():
            try:
                await self.cut()
            except DependencyUnavailable as error:
                log.warning("cutting_interrupted", error=str(error))
            except Exception:
                log.exception("cutting_failed")
            await wait_for_hint(self._stop, _EVERY_S)

    async def cut(self) -> None:
        """Cut all that is due soon. What somebody else has changed meanwhile stays theirs."""
        while chunks := await self._holds.coarse(self._lanes, self._part):
            for chunk in chunks:
                parts = _parts(chunk, self._part)
                tell_closed(await self._store.redecide([(chunk, parts)], chunk.decided, age_s=0.0))


def _parts(chunk: WaitingChunk, part: int) -> Redecision:
    """The same people, held until the same time."""
    if chunk.release_at is None:
        raise LookupError("a chunk that is held has no time at which it is due")
    return Redecision(Audience(), tuple(in_turn(chunk.members, chunk.release_at, part)))
