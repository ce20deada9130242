"""Owns fetching what a broadcast says: once, from the sender, when the first part of it comes or is about to."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.events_pb2 import DispatchBegun
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.inbox.domain import Content
from services.inbox.messages import content_of_order
from services.inbox.teams import Teams
from shared import subjects
from shared.errors import ServiceError
from shared.messaging import Messaging, Subscription

log = structlog.get_logger(__name__)

_KEPT: Final = 20_000
# Those that are announced faster are fetched when they come.
_FETCHED_AHEAD: Final = 64
_KEPT_AHEAD: Final = 1_000


class Contents:
    """Which broadcasts' contents are kept already, and what the others say."""

    def __init__(self, sender: SenderServiceStub, teams: Teams) -> None:
        self._sender = sender
        self._teams = teams
        self._kept: OrderedDict[UUID, None] = OrderedDict()
        self._fetching: dict[UUID, asyncio.Task[Content]] = {}
        self._ahead: OrderedDict[UUID, Content] = OrderedDict()
        self._foreseen: set[asyncio.Task[None]] = set()

    async def listen(self, messaging: Messaging) -> Subscription:
        """Hear from now on whose first chunks come soon, and have fetched by then what they say.

        Between the sender's word and the first chunk is time for that, which a chunk that has come would lose.
        """
        return await messaging.subscribe(subjects.LIVE_DISPATCH, self._hear)

    async def unkept(self, broadcast_id: UUID) -> Content | None:
        """What the broadcast says, to be kept with its first chunk; None when it is kept. Its walls are known then."""
        if broadcast_id in self._kept:
            return None
        return self._ahead.get(broadcast_id) or await self._fetched(broadcast_id)

    def note_kept(self, broadcast_id: UUID) -> None:
        """The content is in the database now."""
        self._ahead.pop(broadcast_id, None)
        self._kept[broadcast_id] = None
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def forget(self, broadcast_id: UUID) -> None:
        """The content is not in the database any more."""
        self._kept.pop(broadcast_id, None)

    def forget_text(self, broadcast_id: UUID) -> None:
        """A broadcast says something else by now."""
        self._ahead.pop(broadcast_id, None)

    async def fetch_anew(self, broadcast_ids: Sequence[UUID]) -> list[Content]:
        """What broadcasts say by now, whatever is known. Raises NotFound for one that the sender does not have."""
        return await asyncio.gather(*map(self._fetch, broadcast_ids))

    async def _hear(self, message: Msg) -> None:
        try:
            broadcast_id = UUID(DispatchBegun.FromString(message.data).broadcast_id)
        except (DecodeError, ValueError):
            log.warning("hint_unreadable", subject=message.subject)
            return
        if broadcast_id not in self._kept and len(self._fetching) < _FETCHED_AHEAD:
            fetching = asyncio.create_task(self._fetch_ahead(broadcast_id))
            self._foreseen.add(fetching)
            fetching.add_done_callback(self._foreseen.discard)

    async def _fetch_ahead(self, broadcast_id: UUID) -> None:
        try:
            content = await self._fetched(broadcast_id)
        except ServiceError as error:
            # Its chunk asks again, and is told what is wrong.
            log.info("not_fetched_ahead", broadcast_id=str(broadcast_id), error=str(error))
            return
        if broadcast_id not in self._kept:
            self._ahead[broadcast_id] = content
            if len(self._ahead) > _KEPT_AHEAD:
                self._ahead.popitem(last=False)

    async def _fetched(self, broadcast_id: UUID) -> Content:
        fetching = self._fetching.get(broadcast_id)
        if fetching is None:
            fetching = self._fetching[broadcast_id] = asyncio.create_task(self._fetch(broadcast_id))
            fetching.add_done_callback(lambda _: self._fetching.pop(broadcast_id, None))
        # Others may wait for it too, so one that gives up must not end it.
        return await asyncio.shield(fetching)

    async def _fetch(self, broadcast_id: UUID) -> Content:
        request = sender_pb2.GetDispatchOrderRequest(
            broadcast_id=str(broadcast_id), purpose=sender_pb2.DISPATCH_PURPOSE_CONTENT
        )
        response = await self._sender.GetDispatchOrder(request)
        content = content_of_order(response.order)
        await self._teams.require(content.wall)
        return content
