"""Owns the way of leased chunks to the inbox."""

import asyncio
from collections.abc import Sequence

import structlog

from services.dispatcher.figures import CHUNKS_SENT
from services.dispatcher.messages import delivery_payload
from services.dispatcher.work import LeasedChunk
from shared import subjects
from shared.errors import DependencyUnavailable
from shared.failpoints import declare, failpoint
from shared.messaging import Messaging

log = structlog.get_logger(__name__)

declare("dispatcher.publish.before", "dispatcher.publish.after")


class Courier:
    """Publishes chunks, all of a batch at the same time."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    def require_connection(self) -> None:
        """Raise DependencyUnavailable while nothing could be sent: what was leased then would only wait."""
        if not self._messaging.is_connected:
            raise DependencyUnavailable("NATS cannot be reached.")

    async def send(self, chunks: Sequence[LeasedChunk]) -> None:
        """Return once JetStream has them. One that it does not take is sent again when its lease has ended."""
        results = await asyncio.gather(*map(self._send_one, chunks), return_exceptions=True)
        failed = [result for result in results if isinstance(result, DependencyUnavailable)]
        if failed:
            log.warning("chunks_not_sent", failed=len(failed), of=len(chunks), error=str(failed[0]))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, DependencyUnavailable):
                raise result

    async def _send_one(self, chunk: LeasedChunk) -> None:
        await failpoint("dispatcher.publish.before")
        lane = chunk.priority.slug
        # Each lease has an id of its own: the same one again would be dropped for two minutes.
        message_id = f"{chunk.broadcast_id}:{chunk.chunk}:{chunk.epoch}"
        await self._messaging.publish(subjects.delivery_inbox(lane), delivery_payload(chunk), message_id)
        CHUNKS_SENT.labels(lane, chunk.kind.value).inc()
        await failpoint("dispatcher.publish.after")
