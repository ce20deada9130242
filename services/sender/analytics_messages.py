"""Translates between the contract's messages about analytics and the sender's own values."""

from collections.abc import Iterable
from datetime import date
from typing import Final

from google.type.date_pb2 import Date
from wedsync.broadcast.v1 import sender_pb2

from services.sender.analytics import Group, Question, Row, range_violations
from services.sender.messages import PRIORITIES, author_name, date_message, date_of, ids_of, priorities_of
from shared.errors import FieldViolation

_GROUPS_TOLD: Final = {
    sender_pb2.AnalyticsGroup.Value(f"ANALYTICS_GROUP_{each.name}"): each for each in Group
}


def day_violations(request: sender_pb2.GetAnalyticsRequest, today: date) -> Iterable[FieldViolation]:
    """What is wrong with the days of a request, which need not be valid otherwise."""
    broken = [
        FieldViolation(name, "must be a day that exists, with year, month and day")
        for name, is_there, day in (
            ("first_day", request.HasField("first_day"), request.first_day),
            ("last_day", request.HasField("last_day"), request.last_day),
        )
        if is_there and not _exists(day)
    ]
    return broken or range_violations(date_of(request.first_day), date_of(request.last_day), today)


def question_of(request: sender_pb2.GetAnalyticsRequest) -> Question:
    """Which analytics a valid request asks for. The order of what is listed makes no difference."""
    return Question(
        group=_GROUPS_TOLD[request.group],
        first_day=date_of(request.first_day),
        last_day=date_of(request.last_day),
        broadcast_ids=tuple(sorted(ids_of(request.broadcast_ids))),
        type=request.type,
        priorities=priorities_of(request.priorities),
        created_by=author_name(request.created_by),
        wedding_id=request.wedding_id.lower() or None,
    )


def response_message(
    rows: Iterable[Row], counted_through: date, next_page_token: str
) -> sender_pb2.GetAnalyticsResponse:
    """A page as its readers see it."""
    return sender_pb2.GetAnalyticsResponse(
        rows=map(_row_message, rows),
        next_page_token=next_page_token,
        counted_through=date_message(counted_through),
    )


def _row_message(row: Row) -> sender_pb2.AnalyticsRow:
    counts = row.counts
    message = sender_pb2.AnalyticsRow(
        day=date_message(row.day),
        broadcast_id=row.broadcast_id,
        type=row.type,
        targeted=counts.targeted,
        delivered=counts.delivered,
        read=counts.read,
        acknowledged=counts.acknowledged,
        clicked=counts.clicked,
        delivery_rate=counts.delivery_rate,
        engagement_rate=counts.engagement_rate,
    )
    if row.priority is not None:
        message.priority = PRIORITIES[row.priority]
    if counts.average_time_to_read is not None:
        message.average_time_to_read.FromTimedelta(counts.average_time_to_read)
    return message


def _exists(day: Date) -> bool:
    try:
        date(day.year, day.month, day.day)
    except (ValueError, OverflowError):
        return False
    return True
