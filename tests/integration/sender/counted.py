"""Analytics put on record without being counted, and how a test reads what is told of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from google.type.date_pb2 import Date
from wedsync.broadcast.v1 import sender_pb2

from tests.integration.sender.site import Metadata, Site

DAY = timedelta(days=1)
BROADCAST, TYPE, PRIORITY = (
    sender_pb2.ANALYTICS_GROUP_BROADCAST,
    sender_pb2.ANALYTICS_GROUP_TYPE,
    sender_pb2.ANALYTICS_GROUP_PRIORITY,
)
TYPES = ("form.locked", "wedding.emergency", "wedding.cancelled")
_ADD = """
    INSERT INTO sender.daily_analytics (
        broadcast_id, day, type, priority, created_by, targeted, delivered, read, acknowledged, clicked, time_to_read_us
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


class People(NamedTuple):
    """What stood for a broadcast at the end of a day, or for some together; the time is in seconds."""

    targeted: int = 0
    delivered: int = 0
    read: int = 0
    acknowledged: int = 0
    clicked: int = 0
    time_to_read: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A broadcast with the days on which something had changed."""

    created_by: str
    days: dict[date, People]
    type: str = "form.locked"
    priority: int = 3
    wall: tuple[str, ...] = ()
    broadcast_id: UUID = field(default_factory=uuid4)

    def standing(self, day: date) -> People | None:
        """What stood at the end of a day, None before the first."""
        before = [each for each in sorted(self.days) if each <= day]
        return self.days[before[-1]] if before else None


async def keep(site: Site, counted: Iterable[Counted]) -> None:
    """This, and nothing else, was counted."""
    counted = list(counted)
    await site.admin.execute("DELETE FROM sender.daily_analytics")
    await site.admin.execute("DELETE FROM sender.analytics_walls")
    rows = [
        (
            each.broadcast_id,
            day,
            each.type,
            each.priority,
            each.created_by,
            *people[:5],
            people.time_to_read * 10**6,
        )
        for each in counted
        for day, people in each.days.items()
    ]
    await site.admin.executemany(_ADD, rows)
    walls = [(each.broadcast_id, wedding_id) for each in counted for wedding_id in each.wall]
    await site.admin.executemany("INSERT INTO sender.analytics_walls VALUES ($1, $2)", walls)


async def page(
    site: Site, caller: Metadata, group: int = BROADCAST, **request: object
) -> sender_pb2.GetAnalyticsResponse:
    """One page."""
    message = sender_pb2.GetAnalyticsRequest(group=group, **request)  # type: ignore[arg-type]
    return await site.stub.GetAnalytics(message, metadata=caller)


async def pages(
    site: Site, caller: Metadata, group: int, page_size: int, **request: object
) -> list[list[sender_pb2.AnalyticsRow]]:
    """All pages."""
    found: list[list[sender_pb2.AnalyticsRow]] = []
    token = ""
    while True:
        answer = await page(site, caller, group, page_size=page_size, page_token=token, **request)
        found.append(list(answer.rows))
        token = answer.next_page_token
        if not token:
            return found


def this_day() -> date:
    """The day that it is, which may be another than when the tests began."""
    return datetime.now(UTC).date()


def a_date(day: date) -> Date:
    """A day as the contract has it."""
    return Date(year=day.year, month=day.month, day=day.day)


def told(row: sender_pb2.AnalyticsRow) -> tuple[date, str, People]:
    """A row as a test writes it, with what it is about."""
    day = date(row.day.year, row.day.month, row.day.day)
    about = row.broadcast_id or row.type or str(row.priority)
    taken = round(row.average_time_to_read.ToTimedelta().total_seconds() * row.read)
    return day, about, People(row.targeted, row.delivered, row.read, row.acknowledged, row.clicked, taken)
