"""Owns what callers do with segments: each change is counted, kept once, and in the log like every other."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog
from wedsync.broadcast.v1 import directory_pb2
from wedsync.broadcast.v1.sender_pb2 import CountSegmentUsesRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.preferences.keeper import IndexKeeper
from services.preferences.segment_messages import masked_paths, segment_message, to_given
from services.preferences.segment_store import SegmentStore
from services.preferences.segments import (
    PAGE_SIZE,
    edit,
    new_segment,
    read_page_token,
    write_page_token,
)
from shared.auth import current_identity
from shared.clock import Clock
from shared.database import Transaction
from shared.errors import FieldViolation, IllegalState
from shared.failpoints import declare, failpoint
from shared.methods import Replay
from shared.replays import OnceOnly

log = structlog.get_logger(__name__)

CREATE, UPDATE, DELETE = "CreateSegment", "UpdateSegment", "DeleteSegment"
USES: Final = "wedsync.broadcast.v1.SenderService/CountSegmentUses"
_SENDER_DEADLINE_S: Final = 2.0
BEFORE_COMMIT, AFTER_COMMIT = declare("preferences.segment.before_commit", "preferences.segment.after_commit")


class Segments:
    """What the five methods about segments do once the edge has let a call in."""

    def __init__(
        self,
        store: SegmentStore,
        once: OnceOnly,
        keeper: IndexKeeper,
        sender: SenderServiceStub,
        clock: Clock,
        wake_teller: Callable[[], None],
    ) -> None:
        """`sender` knows which broadcasts are still to go out; `wake_teller` is told of what is for the audit log."""
        self._store = store
        self._once = once
        self._keeper = keeper
        self._sender = sender
        self._clock = clock
        self._wake_teller = wake_teller

    def replays(self) -> dict[str, Replay | None]:
        """What answers a repeated request before anything about it is judged anew."""
        return {
            CREATE: self._once.replay(CREATE, directory_pb2.CreateSegmentResponse),
            UPDATE: self._once.replay(UPDATE, directory_pb2.UpdateSegmentResponse),
            DELETE: self._once.replay(DELETE, directory_pb2.DeleteSegmentResponse),
        }

    async def create(
        self, request: directory_pb2.CreateSegmentRequest
    ) -> directory_pb2.CreateSegmentResponse:
        """Keep a new segment. Raises InvalidField."""

        async def write(transaction: Transaction) -> directory_pb2.CreateSegmentResponse:
            await self._store.take_turn(transaction, current_identity().name)
            count = len(index.meeting(values.criteria, self._clock.now()))
            segment = await self._store.add(transaction, values, count)
            await failpoint(BEFORE_COMMIT)
            return directory_pb2.CreateSegmentResponse(segment=segment_message(segment))

        values, index = new_segment(to_given(request.segment)), await self._keeper.current()
        response = await self._once.do(CREATE, request, directory_pb2.CreateSegmentResponse, write)
        await failpoint(AFTER_COMMIT)
        self._wake_teller()
        _log_kept("segment_created", response.segment)
        return response

    async def update(
        self, request: directory_pb2.UpdateSegmentRequest
    ) -> directory_pb2.UpdateSegmentResponse:
        """Change what the mask names; with an etag, only if it is still the segment's.

        Raises NotFound, InvalidField, StaleEtag.
        """

        async def write(transaction: Transaction) -> directory_pb2.UpdateSegmentResponse:
            await self._store.take_turn(transaction, current_identity().name)
            segment = await self._store.find_to_change(transaction, UUID(request.segment_id))
            segment.require_etag(request.segment.etag)
            values = edit(segment.values, to_given(request.segment), masked_paths(request))
            if values != segment.values:
                count = len(index.meeting(values.criteria, self._clock.now()))
                segment = await self._store.change(transaction, segment.segment_id, values, count)
                await failpoint(BEFORE_COMMIT)
            return directory_pb2.UpdateSegmentResponse(segment=segment_message(segment))

        index = await self._keeper.current()
        response = await self._once.do(UPDATE, request, directory_pb2.UpdateSegmentResponse, write)
        await failpoint(AFTER_COMMIT)
        self._wake_teller()
        _log_kept("segment_updated", response.segment)
        return response

    async def get(self, segment_id: UUID) -> directory_pb2.GetSegmentResponse:
        """A segment. Raises NotFound."""
        return directory_pb2.GetSegmentResponse(segment=segment_message(await self._store.find(segment_id)))

    async def list(self, request: directory_pb2.ListSegmentsRequest) -> directory_pb2.ListSegmentsResponse:
        """A page by name. Raises InvalidPageToken."""
        after = read_page_token(request.page_token) if request.page_token else ""
        size = request.page_size or PAGE_SIZE
        # One more than is shown says whether there is another page.
        found = await self._store.list_after(after, size + 1)
        shown = found[:size]
        following = write_page_token(shown[-1].values.name) if len(found) > size else ""
        return directory_pb2.ListSegmentsResponse(
            segments=map(segment_message, shown), next_page_token=following
        )

    async def delete(
        self, request: directory_pb2.DeleteSegmentRequest
    ) -> directory_pb2.DeleteSegmentResponse:
        """Remove a segment, and one that broadcasts are still to go out to only by force.

        Raises NotFound, StaleEtag, IllegalState, and DependencyUnavailable when the sender cannot be asked about that.
        A broadcast that is accepted after it was asked finds out at its dispatch, and fails.
        """

        async def write(transaction: Transaction) -> directory_pb2.DeleteSegmentResponse:
            await self._store.take_turn(transaction, current_identity().name)
            segment = await self._store.find_to_change(transaction, segment_id)
            segment.require_etag(request.etag)
            _require_unused(uses, force=request.force)
            await self._store.remove(transaction, segment)
            await failpoint(BEFORE_COMMIT)
            return directory_pb2.DeleteSegmentResponse(failing_broadcasts=uses)

        segment_id = UUID(request.segment_id)
        uses = await self._count_uses(segment_id)
        response = await self._once.do(DELETE, request, directory_pb2.DeleteSegmentResponse, write)
        await failpoint(AFTER_COMMIT)
        self._wake_teller()
        log.info(
            "segment_deleted",
            segment_id=str(segment_id),
            failing_broadcasts=response.failing_broadcasts,
        )
        return response

    async def _count_uses(self, segment_id: UUID) -> int:
        answer = await self._sender.CountSegmentUses(
            CountSegmentUsesRequest(segment_id=str(segment_id)), timeout=_SENDER_DEADLINE_S
        )
        return answer.broadcasts


def _require_unused(uses: int, *, force: bool) -> None:
    if not uses or force:
        return
    raise IllegalState(
        f"Broadcasts that are scheduled or wait for approval with this segment: {uses}.",
        violations=[
            FieldViolation("force", "must be set to remove it all the same; they fail when they are due")
        ],
        metadata={"broadcasts": str(uses)},
    )


def _log_kept(event: str, segment: directory_pb2.Segment) -> None:
    log.info(event, segment_id=segment.segment_id, etag=segment.etag, user_count=segment.user_count)
