"""The inbox's edge to NATS: chunks for its lanes, and teams that have changed."""

from typing import Final
from uuid import UUID

import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Counter
from wedsync.broadcast.v1.events_pb2 import DirectoryChanged, InboxDeliveries

from services.inbox.merging import Merging
from services.inbox.messages import BrokenMessage, broadcast_of, chunks_of, reports_of
from services.inbox.teams import Teams
from shared import subjects
from shared.failpoints import declare, failpoint
from shared.outbox import Publisher
from shared.pull_worker import Delivery, Poison

log = structlog.get_logger(__name__)

CHUNKS: Final = Counter(
    "wedsync_inbox_chunks_total", "Chunks by lane and by what became of them.", ["lane", "outcome"]
)

declare("inbox.report.before", "inbox.report.after")


class DeliveryConsumer:
    """Merges the chunks of one lane, and reports those of a message together."""

    def __init__(self, lane: str, merging: Merging, publisher: Publisher) -> None:
        self._lane = lane
        self._merging = merging
        self._publisher = publisher

    async def handle(self, delivery: Delivery) -> None:
        """Return once each chunk is merged, or refused for good, and that is reported."""
        try:
            message = InboxDeliveries.FromString(delivery.payload)
            merged = await self._merging.merge(broadcast_of(message), chunks_of(message))
        except (DecodeError, BrokenMessage) as error:
            raise Poison("BROKEN_MESSAGE") from error
        for _, merge in merged:
            CHUNKS.labels(self._lane, "merged" if merge.is_merged else "stopped").inc()
        first = message.deliveries[0]
        await failpoint("inbox.report.before")
        # Reported before it is acknowledged: a report that is lost is sent again with the chunks.
        await self._publisher.publish(
            subjects.DELIVERY_REPORT,
            reports_of(message, merged).SerializeToString(),
            f"{first.broadcast_id}:{first.chunk}:{first.epoch}",
        )
        await failpoint("inbox.report.after")

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Let go of what cannot be merged: whoever sent it sends it again, and sees in the end that it is hopeless."""
        CHUNKS.labels(self._lane, "buried").inc()
        log.error("chunk_buried", lane=self._lane, message_id=delivery.message_id, cause=reason)


class DirectoryConsumer:
    """Applies teams that have changed, should the directory's own call not have come through."""

    def __init__(self, teams: Teams) -> None:
        self._teams = teams

    async def handle(self, delivery: Delivery) -> None:
        """Return once the wedding's team is not older than the message says."""
        try:
            message = DirectoryChanged.FromString(delivery.payload)
            wedding_id = UUID(message.wedding_id)
        except (DecodeError, ValueError) as error:
            raise Poison("BROKEN_MESSAGE") from error
        await self._teams.refresh(wedding_id, message.team_version)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Let go of what names no team."""
        log.error("team_change_buried", message_id=delivery.message_id, cause=reason)
