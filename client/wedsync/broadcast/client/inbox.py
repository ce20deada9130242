"""A person's own inbox: whose it is, is in the token."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import datetime
from typing import Final, TypeVar
from uuid import uuid4

import grpc
from wedsync.broadcast.client.events import Event, event_of
from wedsync.broadcast.client.moments import timestamp
from wedsync.broadcast.client.resuming import OnInterruption, Resumption, resumed
from wedsync.broadcast.client.tokens import Metadata, Tokens, authorized
from wedsync.broadcast.client.waiting import Waiting
from wedsync.broadcast.v1.common_pb2 import Priority, ReceiptAction
from wedsync.broadcast.v1.inbox_pb2 import (
    GetInboxItemRequest,
    GetUnreadCountRequest,
    InboxEvent,
    InboxItem,
    ListInboxItemsRequest,
    ListInboxItemsResponse,
    MarkAllReadRequest,
    PinItemRequest,
    PinItemResponse,
    RecordReceiptsRequest,
    RecordReceiptsResponse,
    SnoozeItemRequest,
    SnoozeItemResponse,
    WatchInboxRequest,
    WatchInboxResponse,
)
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")

_PAGE_SIZE: Final = 100
# Three signs of life of the slowest inbox there is: none may give them less often than LONGEST_HEARTBEAT_S of
# services/inbox/config.py, which is bound to this.
_SILENCE_S: Final = 60.0


class Inbox:
    """What one person has received. Every method may raise a BroadcastError."""

    def __init__(
        self,
        stub: InboxServiceStub,
        tokens: Tokens,
        waiting: Waiting,
        *,
        deadline_s: float,
        wait_s: float,
    ) -> None:
        """Made by `BroadcastClient.inbox`."""
        self._stub = stub
        self._tokens = tokens
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._wait_s = wait_s

    async def list(
        self,
        *,
        unread_only: bool = False,
        priorities: Iterable["Priority.ValueType"] = (),
        type: str = "",  # noqa: A002 # the field's name
        search: str = "",
        wedding_id: str = "",
        include_dismissed: bool = False,
        include_snoozed: bool = False,
        page_size: int = 50,
        page_token: str = "",
    ) -> ListInboxItemsResponse:
        """A page of items, pinned ones and then newest arrival first, with the badge.

        `type` may be a prefix such as "wedding."; the last word of `search` may be the beginning of one.
        """
        request = ListInboxItemsRequest(
            unread_only=unread_only,
            priorities=priorities,
            type=type,
            search=search,
            wedding_id=wedding_id,
            include_dismissed=include_dismissed,
            include_snoozed=include_snoozed,
            page_size=page_size,
            page_token=page_token,
        )
        return await self._call(self._stub.ListInboxItems, request)

    async def items(
        self,
        *,
        unread_only: bool = False,
        type: str = "",  # noqa: A002 # the field's name
        search: str = "",
        wedding_id: str = "",
    ) -> AsyncIterator[InboxItem]:
        """All items, page by page as they are asked for."""
        token = ""
        while True:
            page = await self.list(
                unread_only=unread_only,
                type=type,
                search=search,
                wedding_id=wedding_id,
                page_size=_PAGE_SIZE,
                page_token=token,
            )
            for item in page.items:
                yield item
            if not (token := page.next_page_token):
                return

    async def get(self, broadcast_id: str) -> InboxItem:
        """One item. Raises NotFound when it is not in this inbox."""
        request = GetInboxItemRequest(broadcast_id=broadcast_id)
        return (await self._call(self._stub.GetInboxItem, request)).item

    async def unread_count(self) -> int:
        """The badge."""
        return (await self._call(self._stub.GetUnreadCount, GetUnreadCountRequest())).unread_count

    async def read(self, *broadcast_ids: str) -> RecordReceiptsResponse:
        """Mark up to 100 items as read. Ids that are not in this inbox are named in the answer."""
        return await self._record(ReceiptAction.RECEIPT_ACTION_READ, broadcast_ids)

    async def acknowledge(self, *broadcast_ids: str) -> RecordReceiptsResponse:
        """Acknowledge up to 100 items, which also reads them."""
        return await self._record(ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED, broadcast_ids)

    async def dismiss(self, *broadcast_ids: str) -> RecordReceiptsResponse:
        """Hide up to 100 items from the list. Raises Conflict for a critical one that is not acknowledged."""
        return await self._record(ReceiptAction.RECEIPT_ACTION_DISMISSED, broadcast_ids)

    async def restore(self, *broadcast_ids: str) -> RecordReceiptsResponse:
        """Bring dismissed items back."""
        return await self._record(ReceiptAction.RECEIPT_ACTION_RESTORED, broadcast_ids)

    async def click(self, broadcast_id: str, url: str) -> RecordReceiptsResponse:
        """Say that the action of an item was followed."""
        return await self._record(ReceiptAction.RECEIPT_ACTION_CLICKED, [broadcast_id], url)

    async def snooze(self, broadcast_id: str, until: datetime) -> SnoozeItemResponse:
        """Hide an item from list and badge until then, at most 366 days ahead."""
        return await self._snooze(broadcast_id, until)

    async def wake(self, broadcast_id: str) -> SnoozeItemResponse:
        """Bring a snoozed item back now."""
        return await self._snooze(broadcast_id, None)

    async def pin(self, broadcast_id: str) -> PinItemResponse:
        """Keep an item on top of the list. Raises Conflict when 20 are."""
        return await self._pin(broadcast_id, unpin=False)

    async def unpin(self, broadcast_id: str) -> PinItemResponse:
        """Put it back where it arrived."""
        return await self._pin(broadcast_id, unpin=True)

    async def read_all(self) -> int:
        """Mark everything that has arrived as read; the badge after that."""
        request = MarkAllReadRequest(request_id=str(uuid4()))
        return (await self._call(self._stub.MarkAllRead, request)).unread_count

    def watch(
        self,
        cursor: str = "",
        *,
        patience_s: float | None = None,
        silence_s: float = _SILENCE_S,
        on_interruption: OnInterruption | None = None,
    ) -> "InboxWatch":
        """What happens in it from now on, without end; see InboxWatch. With a `cursor`, what has happened since.

        An outage is waited for, for as long as it takes, or `patience_s` seconds. A stream on which not even a sign
        of life came for `silence_s` is left for another; the inbox gives one every 20 s at least.
        """
        resumption = Resumption(self._waiting, self._deadline_s, patience_s, on_interruption, silence_s)
        return InboxWatch(self._stub, self._tokens, resumption, cursor)

    async def _record(
        self, action: "ReceiptAction.ValueType", broadcast_ids: Iterable[str], url: str = ""
    ) -> RecordReceiptsResponse:
        request = RecordReceiptsRequest(
            request_id=str(uuid4()), broadcast_ids=broadcast_ids, action=action, action_url=url
        )
        return await self._call(self._stub.RecordReceipts, request)

    async def _snooze(self, broadcast_id: str, until: datetime | None) -> SnoozeItemResponse:
        request = SnoozeItemRequest(
            request_id=str(uuid4()), broadcast_id=broadcast_id, snooze_until=timestamp("until", until)
        )
        return await self._call(self._stub.SnoozeItem, request)

    async def _pin(self, broadcast_id: str, *, unpin: bool) -> PinItemResponse:
        request = PinItemRequest(request_id=str(uuid4()), broadcast_id=broadcast_id, unpin=unpin)
        return await self._call(self._stub.PinItem, request)

    async def _call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        async def attempt(metadata: Metadata, left_s: float) -> Response:
            return await method(request, metadata=metadata, timeout=left_s)

        return await self._waiting.patiently(
            lambda: authorized(self._tokens, self._deadline_s, attempt), self._wait_s
        )


class InboxWatch:
    """The events of an inbox, each once and in order, on one stream after the other.

    It goes on after its last event whatever interrupts it, a token that cannot be had just now included, and ends with
    a BroadcastError when going on is no use: the token was refused and there is no other, or one that was got for it
    was refused as well; the cursor never was one; the service has a defect; patience has ended. Besides that with
    what the function that gives tokens raises before the first stream, with a ConfigurationError when a token cannot be
    sent or the client was closed, and with what `on_interruption` raises.
    """

    def __init__(self, stub: InboxServiceStub, tokens: Tokens, resumption: Resumption, cursor: str) -> None:
        """Made by `Inbox.watch`."""
        self._stub = stub
        self._tokens = tokens
        self._resumption = resumption
        self._cursor = cursor

    @property
    def cursor(self) -> str:
        """Where a new watch goes on after what this one has said; signs of life move it, too."""
        return self._cursor

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        async for told in self.messages():
            event = event_of(told)
            if event is not None:
                yield event

    async def messages(self) -> AsyncGenerator[InboxEvent, None]:
        """The same in the contract's own words, with signs of life, for whoever passes them on."""
        async for answer in resumed(self._begin, self._tokens, self._resumption, may_end=False):
            self._cursor = answer.event.cursor or self._cursor
            yield answer.event

    def _begin(self, metadata: Metadata) -> grpc.aio.UnaryStreamCall[WatchInboxRequest, WatchInboxResponse]:
        # From what was handed out, whatever cursor a server says it has come to: only that is known to be seen.
        return self._stub.WatchInbox(WatchInboxRequest(cursor=self._cursor), metadata=metadata)
