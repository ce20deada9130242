"""Stops broadcasts: noted first, confirmed by dispatcher and inbox, and only then claimed."""

from typing import Final

import structlog
from typing_extensions import override
from wedsync.broadcast.v1 import dispatcher_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.directory import Directory
from services.sender.domain import Broadcast, State, require_transition
from services.sender.messages import broadcast_message
from services.sender.progress import Changes, Progress, has_waiting
from services.sender.store import CallStore, DispatchStore
from shared.errors import IllegalState, NotFound, PermissionDenied, ServiceError
from shared.failpoints import declare, failpoint
from shared.replays import Replays
from shared.rounds import Rounds

log = structlog.get_logger(__name__)

CANCEL: Final = "CancelBroadcast"
AFTER_REQUEST, AFTER_STOP, AFTER_RETRACT, AFTER_FINISH = declare(
    "sender.cancel.after_request",
    "sender.cancel.after_stop",
    "sender.cancel.after_retract",
    "sender.cancel.after_finish",
)


class Stopping:
    """Ends what was noted to be stopped. Every step may be taken again, by anybody, in any process."""

    def __init__(
        self,
        store: DispatchStore,
        dispatcher: DispatcherServiceStub,
        inbox: InboxServiceStub,
        changes: Changes,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._changes = changes

    async def finish(self, broadcast_id: str) -> Broadcast:
        """Have everybody stop, then say so; the broadcast as it is then.

        Raises DependencyUnavailable, with nothing claimed, when one of them does not confirm, and IllegalState when
        the broadcast came to another end before.
        """
        noted = await self._find(broadcast_id)
        stop = await self._dispatcher.StopDispatch(
            dispatcher_pb2.StopDispatchRequest(broadcast_id=broadcast_id)
        )
        await failpoint(AFTER_STOP)
        hide = noted.is_to_be_retracted
        retraction = await self._inbox.RetractBroadcast(
            inbox_pb2.RetractBroadcastRequest(broadcast_id=broadcast_id, hide=hide)
        )
        await failpoint(AFTER_RETRACT)
        meant = stop.targeted if stop.planned else noted.targeted
        is_cancelled = await self._store.finish_cancel(
            broadcast_id,
            stopped=max(0, meant - retraction.arrived),
            already_sent=retraction.arrived,
            retracted=hide,
        )
        if not is_cancelled:
            raise IllegalState("The broadcast came to another end before it could be stopped.")
        await failpoint(AFTER_FINISH)
        return await self._announce(broadcast_id, is_first=noted.cancellation is None)

    async def _announce(self, broadcast_id: str, *, is_first: bool) -> Broadcast:
        broadcast = await self._find(broadcast_id)
        if is_first and broadcast.cancellation is not None:
            log.info(
                "broadcast_cancelled",
                broadcast_id=broadcast_id,
                stopped=broadcast.cancellation.stopped,
                already_sent=broadcast.cancellation.already_sent,
                retracted=broadcast.cancellation.retracted,
            )
        self._changes.tell(broadcast_id)
        return broadcast

    async def _find(self, broadcast_id: str) -> Broadcast:
        broadcast = await self._store.find(broadcast_id)
        if broadcast is None:
            raise NotFound
        return broadcast


class Cancelling:
    """What CancelBroadcast does once the edge has let a call in."""

    def __init__(
        self, store: CallStore, replays: Replays, directory: Directory, progress: Progress, stopping: Stopping
    ) -> None:
        self._store = store
        self._replays = replays
        self._directory = directory
        self._progress = progress
        self._stopping = stopping

    async def replay(
        self, request: sender_pb2.CancelBroadcastRequest
    ) -> sender_pb2.CancelBroadcastResponse | None:
        """The first answer to a repeated cancel."""
        return await self._replays.find(CANCEL, request, sender_pb2.CancelBroadcastResponse)

    async def cancel(self, request: sender_pb2.CancelBroadcastRequest) -> sender_pb2.CancelBroadcastResponse:
        """Stop a broadcast, or answer again for one that was stopped."""
        broadcast = await self._progress.find(request.broadcast_id)
        caller = await self._directory.caller()
        if not caller.is_admin and caller.author != broadcast.author:
            raise PermissionDenied("Only its sender or an admin may cancel a broadcast.")
        if not _is_done(broadcast, retract=request.retract):
            await self._require_stoppable(broadcast, retract=request.retract)
            is_noted = await self._store.request_cancel(
                caller, broadcast.broadcast_id, request.reason, retract=request.retract
            )
            if not is_noted:
                raise IllegalState("The broadcast came to another end just now.")
            await failpoint(AFTER_REQUEST)
            broadcast = await self._stopping.finish(broadcast.broadcast_id)
        return await self._replays.remember(CANCEL, request, _response(broadcast))

    async def _require_stoppable(self, broadcast: Broadcast, *, retract: bool) -> None:
        """Raise IllegalState when there is nothing that could be stopped or taken back."""
        if broadcast.state is State.CANCELLED or broadcast.is_being_cancelled:
            return
        require_transition(broadcast.state, State.CANCELLED)
        if broadcast.state is State.SENT and not retract:
            dispatch = await self._progress.dispatch(broadcast.broadcast_id)
            if not has_waiting(dispatch.ledger):
                raise IllegalState(
                    "Everybody has it, so there is nothing left to stop; retract takes it back."
                )


class CancelFinisher(Rounds):
    """Finishes cancels whose callers were not answered, because somebody was down, and did not come back."""

    def __init__(
        self, store: DispatchStore, stopping: Stopping, *, every_s: float = 5.0, older_than_s: float = 15.0
    ) -> None:
        """`older_than_s` leaves those alone whose calls may still run."""
        super().__init__(every_s)
        self._store = store
        self._stopping = stopping
        self._older_than_s = older_than_s

    @override
    async def look(self) -> None:
        await self.finish_all()

    async def finish_all(self, limit: int = 100) -> int:
        """Try each that is unfinished once; how many are finished now."""
        finished = 0
        for broadcast_id in await self._store.unfinished_cancels(self._older_than_s, limit):
            try:
                await self._stopping.finish(broadcast_id)
            except ServiceError as error:
                log.warning("cancel_unfinished", broadcast_id=broadcast_id, reason=error.reason_name)
            else:
                finished += 1
        return finished


def _is_done(broadcast: Broadcast, *, retract: bool) -> bool:
    cancellation = broadcast.cancellation
    return cancellation is not None and (cancellation.retracted or not retract)


def _response(broadcast: Broadcast) -> sender_pb2.CancelBroadcastResponse:
    cancellation = broadcast.cancellation
    return sender_pb2.CancelBroadcastResponse(
        broadcast=broadcast_message(broadcast),
        stopped=cancellation.stopped if cancellation else 0,
        already_sent=cancellation.already_sent if cancellation else 0,
    )
