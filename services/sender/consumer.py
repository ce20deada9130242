"""The NATS edge of the sender: what dispatchers report that broadcasts have come to."""

from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from google.protobuf.message import DecodeError
from wedsync.broadcast.v1.events_pb2 import BroadcastDue, BroadcastStateChanged

from services.sender.domain import State
from services.sender.messages import state_of, time_of
from services.sender.progress import Changes
from services.sender.store import Conclusion, DispatchStore
from shared.clock import Clock
from shared.failpoints import declare, failpoint
from shared.outbox import ClaimedEntry
from shared.pull_worker import Delivery, Poison

log = structlog.get_logger(__name__)

BEFORE_COMMIT, AFTER_COMMIT = declare("sender.state.before_commit", "sender.state.after_commit")
_REPORTED: Final = frozenset({State.SENT, State.FAILED, State.EXPIRED})


class StateConsumer:
    """Moves a broadcast to what was reported of it. Repetitions, and what comes late, change nothing.

    One that is still pending is moved on first: either a crash forgot that it had begun to be dispatched, or its
    dispatcher never came as far as that and says that it failed.
    """

    def __init__(self, store: DispatchStore, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock

    async def handle(self, delivery: Delivery) -> None:
        """Commit one report. Raises Poison for what is none."""
        event, state, at = self._read(delivery)
        await failpoint(BEFORE_COMMIT)
        conclusion = await self._conclude(event, state, at)
        await failpoint(AFTER_COMMIT)
        if conclusion is None:
            raise Poison("there is no such broadcast")
        log.info(
            "broadcast_state_reported",
            broadcast_id=event.broadcast_id,
            reported=state.value,
            present=conclusion.state.value,
            has_moved=conclusion.has_moved,
            targeted=event.targeted,
        )
        self._changes.tell(event.broadcast_id)

    async def _conclude(self, event: BroadcastStateChanged, state: State, at: datetime) -> Conclusion | None:
        end = (event.broadcast_id, (State.DISPATCHING,), state, at, _reason(event, state))
        conclusion = await self._store.conclude(*end)
        if conclusion is None or conclusion.state is not State.PENDING:
            return conclusion
        # One that is being cancelled stays as it is: its cancel ends it.
        if not await self._store.begin_dispatch(event.broadcast_id, None):
            return conclusion
        log.warning("forgotten_dispatch_begun", broadcast_id=event.broadcast_id)
        return await self._store.conclude(*end)

    def _read(self, delivery: Delivery) -> tuple[BroadcastStateChanged, State, datetime]:
        try:
            event = BroadcastStateChanged.FromString(delivery.payload)
            event.broadcast_id = str(UUID(event.broadcast_id))
        except (DecodeError, ValueError) as error:
            raise Poison("not a BroadcastStateChanged with a broadcast_id") from error
        state = state_of(event.state)
        if state not in _REPORTED:
            raise Poison(f"{state} is nothing that a dispatcher reports")
        reported_at = time_of(event.time) if event.HasField("time") else None
        return event, state, reported_at or self._clock.now()


async def bury(delivery: Delivery, reason: str) -> None:
    """Leave a report that cannot be used to an operator's eye; if its broadcast exists, it is reported again."""
    log.error(
        "broadcast_state_unusable", message_id=delivery.message_id, subject=delivery.subject, reason=reason
    )


def encode_due(entry: ClaimedEntry) -> bytes:
    """The BroadcastDue of an outbox row, with the number of this announcement."""
    due = BroadcastDue.FromString(entry.payload)
    due.epoch = entry.epoch
    return due.SerializeToString()


def _reason(event: BroadcastStateChanged, state: State) -> str:
    if state is not State.FAILED:
        return ""
    return event.error or "INTERNAL: the dispatcher gave no reason"
