"""Quiet hours and wedding days around the moment at which a test runs."""

from datetime import UTC, datetime, timedelta

from google.type.date_pb2 import Date
from google.type.timeofday_pb2 import TimeOfDay


def _clock(moment: datetime) -> TimeOfDay:
    return TimeOfDay(hours=moment.hour, minutes=moment.minute)


def near_day() -> Date:
    """A day in UTC that is near for at least another twelve hours, whatever the time."""
    day = datetime.now(UTC) + timedelta(hours=12)
    return Date(year=day.year, month=day.month, day=day.day)


def around_now() -> dict[str, object]:
    """Quiet hours in UTC that began an hour ago and end in three."""
    now = datetime.now(UTC)
    return {
        "enabled": True,
        "start": _clock(now - timedelta(hours=1)),
        "end": _clock(now + timedelta(hours=3)),
        "time_zone": "UTC",
    }


def far_from_now() -> dict[str, object]:
    """Quiet hours in UTC that are many hours away."""
    now = datetime.now(UTC)
    return {
        "enabled": True,
        "start": _clock(now + timedelta(hours=11)),
        "end": _clock(now + timedelta(hours=12)),
        "time_zone": "UTC",
    }
