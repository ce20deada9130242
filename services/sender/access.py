"""Says to the suite's other services what a person may see of a broadcast, by the same rules as for one's own calls."""

from typing import Final

from wedsync.broadcast.v1 import sender_pb2

from services.sender.directory import Directory
from services.sender.domain import Author
from services.sender.rights import READ_SCOPE, Caller
from services.sender.store import CallStore
from shared.errors import NotFound

_READER: Final = Caller(Author("", is_service=True), scopes=frozenset({READ_SCOPE}))
"""A service account whose right the asking service has seen."""


class Access:
    """What CheckBroadcastAccess does once the edge has let a call in."""

    def __init__(self, store: CallStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def check(
        self, request: sender_pb2.CheckBroadcastAccessRequest
    ) -> sender_pb2.CheckBroadcastAccessResponse:
        """Of whom a person may be told. Raises NotFound for a broadcast that is not there, or not theirs to see."""
        broadcast_id = request.broadcast_id.lower()
        caller = await self._caller(request.user_id.lower(), broadcast_id)
        if not (caller.reads_all or caller.is_coordinator):
            raise NotFound
        broadcast = await self._store.find_visible(caller, broadcast_id)
        if broadcast is None:
            raise NotFound
        if caller.reads_all or caller.author == broadcast.author:
            return sender_pb2.CheckBroadcastAccessResponse(everybody=True)
        return sender_pb2.CheckBroadcastAccessResponse(wedding_ids=caller.team_weddings)

    async def _caller(self, user_id: str, broadcast_id: str) -> Caller:
        if not user_id:
            return _READER
        wall = await self._store.find_wall(broadcast_id)
        return await self._directory.author(Author(user_id, is_service=False), wall)
