"""Translates between the contract's messages and the inbox's own values."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from wedsync.broadcast.v1 import common_pb2, events_pb2, inbox_pb2, sender_pb2

from services.inbox.domain import (
    Action,
    ArrivalKind,
    Chunk,
    Content,
    Engagement,
    Filter,
    Item,
    Merge,
    Receipt,
    ReceiptAction,
    Wedding,
    fits_a_chunk,
    fits_an_alert,
)
from shared.audience import Audience, BrokenAudience

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {events_pb2.ArrivalKind.Value(f"ARRIVAL_KIND_{each.name}"): each for each in ArrivalKind}
_ACTIONS: Final = {
    common_pb2.ReceiptAction.Value(f"RECEIPT_ACTION_{each.name}"): each for each in ReceiptAction
}
_MOST_CHUNKS: Final = 64


class BrokenMessage(ValueError):
    """A message that no dispatcher of ours sends."""


def ids_of(texts: Iterable[str]) -> tuple[UUID, ...]:
    """UUIDs that were checked before, each once, in their order."""
    return tuple(dict.fromkeys(map(UUID, texts)))


def filter_of(request: inbox_pb2.ListInboxItemsRequest) -> Filter:
    """Which items are wanted, written in one way only."""
    return Filter(
        unread_only=request.unread_only,
        priorities=tuple(sorted(set(request.priorities))),
        type=request.type,
        search=request.search,
        wedding_id=UUID(request.wedding_id) if request.wedding_id else None,
        include_dismissed=request.include_dismissed,
        include_snoozed=request.include_snoozed,
    )


def action_of(number: common_pb2.ReceiptAction.ValueType) -> ReceiptAction:
    """What was done with an item."""
    return _ACTIONS[number]


def broadcast_of(message: events_pb2.InboxDeliveries) -> UUID:
    """The broadcast whose chunks a message brings into inboxes. Raises BrokenMessage unless there is just one."""
    if not 1 <= len(message.deliveries) <= _MOST_CHUNKS:
        raise BrokenMessage("A message has one chunk in it at least, and takes no more than 64.")
    try:
        (broadcast_id,) = {UUID(delivery.broadcast_id) for delivery in message.deliveries}
    except ValueError as error:
        raise BrokenMessage("The chunks of a message are of one broadcast.") from error
    return broadcast_id


def chunks_of(message: events_pb2.InboxDeliveries) -> Iterator[Chunk]:
    """The chunks of a message, each read when it is asked for. Raises BrokenMessage."""
    if len({delivery.chunk for delivery in message.deliveries}) < len(message.deliveries):
        raise BrokenMessage("Each chunk of a message is another one.")
    return map(_chunk_of, message.deliveries)


def _chunk_of(delivery: events_pb2.InboxDelivery) -> Chunk:
    try:
        members = Audience.from_bytes(delivery.members)
        chunk = Chunk(UUID(delivery.broadcast_id), delivery.chunk, _KINDS[delivery.kind], members)
    except (ValueError, BrokenAudience, KeyError) as error:
        raise BrokenMessage("This is not a chunk.") from error
    if delivery.chunk < 0 or not members or not _fits(chunk):
        raise BrokenMessage("A chunk has somebody in it and takes no more than 16 blocks.")
    return chunk


def _fits(chunk: Chunk) -> bool:
    return fits_an_alert(chunk.members) if chunk.kind is ArrivalKind.ALERT else fits_a_chunk(chunk.members)


def reports_of(
    message: events_pb2.InboxDeliveries, merged: Iterable[tuple[Chunk, Merge]]
) -> events_pb2.DeliveryReports:
    """What became of a message's chunks, in its order, as they were sent this time."""
    return events_pb2.DeliveryReports(
        reports=[
            _report_of(delivery, chunk, merge)
            for delivery, (chunk, merge) in zip(message.deliveries, merged, strict=True)
        ]
    )


def _report_of(delivery: events_pb2.InboxDelivery, chunk: Chunk, merge: Merge) -> events_pb2.DeliveryReport:
    report = events_pb2.DeliveryReport(
        broadcast_id=str(chunk.broadcast_id),
        chunk=chunk.number,
        epoch=delivery.epoch,
        size=len(chunk.members),
        outcome=events_pb2.REPORT_OUTCOME_MERGED if merge.is_merged else events_pb2.REPORT_OUTCOME_STOPPED,
        position=merge.position,
    )
    if merge.at is not None:
        report.time.CopyFrom(time_message(merge.at))
    return report


def content_of_order(order: sender_pb2.DispatchOrder) -> Content:
    """What a broadcast says, as the sender keeps it; its wall also has the wedding that it is about."""
    wedding = _wedding_of(order.wedding) if order.HasField("wedding") else None
    wall = dict.fromkeys(map(UUID, order.targeting.wedding_ids))
    if wedding is not None:
        wall[wedding.wedding_id] = None
    return Content(
        broadcast_id=UUID(order.broadcast_id),
        type=order.type,
        category=order.category,
        priority=order.priority,
        title=order.title,
        message=order.message,
        action=Action(order.action.label, order.action.url) if order.HasField("action") else None,
        wedding=wedding,
        wall=tuple(wall),
        expires_at=time_of(order.expires_at) if order.HasField("expires_at") else None,
    )


def item_message(item: Item) -> inbox_pb2.InboxItem:
    """A broadcast in an inbox."""
    message = content_message(item.content)
    message.MergeFrom(place_message(item.delivered_at, item.silent, item.receipt))
    return message


def content_message(content: Content) -> inbox_pb2.InboxItem:
    """The part of an item that is the same in every inbox."""
    return inbox_pb2.InboxItem(
        broadcast_id=str(content.broadcast_id),
        type=content.type,
        category=common_pb2.Category.ValueType(content.category),
        priority=common_pb2.Priority.ValueType(content.priority),
        title=content.title,
        message=content.message,
        action=common_pb2.Action(label=content.action.label, url=content.action.url)
        if content.action
        else None,
        wedding=_wedding_message(content.wedding) if content.wedding else None,
        expires_at=optional_time(content.expires_at),
    )


def place_message(delivered_at: datetime, silent: bool, receipt: Receipt | None) -> inbox_pb2.InboxItem:
    """The other part: when it came, and what was done with it."""
    message = inbox_pb2.InboxItem(delivered_at=time_message(delivered_at), silent=silent)
    if receipt is not None:
        message.MergeFrom(
            inbox_pb2.InboxItem(
                read_at=optional_time(receipt.read_at),
                acknowledged_at=optional_time(receipt.acknowledged_at),
                dismissed_at=optional_time(receipt.dismissed_at),
                clicked_at=optional_time(receipt.clicked_at),
                snoozed_until=optional_time(receipt.snoozed_until),
                pinned_at=optional_time(receipt.pinned_at),
            )
        )
    return message


def as_first_field(message: bytes) -> bytes:
    """A serialised message as the field number 1 of another: what is appended to it is of that other one."""
    length, rest = bytearray(), len(message)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return b"".join((b"\x0a", length, bytes((rest,)), message))


def receipt_message(receipt: Receipt) -> inbox_pb2.Receipt:
    """What was done with an item, and where it is kept."""
    return inbox_pb2.Receipt(
        broadcast_id=str(receipt.broadcast_id),
        read_at=optional_time(receipt.read_at),
        acknowledged_at=optional_time(receipt.acknowledged_at),
        dismissed_at=optional_time(receipt.dismissed_at),
        clicked_at=optional_time(receipt.clicked_at),
        snoozed_until=optional_time(receipt.snoozed_until),
        pinned_at=optional_time(receipt.pinned_at),
    )


def engagement_response(counted: Sequence[Engagement]) -> inbox_pb2.GetEngagementResponse:
    """How many people did what with some broadcasts, and how long they took to read, where that was counted."""
    return inbox_pb2.GetEngagementResponse(
        engagements=map(_engagement_message, counted),
        times_to_read=[_duration(each.time_to_read) for each in counted if each.time_to_read is not None],
    )


def _duration(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message


def _engagement_message(engagement: Engagement) -> common_pb2.Engagement:
    return common_pb2.Engagement(
        delivered=engagement.delivered,
        read=engagement.read,
        acknowledged=engagement.acknowledged,
        dismissed=engagement.dismissed,
        clicked=engagement.clicked,
        cleaned_time=optional_time(engagement.cleaned_at),
    )


def time_of(message: Timestamp) -> datetime:
    """The moment, aware, in UTC."""
    return message.ToDatetime(UTC)


def time_message(moment: datetime) -> Timestamp:
    """The moment as a message."""
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def optional_time(moment: datetime | None) -> Timestamp | None:
    """The moment as a message; None for never."""
    return None if moment is None else time_message(moment)


def _wedding_of(message: common_pb2.Wedding) -> Wedding:
    given = message.wedding_date if message.HasField("wedding_date") else None
    day = date(given.year, given.month, given.day) if given is not None else None
    return Wedding(UUID(message.wedding_id), message.couple_name, day)


def _wedding_message(wedding: Wedding) -> common_pb2.Wedding:
    day = wedding.wedding_date
    return common_pb2.Wedding(
        wedding_id=str(wedding.wedding_id),
        couple_name=wedding.couple_name,
        wedding_date=Date(year=day.year, month=day.month, day=day.day) if day is not None else None,
    )
