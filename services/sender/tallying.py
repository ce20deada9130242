"""Counts broadcasts for analytics: each day of each, from what dispatcher and inbox have on record as of its end."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Final

import structlog
from typing_extensions import override
from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2, inbox_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.analytics import Counted, Counts, Tally, day_of, end_of, follow, leave, portions
from services.sender.analytics_store import TallyStore
from services.sender.messages import time_message
from shared.clock import Clock
from shared.errors import NotFound, ServiceError
from shared.failpoints import declare, failpoint
from shared.rounds import Rounds
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

AFTER_CLAIM, BEFORE_KEEP, AFTER_KEEP = declare(
    "sender.tally.after_claim", "sender.tally.before_keep", "sender.tally.after_keep"
)
_BATCH: Final = 100
_LEASE_S: Final = 60.0
_LOOK_S: Final = 1.0
# Of a minute, 12 s: what people wait for comes first.
_REST: Final = 4
# A day of a million people, half of whom have read it, takes the inbox a second or two.
_ANSWER_S: Final = 15.0
_DISPATCHES_AT_ONCE: Final = 16


class Tallying(Rounds):
    """Any number may run. Whatever one of them leaves undone is due again after its lease, and comes out the same."""

    def __init__(
        self,
        store: TallyStore,
        dispatcher: DispatcherServiceStub,
        inbox: InboxServiceStub,
        clock: Clock,
        shortest_s: float,
    ) -> None:
        """`shortest_s` is how long a broadcast is left alone at least before it is counted again."""
        super().__init__(_LOOK_S)
        self._store = store
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._clock = clock
        self._shortest = timedelta(seconds=shortest_s)
        self._asking = asyncio.Semaphore(_DISPATCHES_AT_ONCE)

    @override
    async def look(self) -> None:
        """Count all that is due, with rests in proportion to what there was to do."""
        is_more = True
        while is_more and not self._ended.is_set():
            began = self._clock.monotonic()
            try:
                is_more = await self.count_due() == _BATCH
            except ServiceError as error:
                log.warning("tallying_interrupted", reason=error.reason_name)
                is_more = False
            await wait_for_hint(self._ended, _REST * (self._clock.monotonic() - began))

    async def count_due(self) -> int:
        """Count what is due, as much as one look takes on; how many broadcasts that were.

        Raises DependencyUnavailable; what was not kept by then is due again after its lease.
        """
        claimed = await self._store.claim(_BATCH, _LEASE_S)
        if not claimed:
            return 0
        await failpoint(AFTER_CLAIM)
        tallies = await asyncio.gather(*map(self._with_targeted, claimed))
        await self._keep(follow(each, None, self._shortest) for each in tallies if each.targeted is None)
        for portion in portions(each for each in tallies if each.targeted is not None):
            await self._keep(await self._count(portion))
        return len(claimed)

    async def _with_targeted(self, tally: Tally) -> Tally:
        """The tally with how many its snapshot holds, and from the day of that on; as it was while there is none."""
        if tally.targeted is not None:
            return tally
        request = dispatcher_pb2.GetDispatchRequest(broadcast_id=tally.broadcast_id)
        async with self._asking:
            try:
                dispatch = (await self._dispatcher.GetDispatch(request)).dispatch
            except NotFound:
                return tally
        if not dispatch.HasField("plan_time"):
            return tally
        planned_on = day_of(dispatch.plan_time.ToDatetime(UTC))
        return replace(tally, targeted=dispatch.targeted, day=planned_on)

    async def _count(self, tallies: Sequence[Tally]) -> list[Counted]:
        """What people had done by the end of the day of these tallies, which is the same for all."""
        request = inbox_pb2.GetEngagementRequest(
            broadcast_ids=[each.broadcast_id for each in tallies], until=time_message(end_of(tallies[0].day))
        )
        answer = await self._inbox.GetEngagement(request, timeout=_ANSWER_S)
        found = zip(tallies, answer.engagements, answer.times_to_read, strict=True)
        counted = [
            leave(tally)
            if engagement.HasField("cleaned_time")
            else follow(tally, _counts(tally.targeted or 0, engagement, taken.ToTimedelta()), self._shortest)
            for tally, engagement, taken in found
        ]
        return [each for each in counted if self._is_possible(each)]

    def _is_possible(self, counted: Counted) -> bool:
        """Whether these counts can be true. Those that cannot are told, and counted again after their lease."""
        if counted.counts is None or counted.counts.is_possible:
            return True
        log.error("impossible_count", broadcast_id=counted.tally.broadcast_id, counts=str(counted.counts))
        return False

    async def _keep(self, counted: Iterable[Counted]) -> None:
        await failpoint(BEFORE_KEEP)
        await self._store.keep(list(counted))
        await failpoint(AFTER_KEEP)


def _counts(targeted: int, engagement: common_pb2.Engagement, time_to_read: timedelta) -> Counts:
    return Counts(
        targeted=targeted,
        delivered=engagement.delivered,
        read=engagement.read,
        acknowledged=engagement.acknowledged,
        clicked=engagement.clicked,
        time_to_read=time_to_read,
    )
