"""Hands out dispatch orders: the content of a broadcast, and the moment at which it begins; counts those to come."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from wedsync.broadcast.v1 import sender_pb2

from services.sender.directory import Directory
from services.sender.domain import Broadcast, State, Wedding, require_transition
from services.sender.messages import order_message
from services.sender.progress import Changes
from services.sender.rights import keeps_right
from services.sender.store import DispatchStore
from shared.clock import Clock
from shared.errors import IllegalState, NotFound, SenderLostRight
from shared.failpoints import declare, failpoint

log = structlog.get_logger(__name__)

BEFORE_BEGIN, AFTER_BEGIN = declare("sender.plan.before_begin", "sender.plan.after_begin")

# The outbox goes by the database's clock and decides what is due; this only catches what was never announced.
_CLOCK_TOLERANCE: Final = timedelta(seconds=5)
_UNDER_WAY: Final = frozenset({State.DISPATCHING, State.SENT})


class Orders:
    """What GetDispatchOrder does once the edge has let a call in."""

    def __init__(self, store: DispatchStore, directory: Directory, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._directory = directory
        self._changes = changes
        self._clock = clock

    async def content(self, broadcast_id: str) -> sender_pb2.DispatchOrder:
        """A broadcast in any state, for an inbox that shows it."""
        return order_message(await self._find(broadcast_id))

    async def segment_uses(self, segment_id: str) -> int:
        """How many broadcasts are scheduled or wait for approval with a segment."""
        return await self._store.count_segment_uses(segment_id)

    async def plan(self, broadcast_id: str) -> sender_pb2.DispatchOrder:
        """A broadcast that is due, for the dispatcher to plan; it is dispatching from here on.

        One that is under way already is answered again, so that a dispatcher which is told of it once more can find out
        that its work is done. Raises IllegalState, and SenderLostRight for one that fails by it.
        """
        broadcast = await self._find(broadcast_id)
        if broadcast.is_being_cancelled:
            raise IllegalState("The broadcast is being cancelled.")
        if broadcast.state in _UNDER_WAY:
            return order_message(broadcast)
        await self._require_due(broadcast, self._clock.now())
        return await self._begin(broadcast, await self._require_right(broadcast))

    async def _find(self, broadcast_id: str) -> Broadcast:
        broadcast = await self._store.find(broadcast_id)
        if broadcast is None:
            raise NotFound
        return broadcast

    async def _require_due(self, broadcast: Broadcast, now: datetime) -> None:
        if _has_run_out(broadcast, now):
            await self._end(broadcast, State.EXPIRED, now)
            raise IllegalState("The broadcast has expired.")
        require_transition(broadcast.state, State.DISPATCHING)
        if broadcast.content.scheduled_for > now + _CLOCK_TOLERANCE:
            raise IllegalState("The broadcast is not due yet.")

    async def _require_right(self, broadcast: Broadcast) -> Wedding | None:
        """What the directory says of its wedding now; the broadcast fails when its author may not send it any more."""
        content = broadcast.content
        author = await self._directory.author(broadcast.author, content.wall)
        if not keeps_right(author, content.type, content.targeting):
            lost = SenderLostRight()
            await self._end(broadcast, State.FAILED, self._clock.now(), f"{lost.reason_name}: {lost.message}")
            raise lost
        return author.wedding(content.wedding.wedding_id) if content.wedding else None

    async def _begin(self, broadcast: Broadcast, wedding: Wedding | None) -> sender_pb2.DispatchOrder:
        await failpoint(BEFORE_BEGIN)
        if not await self._store.begin_dispatch(broadcast.broadcast_id, wedding):
            # Another call, or a cancel, was faster.
            broadcast = await self._find(broadcast.broadcast_id)
            if broadcast.state not in _UNDER_WAY or broadcast.is_being_cancelled:
                raise IllegalState(f"The broadcast is {broadcast.state}.")
            return order_message(broadcast)
        await failpoint(AFTER_BEGIN)
        self._changes.tell(broadcast.broadcast_id)
        content = replace(broadcast.content, wedding=wedding or broadcast.content.wedding)
        return order_message(replace(broadcast, state=State.DISPATCHING, content=content))

    async def _end(self, broadcast: Broadcast, state: State, at: datetime, error: str = "") -> None:
        await self._store.conclude(broadcast.broadcast_id, (broadcast.state,), state, at, error)
        log.warning(
            "broadcast_not_dispatched", broadcast_id=broadcast.broadcast_id, state=state.value, error=error
        )
        self._changes.tell(broadcast.broadcast_id)


def _has_run_out(broadcast: Broadcast, now: datetime) -> bool:
    """Whether it may only expire. One that waits for approval is announced for no other reason."""
    expires_at = broadcast.content.expires_at
    if expires_at is None:
        return False
    if broadcast.state is State.AWAITING_APPROVAL:
        return expires_at <= now + _CLOCK_TOLERANCE
    return broadcast.state is State.PENDING and expires_at <= now
