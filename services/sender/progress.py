"""Tells what has become of a broadcast, once or as it goes on, counted from the truth each time it is told."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.directory import Directory
from services.sender.domain import Broadcast, State
from services.sender.messages import STATES, broadcast_message, time_message
from services.sender.rights import Caller, require_reader
from services.sender.store import CallStore
from shared.clock import Clock
from shared.errors import DependencyUnavailable, NotFound
from shared.wake import wait_for_hint

DISPATCHER_SERVICE: Final = "wedsync.broadcast.v1.DispatcherService"
INBOX_SERVICE: Final = "wedsync.broadcast.v1.InboxService"
_SHORTEST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
_WAITING: Final = frozenset({common_pb2.DELIVERY_STATE_PENDING, common_pb2.DELIVERY_STATE_HELD})
_ARRIVED: Final = frozenset({common_pb2.DELIVERY_STATE_SENT, common_pb2.DELIVERY_STATE_DELIVERED})


class Changes:
    """Hints to those who watch a broadcast in this process. What another process changes they find by looking."""

    def __init__(self) -> None:
        self._watching: dict[str, set[asyncio.Event]] = {}
        self._closing = False

    def tell(self, broadcast_id: str) -> None:
        """This broadcast has changed."""
        for hint in self._watching.get(broadcast_id, ()):
            hint.set()

    async def close(self) -> None:
        """End every watch: the process is about to end."""
        self._closing = True
        for broadcast_id in self._watching:
            self.tell(broadcast_id)

    def require_open(self) -> None:
        """Raise DependencyUnavailable once `close` was called."""
        if self._closing:
            raise DependencyUnavailable("The server is about to end; watch again.")

    @contextmanager
    def watched(self, broadcast_id: str) -> Iterator[asyncio.Event]:
        """An event that is set by every hint while the block runs."""
        hint = asyncio.Event()
        self._watching.setdefault(broadcast_id, set()).add(hint)
        try:
            yield hint
        finally:
            self._watching[broadcast_id].discard(hint)
            if not self._watching[broadcast_id]:
                del self._watching[broadcast_id]


@dataclass(frozen=True, slots=True)
class _Sight:
    """A broadcast as it was at one moment of a clock that never jumps."""

    broadcast: Broadcast
    stats: sender_pb2.BroadcastStats
    seen_at: float

    @property
    def is_over(self) -> bool:
        return self.broadcast.state.is_final and not has_waiting(self.stats.ledger)

    @property
    def arrived(self) -> int:
        return sum(line.count for line in self.stats.ledger if line.state in _ARRIVED)

    def is_news(self, before: "_Sight | None") -> bool:
        """Whether anything but time has changed."""
        return before is None or self.broadcast.state != before.broadcast.state or self.stats != before.stats

    def rate_since(self, before: "_Sight | None") -> float:
        """Deliveries a second since an earlier sight."""
        if before is None or self.seen_at <= before.seen_at:
            return 0.0
        return max(0, self.arrived - before.arrived) / (self.seen_at - before.seen_at)


class Progress:
    """What GetBroadcast and WatchBroadcast do once the edge has let a call in."""

    def __init__(
        self,
        store: CallStore,
        directory: Directory,
        dispatcher: DispatcherServiceStub,
        inbox: InboxServiceStub,
        changes: Changes,
        clock: Clock,
    ) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._changes = changes
        self._clock = clock

    async def find(self, broadcast_id: str) -> Broadcast:
        """A broadcast that is the caller's to see. Raises NotFound for any other."""
        caller = await self._directory.caller()
        if caller.is_coordinator:
            caller = await self._directory.caller(await self._store.find_wall(broadcast_id))
        return await self._visible(caller, broadcast_id)

    async def get(self, broadcast_id: str) -> sender_pb2.GetBroadcastResponse:
        """A broadcast and what has become of it."""
        broadcast = await self.find(broadcast_id)
        return sender_pb2.GetBroadcastResponse(
            broadcast=broadcast_message(broadcast), stats=await self._stats(broadcast)
        )

    async def watch(self, broadcast_id: str) -> AsyncIterator[sender_pb2.WatchBroadcastResponse]:
        """What has become of it, again whenever that has changed, until nothing can change any more.

        The right to see it is asked for each time. Raises DependencyUnavailable when the server is about to end.
        """
        told: _Sight | None = None
        pause_s = _SHORTEST_PAUSE_S
        with self._changes.watched(broadcast_id) as hint:
            while told is None or not told.is_over:
                self._changes.require_open()
                hint.clear()
                sight = await self._look(broadcast_id)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                if sight.is_news(told):
                    yield self._progress(sight, told)
                    told, pause_s = sight, _SHORTEST_PAUSE_S
                if not sight.is_over:
                    await wait_for_hint(hint, pause_s)

    async def dispatch(self, broadcast_id: str) -> dispatcher_pb2.Dispatch:
        """What the dispatcher knows of a broadcast; nothing before it has planned it."""
        return await self._find_dispatch(broadcast_id) or dispatcher_pb2.Dispatch(broadcast_id=broadcast_id)

    async def _find_dispatch(self, broadcast_id: str) -> dispatcher_pb2.Dispatch | None:
        request = dispatcher_pb2.GetDispatchRequest(broadcast_id=broadcast_id)
        try:
            return (await self._dispatcher.GetDispatch(request)).dispatch
        except NotFound:
            return None

    async def _visible(self, caller: Caller, broadcast_id: str) -> Broadcast:
        broadcast = await self._store.find_visible(caller, broadcast_id)
        if broadcast is None:
            raise NotFound if caller.reads_all else NotFound.or_not_yours()
        return broadcast

    async def _look(self, broadcast_id: str) -> _Sight:
        # The state first: once it is final, what is counted after it is complete.
        caller = await self._directory.caller_now(await self._store.find_wall(broadcast_id))
        require_reader(caller)
        broadcast = await self._visible(caller, broadcast_id)
        return _Sight(broadcast, await self._stats(broadcast), self._clock.monotonic())

    async def _stats(self, broadcast: Broadcast) -> sender_pb2.BroadcastStats:
        # Inboxes first: nobody is in one who is not in the dispatch that is asked for after it.
        request = inbox_pb2.GetEngagementRequest(broadcast_ids=[broadcast.broadcast_id])
        engagement = (await self._inbox.GetEngagement(request)).engagements[0]
        dispatch = await self._find_dispatch(broadcast.broadcast_id)
        # One that was sent had a dispatch: where there is none any more, retention has removed it.
        is_cleaned = dispatch is None and broadcast.state is State.SENT
        return stats_message(dispatch or dispatcher_pb2.Dispatch(), engagement, is_cleaned=is_cleaned)

    def _progress(self, sight: _Sight, before: _Sight | None) -> sender_pb2.WatchBroadcastResponse:
        engagement = sight.stats.engagement
        return sender_pb2.WatchBroadcastResponse(
            state=STATES[sight.broadcast.state],
            stats=sight.stats,
            unacknowledged=engagement.delivered - engagement.acknowledged,
            deliveries_per_second=sight.rate_since(before),
            time=time_message(self._clock.now()),
        )


def stats_message(
    dispatch: dispatcher_pb2.Dispatch, engagement: common_pb2.Engagement, *, is_cleaned: bool = False
) -> sender_pb2.BroadcastStats:
    """Ledger, people by receipt, and the rates, which are absent where they would divide by 0.

    What retention has removed is left out instead of told as nothing: `is_cleaned` says so of the ledger.
    """
    stats = sender_pb2.BroadcastStats(targeted=dispatch.targeted, ledger=dispatch.ledger, cleaned=is_cleaned)
    if engagement.HasField("cleaned_time"):
        stats.cleaned = True
        return stats
    stats.engagement.CopyFrom(engagement)
    if dispatch.targeted:
        stats.delivery_rate = engagement.delivered / dispatch.targeted
    if engagement.delivered:
        stats.engagement_rate = engagement.read / engagement.delivered
    return stats


def has_waiting(ledger: Iterable[common_pb2.LedgerEntry]) -> bool:
    """Whether a ledger has deliveries that are pending or held."""
    return any(line.count and line.state in _WAITING for line in ledger)
