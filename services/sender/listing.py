"""Lists broadcasts: those that are the caller's to see at this moment, newest first, a page at a time."""

from wedsync.broadcast.v1 import sender_pb2

from services.sender.directory import Directory
from services.sender.domain import Broadcast
from services.sender.filters import (
    PAGE_SIZE,
    Filter,
    Place,
    read_page_token,
    write_page_token,
)
from services.sender.messages import broadcast_message, filter_of
from services.sender.rights import Caller
from services.sender.store import CallStore


class Listing:
    """What ListBroadcasts does once the edge has let a call in."""

    def __init__(self, store: CallStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def list(self, request: sender_pb2.ListBroadcastsRequest) -> sender_pb2.ListBroadcastsResponse:
        """A page. Raises InvalidPageToken."""
        caller, wanted = await self.reader(), filter_of(request)
        after = read_page_token(request.page_token, caller.author, wanted) if request.page_token else None
        size = request.page_size or PAGE_SIZE
        # One more than is shown says whether there is another page.
        asking = caller.asking_about(wanted.wedding_id)
        found = await self._store.list_visible(asking, wanted, after, size + 1)
        shown = found[:size]
        following = _token(shown[-1], caller, wanted) if len(found) > size else ""
        return sender_pb2.ListBroadcastsResponse(
            broadcasts=map(broadcast_message, shown), next_page_token=following
        )

    async def reader(self) -> Caller:
        """Who calls; a coordinator with every wedding on whose team they are, as the directory has it now."""
        caller = await self._directory.caller()
        return await self._directory.caller_on_teams() if caller.is_coordinator else caller


def _token(last: Broadcast, caller: Caller, wanted: Filter) -> str:
    return write_page_token(Place(last.created_at, last.broadcast_id), caller.author, wanted)
