"""Owns taking a cancelled broadcast out of the way, and out of inboxes and off screens if that is asked."""

from uuid import UUID

from services.inbox.domain import Retraction
from services.inbox.waking import Waking
from services.inbox.work_store import WorkStore


class Retractions:
    """Tombstones, which no chunk gets past."""

    def __init__(self, store: WorkStore, waking: Waking) -> None:
        self._store = store
        self._waking = waking

    async def retract(self, broadcast_id: UUID, *, hide: bool) -> Retraction:
        """Let nothing of a broadcast arrive any more; what had. With `hide` that goes too."""
        done = await self._store.retract(broadcast_id, hide=hide)
        if hide:
            await self._waking.announce()
        return done
