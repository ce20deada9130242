"""Translates between the contract's messages and the dispatcher's own values."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import audience_pb2, common_pb2, dispatcher_pb2, events_pb2, sender_pb2

from services.dispatcher.domain import (
    Category,
    Channel,
    DeliveryState,
    DispatchState,
    Kind,
    Priority,
    Reason,
    ledger,
)
from services.dispatcher.snapshot import BrokenSnapshot, Slice
from services.dispatcher.work import Changes, Dispatch, Due, LeasedChunk, Order, Report, Rules, StopAnswer
from shared.audience import Audience

CATEGORIES: Final = {each: common_pb2.Category.Value(f"CATEGORY_{each.name}") for each in Category}
PRIORITIES: Final = {each: common_pb2.Priority.Value(f"PRIORITY_{each.name}") for each in Priority}
CHANNELS: Final = {each: common_pb2.Channel.Value(f"CHANNEL_{each.name}") for each in Channel}
_REASONS: Final = {
    each: common_pb2.SuppressionReason.Value(f"SUPPRESSION_REASON_{each.name}") for each in Reason
}
_DELIVERY_STATES: Final = {
    each: common_pb2.DeliveryState.Value(f"DELIVERY_STATE_{each.name}") for each in DeliveryState
}
_DISPATCH_STATES: Final = {
    each: dispatcher_pb2.DispatchState.Value(f"DISPATCH_STATE_{each.name}") for each in DispatchState
}
_KINDS: Final = {
    Kind.ITEM: events_pb2.ARRIVAL_KIND_ITEM,
    Kind.SILENT_ITEM: events_pb2.ARRIVAL_KIND_SILENT_ITEM,
    Kind.ALERT: events_pb2.ARRIVAL_KIND_ALERT,
}
_STATES_TOLD: Final = {
    "sent": common_pb2.BROADCAST_STATE_SENT,
    "expired": common_pb2.BROADCAST_STATE_EXPIRED,
    "failed": common_pb2.BROADCAST_STATE_FAILED,
}
_CATEGORY_OF: Final = {number: each for each, number in CATEGORIES.items()}
_PRIORITY_OF: Final = {number: each for each, number in PRIORITIES.items()}
_CHANNEL_OF: Final = {number: each for each, number in CHANNELS.items()}
_REASON_OF: Final = {number: each for each, number in _REASONS.items()}
_DELIVERY_STATE_OF: Final = {number: each for each, number in _DELIVERY_STATES.items()}


class BrokenMessage(ValueError):
    """A message does not say what its contract demands."""


def due_of(payload: bytes) -> Due:
    """That a broadcast is due. Raises BrokenMessage."""
    message = events_pb2.BroadcastDue()
    _parse(message, payload)
    broadcast_id = _uuid(message.broadcast_id)
    return Due(broadcast_id, message.epoch, _hint_of(broadcast_id, message))


def _hint_of(broadcast_id: UUID, message: events_pb2.BroadcastDue) -> Order | None:
    """The order that comes along; one that cannot be read is none, since the sender is asked in any case."""
    if not message.HasField("order"):
        return None
    order = message.order
    try:
        return Order(_rules_of(broadcast_id, order, order.wedding_id), _expiry_of(order), order.targeting)
    except BrokenMessage:
        return None


def reports(payload: bytes) -> list[Report]:
    """The inbox's word on chunks that it got in one message. Raises BrokenMessage."""
    message = events_pb2.DeliveryReports()
    _parse(message, payload)
    if not message.reports:
        raise BrokenMessage("a report speaks of no chunk")
    return [_report(each) for each in message.reports]


def _report(message: events_pb2.DeliveryReport) -> Report:
    if message.outcome not in (events_pb2.REPORT_OUTCOME_MERGED, events_pb2.REPORT_OUTCOME_STOPPED):
        raise BrokenMessage("a report has no outcome that is known")
    if message.chunk < 0 or message.size < 0:
        raise BrokenMessage("a report counts below zero")
    is_merged = message.outcome == events_pb2.REPORT_OUTCOME_MERGED
    return Report(_uuid(message.broadcast_id), message.chunk, message.size, is_merged)


def delivery_payload(chunks: Iterable[LeasedChunk]) -> bytes:
    """Chunks of one broadcast as the inbox reads them."""
    return events_pb2.InboxDeliveries(
        deliveries=(
            events_pb2.InboxDelivery(
                broadcast_id=str(chunk.broadcast_id),
                chunk=chunk.chunk,
                epoch=chunk.epoch,
                kind=_KINDS[chunk.kind],
                members=chunk.members,
            )
            for chunk in chunks
        )
    ).SerializeToString()


def begun_payload(broadcast_id: UUID) -> bytes:
    """That chunks of a broadcast will come soon, as the inbox reads it."""
    return events_pb2.DispatchBegun(broadcast_id=str(broadcast_id)).SerializeToString()


def state_payload(
    broadcast_id: UUID, state: str, time: datetime, targeted: int = 0, error: str = ""
) -> bytes:
    """What a broadcast has come to (sent, expired or failed), as the sender reads it."""
    return events_pb2.BroadcastStateChanged(
        broadcast_id=str(broadcast_id),
        state=_STATES_TOLD[state],
        targeted=targeted,
        error=error,
        time=_timestamp(time),
    ).SerializeToString()


def order_of(message: sender_pb2.DispatchOrder) -> Order:
    """What the sender orders. Raises BrokenMessage."""
    rules = _rules_of(_uuid(message.broadcast_id), message, message.wedding.wedding_id)
    return Order(rules, _expiry_of(message), message.targeting)


def _rules_of(
    broadcast_id: UUID, order: sender_pb2.DispatchOrder | events_pb2.DueOrder, wedding_id: str
) -> Rules:
    try:
        category, priority = _CATEGORY_OF[order.category], _PRIORITY_OF[order.priority]
    except KeyError as error:
        raise BrokenMessage("an order has no category or priority that is known") from error
    return Rules(
        broadcast_id=broadcast_id,
        priority=priority,
        type=order.type,
        category=category,
        essential=order.essential,
        wedding_id=_uuid(wedding_id) if wedding_id else None,
        wall=tuple(map(_uuid, order.targeting.wedding_ids)),
    )


def _expiry_of(order: sender_pb2.DispatchOrder | events_pb2.DueOrder) -> datetime | None:
    return time_of(order.expires_at) if order.HasField("expires_at") else None


def rules_message(rules: Rules) -> audience_pb2.DeliveryRules:
    """The same for whoever decides."""
    return audience_pb2.DeliveryRules(
        type=rules.type,
        category=CATEGORIES[rules.category],
        priority=PRIORITIES[rules.priority],
        essential=rules.essential,
        wedding_id=str(rules.wedding_id or ""),
        wall_wedding_ids=map(str, rules.wall),
    )


def slice_of(message: audience_pb2.AudienceSlice) -> Slice:
    """A part of a decided audience. Raises BrokenSnapshot for an outcome that is unknown here."""
    try:
        return Slice(
            _CHANNEL_OF[message.channel],
            _DELIVERY_STATE_OF[message.outcome],
            Audience.from_bytes(message.members),
            _REASON_OF[message.reason] if message.reason else None,
            time_of(message.release_at) if message.HasField("release_at") else None,
        )
    except KeyError as error:
        raise BrokenSnapshot("a slice has a channel, outcome or reason that is unknown here") from error


def changes_of(message: audience_pb2.ListChangesResponse) -> Changes:
    """Whom a stretch of the directory's log is about."""
    people = Audience.from_bytes(message.recipients) if message.recipients else Audience()
    weddings = frozenset(map(UUID, message.wedding_ids))
    return Changes(message.directory_version, people, weddings, message.anybody)


def dispatch_message(dispatch: Dispatch) -> dispatcher_pb2.Dispatch:
    """A plan and its ledger as callers see them."""
    message = dispatcher_pb2.Dispatch(
        broadcast_id=str(dispatch.broadcast_id),
        state=_DISPATCH_STATES[dispatch.state],
        targeted=dispatch.targeted,
        directory_version=dispatch.directory_version,
        ledger=_ledger_messages(dispatch),
        chunks_total=dispatch.chunks_total,
        chunks_done=dispatch.chunks_done,
        plan_time=time_message(dispatch.plan_time),
        close_time=time_message(dispatch.close_time),
        next_release_time=time_message(dispatch.next_release_time),
    )
    if dispatch.priority is not None:
        message.priority = PRIORITIES[dispatch.priority]
    return message


def stop_message(answer: StopAnswer) -> dispatcher_pb2.StopDispatchResponse:
    """What a cancel found."""
    return dispatcher_pb2.StopDispatchResponse(
        planned=answer.planned,
        stopped=answer.stopped,
        in_flight=answer.in_flight,
        targeted=answer.targeted,
    )


def time_of(message: Timestamp) -> datetime:
    """A moment in UTC, to the microsecond."""
    return message.ToDatetime(UTC)


def time_message(moment: datetime | None) -> Timestamp | None:
    """A moment, or nothing."""
    return None if moment is None else _timestamp(moment)


def _ledger_messages(dispatch: Dispatch) -> Iterable[common_pb2.LedgerEntry]:
    for line in ledger(dispatch.counts):
        entry = common_pb2.LedgerEntry(
            channel=CHANNELS[line.channel], state=_DELIVERY_STATES[line.state], count=line.count
        )
        if line.reason is not None:
            entry.reason = _REASONS[line.reason]
        yield entry


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _parse(message: events_pb2.BroadcastDue | events_pb2.DeliveryReports, payload: bytes) -> None:
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise BrokenMessage(f"these bytes are no {message.DESCRIPTOR.name}") from error


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise BrokenMessage("an id is not a UUID") from error
