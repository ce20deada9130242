"""Translates between the contract's messages and the sender's own values."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.interval_pb2 import Interval
from wedsync.broadcast.v1 import audience_pb2, common_pb2, events_pb2, sender_pb2

from services.sender.domain import (
    Action,
    Broadcast,
    BroadcastType,
    Category,
    Content,
    Priority,
    State,
    Targeting,
    Wedding,
)
from services.sender.filters import Filter, Period
from services.sender.limits import Quota
from services.sender.rules import Draft

CATEGORIES: Final = {each: common_pb2.Category.Value(f"CATEGORY_{each.name}") for each in Category}
PRIORITIES: Final = {each: common_pb2.Priority.Value(f"PRIORITY_{each.name}") for each in Priority}
STATES: Final = {each: common_pb2.BroadcastState.Value(f"BROADCAST_STATE_{each.name}") for each in State}
# Messages of the due stream are small; whoever needs a longer order asks for it.
_LONGEST_DUE_ORDER: Final = 4096
_PRIORITIES_TOLD: Final = {number: each for each, number in PRIORITIES.items()}
_STATES_TOLD: Final = {number: each for each, number in STATES.items()}


def draft_to_send(request: sender_pb2.SendBroadcastRequest) -> Draft:
    """What a caller asks to have sent; its rules need not have been checked."""
    return Draft(
        type=request.type,
        priority=_PRIORITIES_TOLD.get(request.priority),
        targeting=targeting_of(request.targeting),
        wedding_id=request.wedding_id.lower() or None,
        title=request.title,
        message=request.message,
        action=Action(request.action.label, request.action.url) if request.HasField("action") else None,
        scheduled_for=time_of(request.scheduled_for) if request.HasField("scheduled_for") else None,
        expires_at=time_of(request.expires_at) if request.HasField("expires_at") else None,
        escalates=request.HasField("escalation"),
    )


def draft_to_preview(request: sender_pb2.PreviewAudienceRequest) -> Draft:
    """What a caller asks to have counted."""
    return Draft(
        type=request.type,
        priority=_PRIORITIES_TOLD.get(request.priority),
        targeting=targeting_of(request.targeting),
        wedding_id=request.wedding_id.lower() or None,
        expires_at=time_of(request.expires_at) if request.HasField("expires_at") else None,
    )


def filter_of(request: sender_pb2.ListBroadcastsRequest) -> Filter:
    """Which broadcasts a caller asks for. The order of what is listed makes no difference."""
    return Filter(
        states=tuple(sorted({_STATES_TOLD[each] for each in request.states})),
        type=request.type,
        priorities=priorities_of(request.priorities),
        created_by=author_name(request.created_by),
        wedding_id=request.wedding_id.lower() or None,
        created=period_of(request.create_time),
        due=period_of(request.scheduled_for),
    )


def priorities_of(numbers: "Iterable[common_pb2.Priority.ValueType]") -> tuple[Priority, ...]:
    """The priorities that a valid request names, the most urgent first, each once."""
    return tuple(sorted({_PRIORITIES_TOLD[each] for each in numbers}))


def author_name(text: str) -> str:
    """An author's name as it is kept: the ids of people in lower case, the names of service accounts as they are."""
    try:
        return str(UUID(text))
    except ValueError:
        return text


def period_of(message: Interval) -> Period:
    """Some time, open on the sides that are not given."""
    return Period(
        time_of(message.start_time) if message.HasField("start_time") else None,
        time_of(message.end_time) if message.HasField("end_time") else None,
    )


def draft_to_count(request: sender_pb2.SendBroadcastRequest | sender_pb2.GetQuotaRequest) -> Draft:
    """What decides with which others a broadcast is counted; the rest of it is left out."""
    return Draft(
        type=request.type,
        priority=_PRIORITIES_TOLD.get(request.priority),
        targeting=Targeting(),
        wedding_id=request.wedding_id.lower() or None,
    )


def targeting_of(message: common_pb2.Targeting) -> Targeting:
    """Who is meant, each value once."""
    return Targeting(
        everyone=message.everyone,
        user_ids=ids_of(message.user_ids),
        roles=tuple(dict.fromkeys(message.roles)),
        tiers=tuple(dict.fromkeys(message.tiers)),
        segment_ids=ids_of(message.segment_ids),
        wedding_ids=ids_of(message.wedding_ids),
    )


def ids_of(ids: Iterable[str]) -> tuple[str, ...]:
    """Ids in lower case, each once."""
    return tuple(dict.fromkeys(each.lower() for each in ids))


def targeting_message(targeting: Targeting, wall: Iterable[str] | None = None) -> common_pb2.Targeting:
    """The targeting as it was asked, or with `wall` in the place of its weddings."""
    return common_pb2.Targeting(
        everyone=targeting.everyone,
        user_ids=targeting.user_ids,
        roles=targeting.roles,
        tiers=targeting.tiers,
        segment_ids=targeting.segment_ids,
        wedding_ids=targeting.wedding_ids if wall is None else wall,
    )


def quota_message(quota: Quota) -> sender_pb2.Quota:
    """What a sender has left."""
    return sender_pb2.Quota(
        hour_limit=quota.limit.hour,
        hour_remaining=quota.hour_remaining,
        day_limit=quota.limit.day,
        day_remaining=quota.day_remaining,
        reset_time=time_message(quota.reset_time),
    )


def quota_part(quota: Quota) -> bytes:
    """The part of a send's answer that is known only once it is counted, serialised."""
    return sender_pb2.SendBroadcastResponse(quota=quota_message(quota)).SerializeToString()


def rules_message(
    broadcast_type: BroadcastType, priority: Priority, wedding_id: str | None, wall: Iterable[str]
) -> audience_pb2.DeliveryRules:
    """What the decision about each recipient depends on."""
    return audience_pb2.DeliveryRules(
        type=broadcast_type.name,
        category=CATEGORIES[broadcast_type.category],
        priority=PRIORITIES[priority],
        essential=broadcast_type.essential,
        wedding_id=wedding_id or "",
        wall_wedding_ids=wall,
    )


def broadcast_message(broadcast: Broadcast) -> sender_pb2.Broadcast:
    """A broadcast as its readers see it."""
    content = broadcast.content
    message = sender_pb2.Broadcast(
        broadcast_id=broadcast.broadcast_id,
        type=content.type.name,
        category=CATEGORIES[content.type.category],
        priority=PRIORITIES[content.priority],
        title=content.title,
        message=content.message,
        action=_action_message(content.action),
        targeting=targeting_message(content.targeting),
        wedding=_wedding_message(content.wedding),
        state=STATES[broadcast.state],
        scheduled_for=time_message(content.scheduled_for),
        expires_at=time_message(content.expires_at),
        create_time=time_message(broadcast.created_at),
        created_by=broadcast.author.name,
        sent_at=time_message(broadcast.sent_at),
        failed_at=time_message(broadcast.failed_at),
        error=broadcast.error,
    )
    if broadcast.cancellation is not None:
        message.cancelled_at.CopyFrom(_timestamp(broadcast.cancellation.at))
        message.cancel_reason = broadcast.cancellation.reason
    if broadcast.decision is not None:
        message.decided_by = broadcast.decision.by
        message.decided_at.CopyFrom(_timestamp(broadcast.decision.at))
        message.decision_reason = broadcast.decision.reason
    return message


def order_message(broadcast: Broadcast) -> sender_pb2.DispatchOrder:
    """A broadcast as dispatchers and inboxes need it."""
    content = broadcast.content
    return sender_pb2.DispatchOrder(
        broadcast_id=broadcast.broadcast_id,
        type=content.type.name,
        category=CATEGORIES[content.type.category],
        priority=PRIORITIES[content.priority],
        essential=content.type.essential,
        title=content.title,
        message=content.message,
        action=_action_message(content.action),
        targeting=targeting_message(content.targeting, content.wall),
        wedding=_wedding_message(content.wedding),
        scheduled_for=time_message(content.scheduled_for),
        expires_at=time_message(content.expires_at),
        state=STATES[broadcast.state],
    )


def due_payload(broadcast: Broadcast) -> bytes:
    """What announces a broadcast to dispatchers, without the number of the announcement."""
    content = broadcast.content
    due = events_pb2.BroadcastDue(broadcast_id=broadcast.broadcast_id)
    if not content.targeting.user_ids:
        order = events_pb2.DueOrder(
            type=content.type.name,
            category=CATEGORIES[content.type.category],
            priority=PRIORITIES[content.priority],
            essential=content.type.essential,
            targeting=content_targeting(content),
            wedding_id=content.wedding.wedding_id if content.wedding else "",
            expires_at=time_message(content.expires_at),
        )
        if order.ByteSize() <= _LONGEST_DUE_ORDER:
            due.order.CopyFrom(order)
    return due.SerializeToString()


def state_of(number: "common_pb2.BroadcastState.ValueType") -> State | None:
    """The state that a message tells, None for none or one that is unknown here."""
    return _STATES_TOLD.get(number)


def content_targeting(content: Content) -> common_pb2.Targeting:
    """Who a broadcast is meant for, behind its wall."""
    return targeting_message(content.targeting, content.wall)


def time_of(message: Timestamp) -> datetime | None:
    """A moment in UTC, to the microsecond; None for a time that does not exist, which the edge refuses."""
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None


def time_message(moment: datetime | None) -> Timestamp | None:
    """A moment, or nothing."""
    return None if moment is None else _timestamp(moment)


def date_of(message: Date) -> date | None:
    """A day, None when it is not fixed."""
    return date(message.year, message.month, message.day) if message.year else None


def date_message(day: date) -> Date:
    """A day."""
    return Date(year=day.year, month=day.month, day=day.day)


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _action_message(action: Action | None) -> common_pb2.Action | None:
    return None if action is None else common_pb2.Action(label=action.label, url=action.url)


def _wedding_message(wedding: Wedding | None) -> common_pb2.Wedding | None:
    if wedding is None:
        return None
    day = wedding.wedding_date
    return common_pb2.Wedding(
        wedding_id=wedding.wedding_id,
        couple_name=wedding.couple_name,
        wedding_date=None if day is None else date_message(day),
    )
