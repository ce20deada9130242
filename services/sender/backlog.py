"""Owns how much may wait to be delivered: beyond that a new broadcast is refused, because accepting it is a promise."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import structlog

from services.sender.domain import Priority
from services.sender.store import DispatchStore
from shared.errors import DependencyUnavailable, TooManyCalls

log = structlog.get_logger(__name__)

# A count is good for that long, and one that is this much older says nothing about now.
_FRESH_S: Final = 0.25
_STALE_S: Final = 2.0
_RETRY_S: Final = 2.0


class Backlog:
    """What is due and not delivered, by priority: counted now and then, and by what was accepted here since.

    Any number of senders may share the limit; each may pass it by what the others accept between two counts.
    """

    def __init__(self, store: DispatchStore, limits: Mapping[Priority, int]) -> None:
        """A priority without a limit is never refused."""
        self._store = store
        self._limits = limits
        self._waiting: Mapping[Priority, int] = {}
        self._accepted: dict[Priority, int] = {}
        self._counted_at = float("-inf")
        self._counting: asyncio.Task[None] | None = None

    def require_room(self, priority: Priority) -> None:
        """Raise TooManyCalls when as much of this priority waits as may."""
        limit = self._limits.get(priority)
        if limit is None:
            return
        age_s = time.monotonic() - self._counted_at
        if age_s > _FRESH_S and self._counting is None:
            self._counting = asyncio.create_task(self._count(), name="backlog")
        waiting = self._waiting.get(priority, 0) + self._accepted.get(priority, 0)
        if waiting >= limit and age_s < _STALE_S:
            raise TooManyCalls(
                f"{limit:,} or more {priority.slug} broadcasts are being delivered; send this one in a moment.",
                retry_after_s=_RETRY_S,
                metadata={"priority": priority.slug},
            )

    def add(self, priority: Priority) -> None:
        """One more was accepted that is due."""
        self._accepted[priority] = self._accepted.get(priority, 0) + 1

    async def close(self) -> None:
        """Count no more."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _count(self) -> None:
        # Whatever is accepted while the question runs may or may not be in its answer: it counts as not.
        accepted, self._accepted = self._accepted, {}
        try:
            self._waiting = await self._store.count_waiting()
            self._counted_at = time.monotonic()
        except DependencyUnavailable as error:
            self._accepted = {
                each: accepted.get(each, 0) + self._accepted.get(each, 0) for each in self._limits
            }
            log.warning("backlog_not_counted", error=str(error))
        finally:
            self._counting = None
