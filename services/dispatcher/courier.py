"""Owns the way of leased chunks to the inbox."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

import structlog

from services.dispatcher.figures import CHUNKS_SENT
from services.dispatcher.messages import begun_payload, delivery_payload
from services.dispatcher.work import LeasedChunk
from shared import subjects
from shared.errors import DependencyUnavailable
from shared.failpoints import declare, failpoint
from shared.messaging import Messaging

log = structlog.get_logger(__name__)

# What the inbox takes in one message, well below the largest that NATS takes.
MOST_CHUNKS: Final = 64
MOST_BYTES: Final = 512 * 1024

declare("dispatcher.publish.before", "dispatcher.publish.after")


class Courier:
    """Publishes chunks, all of a batch at the same time and those of one broadcast in one message.

    What a message costs on its way is the same for one small chunk as for thirty, and ten thousand people among a
    million are thirty.
    """

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging

    def require_connection(self) -> None:
        """Raise DependencyUnavailable while nothing could be sent: what was leased then would only wait."""
        if not self._messaging.is_connected:
            raise DependencyUnavailable("NATS cannot be reached.")

    async def foretell(self, broadcast_id: UUID) -> None:
        """Let every inbox fetch what a broadcast says while its audience is still being cut; it may go unheard."""
        await self._messaging.hint(subjects.LIVE_DISPATCH, begun_payload(broadcast_id))

    async def send(self, chunks: Iterable[LeasedChunk]) -> None:
        """Return once JetStream has them. What it does not take is sent again when its lease has ended."""
        await self._send_all(list(together(chunks)))

    async def send_apart(self, chunks: Iterable[LeasedChunk]) -> None:
        """The same with a message for each, so that one that the inbox cannot take keeps none of the others back."""
        await self._send_all([[chunk] for chunk in chunks])

    async def _send_all(self, messages: Sequence[Sequence[LeasedChunk]]) -> None:
        results = await asyncio.gather(*map(self._send_message, messages), return_exceptions=True)
        failed = [result for result in results if isinstance(result, DependencyUnavailable)]
        if failed:
            log.warning("chunks_not_sent", failed=len(failed), of=len(messages), error=str(failed[0]))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, DependencyUnavailable):
                raise result

    async def _send_message(self, chunks: Sequence[LeasedChunk]) -> None:
        await failpoint("dispatcher.publish.before")
        first = chunks[0]
        lane = first.priority.slug
        # A chunk is in one message a lease, so its lease names it: an id that was there before would be dropped for two
        # minutes.
        message_id = f"{first.broadcast_id}:{first.chunk}:{first.epoch}"
        await self._messaging.publish(subjects.delivery_inbox(lane), delivery_payload(chunks), message_id)
        for chunk in chunks:
            CHUNKS_SENT.labels(lane, chunk.kind.value).inc()
        await failpoint("dispatcher.publish.after")


def together(chunks: Iterable[LeasedChunk]) -> Iterator[list[LeasedChunk]]:
    """Chunks by broadcast, as many in a list as fit into a message."""
    by_broadcast: dict[UUID, list[LeasedChunk]] = defaultdict(list)
    for chunk in chunks:
        by_broadcast[chunk.broadcast_id].append(chunk)
    for group in by_broadcast.values():
        message: list[LeasedChunk] = []
        size = 0
        for chunk in group:
            if message and (len(message) == MOST_CHUNKS or size + len(chunk.members) > MOST_BYTES):
                yield message
                message, size = [], 0
            message.append(chunk)
            size += len(chunk.members)
        yield message
