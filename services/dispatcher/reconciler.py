"""Owns what time alone brings about: leases that end unanswered, and broadcasts that expire."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import structlog

from services.dispatcher.courier import Courier
from services.dispatcher.domain import Priority
from services.dispatcher.figures import CHUNKS_SENT_AGAIN, tell_closed
from services.dispatcher.store import DispatchStore
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_EVERY_S: Final = 1.0
_BATCH: Final = 64
_STUCK_AFTER: Final = 5
"""Epochs after which a chunk that the inbox does not answer for is an error and no longer a delay."""


class Reconciler:
    """Looks every second after the chunks of its lanes. Any number may run, in any number of processes."""

    def __init__(self, store: DispatchStore, courier: Courier, lanes: Collection[Priority]) -> None:
        self._store = store
        self._courier = courier
        self._lanes = lanes
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return once the present round is through."""
        self._stop.set()

    async def run(self) -> None:
        """Make a round every second until `stop`."""
        steps = (self.send_again, self.expire)
        while not self._stop.is_set():
            for step in steps:
                await self._attempt(step)
            await wait_for_hint(self._stop, _EVERY_S)

    async def send_again(self) -> None:
        """Send what the inbox has not answered for in time, under the next epoch, until nothing is overdue."""
        self._courier.require_connection()
        while chunks := await self._store.lease_again(self._lanes, _BATCH):
            for chunk in chunks:
                CHUNKS_SENT_AGAIN.labels(chunk.priority.slug).inc()
                tell = log.error if chunk.epoch > _STUCK_AFTER else log.warning
                tell(
                    "chunk_sent_again",
                    broadcast_id=str(chunk.broadcast_id),
                    chunk=chunk.chunk,
                    epoch=chunk.epoch,
                )
            await self._courier.send_apart(chunks)
            if len(chunks) < _BATCH:
                break

    async def expire(self) -> None:
        """End what still waits of broadcasts that have expired."""
        tell_closed(await self._store.expire(self._lanes))

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        """One thing that cannot be done now must not keep the others from being done."""
        try:
            await step()
        except DependencyUnavailable as error:
            log.warning("reconciler_interrupted", step=step.__name__, error=str(error))
        except Exception:
            log.exception("reconciler_failed", step=step.__name__)
