"""Owns forgetting what nobody can ask for any more: entries of the log that no stream may go on from."""

import asyncio
from typing import Final

import structlog

from services.inbox.work_store import WorkStore
from shared.errors import DependencyUnavailable

log = structlog.get_logger(__name__)

_PAUSE_S: Final = 600.0
_BATCH: Final = 500


class Retention:
    """Prunes the log, now and then and in small parts; any number of nodes may."""

    def __init__(self, store: WorkStore, log_retention_s: float) -> None:
        self._store = store
        self._log_retention_s = log_retention_s

    async def run(self) -> None:
        """Go on for good."""
        while True:
            try:
                await self.prune()
            except DependencyUnavailable as error:
                log.warning("log_not_pruned", error=str(error))
            await asyncio.sleep(_PAUSE_S)

    async def prune(self) -> int:
        """Delete what is older than the retention; how many entries there were."""
        pruned = 0
        while True:
            deleted = await self._store.prune_log(self._log_retention_s, _BATCH)
            pruned += deleted
            if deleted < _BATCH:
                return pruned
