"""Owns work that looks again and again for what there is to do, and lets an outage only put it off."""

import asyncio
from abc import ABC, abstractmethod

import structlog

from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)


class Rounds(ABC):
    """Goes its round at once, and then every so many seconds until it is stopped."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._ended = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return once what it has begun is done."""
        self._ended.set()

    async def run(self) -> None:
        """Look again and again until `stop`."""
        while not self._ended.is_set():
            try:
                await self.look()
            except DependencyUnavailable as error:
                log.warning("round_interrupted", of=type(self).__name__, error=str(error))
            await wait_for_hint(self._ended, self._every_s)

    @abstractmethod
    async def look(self) -> None:
        """Go one round. DependencyUnavailable ends it until the next."""
