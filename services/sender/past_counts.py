"""Owns forgetting the sends that count for no limit any more, because they are more than a day old."""

from typing import Final

from typing_extensions import override

from services.sender.store import DispatchStore
from shared.rounds import Rounds

_EVERY_S: Final = 600.0
_BATCH: Final = 1_000


class PastCounts(Rounds):
    """Clears them away, now and then and in small parts; any number of senders may."""

    def __init__(self, store: DispatchStore) -> None:
        super().__init__(_EVERY_S)
        self._store = store

    @override
    async def look(self) -> None:
        await self.forget()

    async def forget(self, batch: int = _BATCH) -> int:
        """Forget all that is past by now, unless it is stopped meanwhile; how many there were."""
        forgotten = 0
        while not self._ended.is_set():
            deleted = await self._store.forget_past_counts(batch)
            forgotten += deleted
            if deleted < batch:
                break
        return forgotten
