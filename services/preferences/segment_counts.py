"""Owns keeping the counts of segments fresh: people, teams and days change, and no segment with them."""

from typing_extensions import override

from services.preferences.keeper import IndexKeeper
from services.preferences.segment_store import SegmentStore
from shared.clock import Clock
from shared.rounds import Rounds


class SegmentCounter(Rounds):
    """Counts now and then who is in each segment. Any number may run: what one has counted the others leave alone."""

    def __init__(self, store: SegmentStore, keeper: IndexKeeper, clock: Clock, every_s: float) -> None:
        """`every_s` is how often it looks; what was counted in the second half of that time is fresh enough."""
        super().__init__(every_s)
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._fresh_s = every_s / 2

    @override
    async def look(self) -> None:
        await self.count()

    async def count(self) -> int:
        """Count what is due, one after the other; how many segments that were."""
        due = await self._store.due_counts(self._fresh_s)
        index = await self._keeper.current()
        for segment_id in due:
            segment = index.segment(segment_id)
            if segment is not None:
                members = index.meeting(segment.criteria, self._clock.now())
                await self._store.keep_count(segment_id, segment.version, len(members))
        return len(due)
