"""Has another admin decide about what waits for approval; the decision and what follows from it are one transaction."""

from collections.abc import Callable
from typing import Final

import structlog
from wedsync.broadcast.v1 import sender_pb2

from services.sender.backlog import Backlog
from services.sender.directory import Directory
from services.sender.domain import Broadcast, State
from services.sender.messages import broadcast_message
from services.sender.progress import Changes, Progress
from services.sender.rights import Caller, require_decider
from services.sender.store import DispatchStore
from shared.clock import Clock
from shared.errors import IllegalState
from shared.failpoints import declare, failpoint
from shared.replays import Replays

log = structlog.get_logger(__name__)

APPROVE: Final = "ApproveBroadcast"
REJECT: Final = "RejectBroadcast"
BEFORE_COMMIT, AFTER_COMMIT = declare("sender.decide.before_commit", "sender.decide.after_commit")


class Approval:
    """What ApproveBroadcast and RejectBroadcast do once the edge has let a call in."""

    def __init__(
        self,
        store: DispatchStore,
        replays: Replays,
        directory: Directory,
        progress: Progress,
        backlog: Backlog,
        changes: Changes,
        clock: Clock,
        wake_relay: Callable[[], None],
    ) -> None:
        """`wake_relay` is told of every approval, after which something may be due."""
        self._store = store
        self._replays = replays
        self._directory = directory
        self._progress = progress
        self._backlog = backlog
        self._changes = changes
        self._clock = clock
        self._wake_relay = wake_relay

    async def replay_approval(
        self, request: sender_pb2.ApproveBroadcastRequest
    ) -> sender_pb2.ApproveBroadcastResponse | None:
        """The first answer to a repeated approval."""
        return await self._replays.find(APPROVE, request, sender_pb2.ApproveBroadcastResponse)

    async def replay_rejection(
        self, request: sender_pb2.RejectBroadcastRequest
    ) -> sender_pb2.RejectBroadcastResponse | None:
        """The first answer to a repeated rejection."""
        return await self._replays.find(REJECT, request, sender_pb2.RejectBroadcastResponse)

    async def approve(
        self, request: sender_pb2.ApproveBroadcastRequest
    ) -> sender_pb2.ApproveBroadcastResponse:
        """Let a broadcast go out, now or when it is scheduled."""
        broadcast = await self._decide(request.broadcast_id, State.PENDING, request.reason)
        response = sender_pb2.ApproveBroadcastResponse(broadcast=broadcast_message(broadcast))
        return await self._replays.remember(APPROVE, request, response)

    async def reject(self, request: sender_pb2.RejectBroadcastRequest) -> sender_pb2.RejectBroadcastResponse:
        """End a broadcast before anybody has it."""
        broadcast = await self._decide(request.broadcast_id, State.REJECTED, request.reason)
        response = sender_pb2.RejectBroadcastResponse(broadcast=broadcast_message(broadcast))
        return await self._replays.remember(REJECT, request, response)

    async def _decide(self, broadcast_id: str, state: State, reason: str) -> Broadcast:
        """The broadcast as it is once this is the caller's decision, be it by an earlier call of theirs."""
        broadcast = await self._progress.find(broadcast_id)
        caller = await self._directory.caller()
        require_decider(caller, broadcast.author)
        if _has_decided(caller, broadcast, state):
            return broadcast
        await failpoint(BEFORE_COMMIT)
        is_decided = await self._store.decide(broadcast, caller.author, state, reason)
        await failpoint(AFTER_COMMIT)
        broadcast = await self._progress.find(broadcast_id)
        if is_decided:
            self._carry_on(broadcast)
        elif not _has_decided(caller, broadcast, state):
            await self._refuse(broadcast)
        return broadcast

    def _carry_on(self, broadcast: Broadcast) -> None:
        is_rejected = broadcast.state is State.REJECTED
        log.info(
            "broadcast_rejected" if is_rejected else "broadcast_approved",
            broadcast_id=broadcast.broadcast_id,
            type=broadcast.content.type.name,
            priority=broadcast.content.priority.slug,
            targeted=broadcast.targeted,
        )
        if not is_rejected:
            if broadcast.content.scheduled_for <= self._clock.now():
                self._backlog.add(broadcast.content.priority)
            self._wake_relay()
        self._changes.tell(broadcast.broadcast_id)

    async def _refuse(self, broadcast: Broadcast) -> None:
        """Raise IllegalState, which says what was in the way of a decision."""
        if broadcast.state is not State.AWAITING_APPROVAL:
            raise IllegalState(f"The broadcast is {broadcast.state}: it does not wait for approval.")
        if broadcast.is_being_cancelled:
            raise IllegalState("The broadcast is being cancelled.")
        # The database refuses what has expired, before the timer in its outbox has ended it.
        await self._store.conclude(
            broadcast.broadcast_id, (State.AWAITING_APPROVAL,), State.EXPIRED, self._clock.now()
        )
        log.warning(
            "broadcast_not_dispatched",
            broadcast_id=broadcast.broadcast_id,
            state=State.EXPIRED.value,
            error="",
        )
        self._changes.tell(broadcast.broadcast_id)
        raise IllegalState("The broadcast has expired while it waited for approval.")


def _has_decided(caller: Caller, broadcast: Broadcast, state: State) -> bool:
    decision = broadcast.decision
    is_theirs = decision is not None and decision.by == caller.author.name
    return is_theirs and (state is State.REJECTED) == (broadcast.state is State.REJECTED)
