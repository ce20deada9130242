"""The gRPC edge of the inbox, and who may call what of it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final
from uuid import UUID

from typing_extensions import override
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer

from services.inbox.arranging import Arranging
from services.inbox.connections import Connections
from services.inbox.domain import Arrangement, Team, fits_an_alert
from services.inbox.erasing import Erasing
from services.inbox.exporting import Exporting
from services.inbox.identities import Identities
from services.inbox.inboxes import Inboxes
from services.inbox.memory import Memory
from services.inbox.messages import (
    action_of,
    engagement_response,
    filter_of,
    ids_of,
    item_message,
    receipt_message,
    time_message,
    time_of,
)
from services.inbox.readership import Readership
from services.inbox.receipts import Receipts
from services.inbox.retention import Leaving
from services.inbox.retractions import Retractions
from services.inbox.streams import InboxStreams
from services.inbox.teams import Teams
from services.inbox.work_store import ReceiptOutcome, Recorded, WorkStore
from shared.audience import Audience, BrokenAudience
from shared.auth import current_identity
from shared.cleaning import Cleaner
from shared.errors import FieldViolation, InvalidField, PermissionDenied
from shared.methods import Replay
from shared.replays import KeptAnswers, request_of
from shared.rights import Right, any_person, roles, scopes

_OWN: Final = any_person()
_INTERNAL: Final = scopes("internal")

RIGHTS: Final[dict[str, Right]] = {
    "ListInboxItems": _OWN,
    "GetInboxItem": _OWN,
    "GetUnreadCount": _OWN,
    "RecordReceipts": _OWN,
    "MarkAllRead": _OWN,
    "SnoozeItem": _OWN,
    "PinItem": _OWN,
    "WatchInbox": _OWN,
    "ConnectInboxes": scopes("inbox.connect"),
    "ListReceipts": roles("admin", "coordinator") | scopes("broadcast.read"),
    "GetEngagement": _INTERNAL,
    "ListReaders": _INTERNAL,
    "RetractBroadcast": _INTERNAL,
    "ApplyTeamChange": _INTERNAL,
    "ListShownBroadcasts": _INTERNAL,
    "EraseInbox": _INTERNAL,
    "RefreshContents": _INTERNAL,
    "ExportInbox": _INTERNAL,
    "CleanUpInboxes": _INTERNAL,
}
"""Each method's row of product.md's table of rights."""

RECORD: Final = "RecordReceipts"
MARK: Final = "MarkAllRead"
SNOOZE: Final = "SnoozeItem"
PIN: Final = "PinItem"


def replays(answers: KeptAnswers) -> dict[str, Replay | None]:
    """What answers repeated calls before they are judged anew.

    Most are recognised in the transaction that would do their work again, which spares other calls a question:
    nothing that may have changed stands before it, since they need their token and a recipient number, which is for
    good. A snooze has a time, which must not be over.
    """
    return {RECORD: None, MARK: None, PIN: None, SNOOZE: answers.replay(SNOOZE, inbox_pb2.SnoozeItemResponse)}


@dataclass(frozen=True, slots=True)
class Rooms:
    """The parts of the inbox that calls are handed to."""

    identities: Identities
    inboxes: Inboxes
    memory: Memory
    receipts: Receipts
    arranging: Arranging
    readership: Readership
    streams: InboxStreams
    connections: Connections
    teams: Teams
    retractions: Retractions
    erasing: Erasing
    exporting: Exporting
    leaving: Leaving
    cleaner: Cleaner
    store: WorkStore


class InboxServicer(InboxServiceServicer):
    """Each method is a call of the part that does it."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    @override
    async def ListInboxItems(  # type: ignore[override]  # items are serialised already; the edge lets bytes through
        self, request: inbox_pb2.ListInboxItemsRequest, context: object
    ) -> bytes:
        listing = await self._rooms.memory.list_items(
            await self._me(), filter_of(request), request.page_size, request.page_token
        )
        rest = inbox_pb2.ListInboxItemsResponse(
            unread_count=listing.badge.unread_count,
            total_count=listing.total_count,
            next_page_token=listing.next_page_token,
        )
        return listing.items + rest.SerializeToString()

    @override
    async def GetInboxItem(
        self, request: inbox_pb2.GetInboxItemRequest, context: object
    ) -> inbox_pb2.GetInboxItemResponse:
        item = await self._rooms.inboxes.get_item(await self._me(), UUID(request.broadcast_id))
        return inbox_pb2.GetInboxItemResponse(item=item_message(item))

    @override
    async def GetUnreadCount(
        self, request: inbox_pb2.GetUnreadCountRequest, context: object
    ) -> inbox_pb2.GetUnreadCountResponse:
        unread_count = await self._rooms.memory.count_unread(await self._me())
        return inbox_pb2.GetUnreadCountResponse(unread_count=unread_count)

    @override
    async def RecordReceipts(
        self, request: inbox_pb2.RecordReceiptsRequest, context: object
    ) -> inbox_pb2.RecordReceiptsResponse:
        me, asked = await self._me(), request_of(RECORD, request)
        results = await self._rooms.receipts.record(
            me, ids_of(request.broadcast_ids), action_of(request.action), request.action_url or None, asked
        )
        if isinstance(results, bytes):
            return inbox_pb2.RecordReceiptsResponse.FromString(results)
        response = _recorded_message(results, await self._badge(me))
        return await self._rooms.receipts.answer(asked, response)

    @override
    async def MarkAllRead(
        self, request: inbox_pb2.MarkAllReadRequest, context: object
    ) -> inbox_pb2.MarkAllReadResponse:
        me, asked = await self._me(), request_of(MARK, request)
        read_at = await self._rooms.receipts.mark_all_read(me, asked)
        if isinstance(read_at, bytes):
            return inbox_pb2.MarkAllReadResponse.FromString(read_at)
        response = inbox_pb2.MarkAllReadResponse(
            unread_count=await self._badge(me), read_time=time_message(read_at)
        )
        return await self._rooms.receipts.answer(asked, response)

    @override
    async def SnoozeItem(
        self, request: inbox_pb2.SnoozeItemRequest, context: object
    ) -> inbox_pb2.SnoozeItemResponse:
        me, asked = await self._me(), request_of(SNOOZE, request)
        until = time_of(request.snooze_until) if request.HasField("snooze_until") else None
        wanted = Arrangement.WOKEN if until is None else Arrangement.SNOOZED
        item = await self._rooms.arranging.arrange(me, UUID(request.broadcast_id), wanted, until, asked)
        if isinstance(item, bytes):
            return inbox_pb2.SnoozeItemResponse.FromString(item)
        response = inbox_pb2.SnoozeItemResponse(
            receipt=receipt_message(item), unread_count=await self._badge(me)
        )
        return await self._rooms.receipts.answer(asked, response)

    @override
    async def PinItem(self, request: inbox_pb2.PinItemRequest, context: object) -> inbox_pb2.PinItemResponse:
        me, asked = await self._me(), request_of(PIN, request)
        wanted = Arrangement.UNPINNED if request.unpin else Arrangement.PINNED
        item = await self._rooms.arranging.arrange(me, UUID(request.broadcast_id), wanted, None, asked)
        if isinstance(item, bytes):
            return inbox_pb2.PinItemResponse.FromString(item)
        response = inbox_pb2.PinItemResponse(receipt=receipt_message(item))
        return await self._rooms.receipts.answer(asked, response)

    @override
    async def WatchInbox(  # type: ignore[override]  # serialised once for all; the edge lets bytes through
        self, request: inbox_pb2.WatchInboxRequest, context: object
    ) -> AsyncIterator[bytes]:
        async for payload in self._rooms.streams.watch(await self._me(), request.cursor):
            yield payload

    @override
    async def ConnectInboxes(  # type: ignore[override]  # as above
        self, request_iterator: AsyncIterator[inbox_pb2.ConnectInboxesRequest], context: object
    ) -> AsyncIterator[bytes]:
        async for payload in self._rooms.connections.connect(request_iterator):
            yield payload

    @override
    async def ListReceipts(
        self, request: inbox_pb2.ListReceiptsRequest, context: object
    ) -> inbox_pb2.ListReceiptsResponse:
        return await self._rooms.readership.list_receipts(request)

    @override
    async def GetEngagement(
        self, request: inbox_pb2.GetEngagementRequest, context: object
    ) -> inbox_pb2.GetEngagementResponse:
        broadcast_ids = [UUID(each) for each in request.broadcast_ids]
        if request.HasField("until"):
            until = request.until.ToDatetime(UTC)
            counted = await self._rooms.store.count_engagement_until(broadcast_ids, until)
        else:
            counted = await self._rooms.store.count_engagement(broadcast_ids)
        return engagement_response(counted)

    @override
    async def ListReaders(
        self, request: inbox_pb2.ListReadersRequest, context: object
    ) -> inbox_pb2.ListReadersResponse:
        members = _audience(request.members)
        if not fits_an_alert(members):
            raise InvalidField(violations=[FieldViolation("members", "must be at most 65536 recipients")])
        readers = await self._rooms.store.find_readers(UUID(request.broadcast_id), members)
        return inbox_pb2.ListReadersResponse(readers=readers.to_bytes())

    @override
    async def RetractBroadcast(
        self, request: inbox_pb2.RetractBroadcastRequest, context: object
    ) -> inbox_pb2.RetractBroadcastResponse:
        done = await self._rooms.retractions.retract(UUID(request.broadcast_id), hide=request.hide)
        return inbox_pb2.RetractBroadcastResponse(arrived=done.arrived, chunks=done.chunks)

    @override
    async def ApplyTeamChange(
        self, request: inbox_pb2.ApplyTeamChangeRequest, context: object
    ) -> inbox_pb2.ApplyTeamChangeResponse:
        team = Team(UUID(request.wedding_id), request.team_version, _audience(request.members))
        return inbox_pb2.ApplyTeamChangeResponse(team_version=await self._rooms.teams.change(team))

    @override
    async def ListShownBroadcasts(
        self, request: inbox_pb2.ListShownBroadcastsRequest, context: object
    ) -> inbox_pb2.ListShownBroadcastsResponse:
        asked = [UUID(each) for each in request.broadcast_ids]
        shown = await self._rooms.leaving.list_shown(asked, after_clean_up=request.after_clean_up)
        return inbox_pb2.ListShownBroadcastsResponse(broadcast_ids=map(str, shown))

    @override
    async def EraseInbox(
        self, request: inbox_pb2.EraseInboxRequest, context: object
    ) -> inbox_pb2.EraseInboxResponse:
        await self._rooms.erasing.erase(UUID(request.user_id), request.recipient_number)
        return inbox_pb2.EraseInboxResponse()

    @override
    async def RefreshContents(
        self, request: inbox_pb2.RefreshContentsRequest, context: object
    ) -> inbox_pb2.RefreshContentsResponse:
        await self._rooms.erasing.refresh(ids_of(request.broadcast_ids))
        return inbox_pb2.RefreshContentsResponse()

    @override
    async def ExportInbox(
        self, request: inbox_pb2.ExportInboxRequest, context: object
    ) -> inbox_pb2.ExportInboxResponse:
        page = await self._rooms.exporting.export(
            UUID(request.user_id), request.recipient_number, request.page_token
        )
        return inbox_pb2.ExportInboxResponse(records=page.records, next_page_token=page.next_page_token)

    @override
    async def CleanUpInboxes(
        self, request: inbox_pb2.CleanUpInboxesRequest, context: object
    ) -> inbox_pb2.CleanUpInboxesResponse:
        cleaned = await self._rooms.cleaner.clean_up(dry_run=request.dry_run)
        return inbox_pb2.CleanUpInboxesResponse(cleaned=[each.message() for each in cleaned])

    async def _me(self) -> int:
        """The recipient number of the person who calls."""
        user_id = current_identity().user_id
        if user_id is None:
            raise PermissionDenied
        return await self._rooms.identities.number_of(user_id)

    async def _badge(self, recipient_number: int) -> int:
        return (await self._rooms.inboxes.count_unread(recipient_number)).unread_count


def _recorded_message(results: Sequence[Recorded], unread_count: int) -> inbox_pb2.RecordReceiptsResponse:
    known = [each.receipt for each in results if each.outcome is ReceiptOutcome.RECORDED]
    unknown = [each.receipt.broadcast_id for each in results if each.outcome is ReceiptOutcome.UNKNOWN]
    return inbox_pb2.RecordReceiptsResponse(
        receipts=map(receipt_message, known),
        unknown_broadcast_ids=map(str, unknown),
        unread_count=unread_count,
    )


def _audience(serialised: bytes) -> Audience:
    """A bitmap of a request; no bytes are nobody."""
    try:
        return Audience.from_bytes(serialised) if serialised else Audience()
    except BrokenAudience as error:
        raise InvalidField(violations=[FieldViolation("members", "must be a serialised bitmap")]) from error
