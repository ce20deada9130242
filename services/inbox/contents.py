"""Owns fetching what a broadcast says: once, from the sender, when the first part of it comes."""

import asyncio
from collections import OrderedDict
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.inbox.domain import Content
from services.inbox.messages import content_of_order
from services.inbox.teams import Teams

_KEPT: Final = 20_000


class Contents:
    """Which broadcasts' contents are kept already, and what the others say."""

    def __init__(self, sender: SenderServiceStub, teams: Teams) -> None:
        self._sender = sender
        self._teams = teams
        self._kept: OrderedDict[UUID, None] = OrderedDict()
        self._fetching: dict[UUID, asyncio.Task[Content]] = {}

    async def unkept(self, broadcast_id: UUID) -> Content | None:
        """What the broadcast says, to be kept with its first chunk; None when it is kept. Its walls are known then."""
        if broadcast_id in self._kept:
            return None
        fetching = self._fetching.get(broadcast_id)
        if fetching is None:
            fetching = self._fetching[broadcast_id] = asyncio.create_task(self._fetch(broadcast_id))
            fetching.add_done_callback(lambda _: self._fetching.pop(broadcast_id, None))
        # Others may wait for it too, so one that gives up must not end it.
        return await asyncio.shield(fetching)

    def note_kept(self, broadcast_id: UUID) -> None:
        """The content is in the database now."""
        self._kept[broadcast_id] = None
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def forget(self, broadcast_id: UUID) -> None:
        """The content is not in the database any more."""
        self._kept.pop(broadcast_id, None)

    async def _fetch(self, broadcast_id: UUID) -> Content:
        request = sender_pb2.GetDispatchOrderRequest(
            broadcast_id=str(broadcast_id), purpose=sender_pb2.DISPATCH_PURPOSE_CONTENT
        )
        response = await self._sender.GetDispatchOrder(request)
        content = content_of_order(response.order)
        await self._teams.require(content.wall)
        return content
