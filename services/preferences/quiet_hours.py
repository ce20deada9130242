"""Owns quiet hours: a daily window on the wall clock of a zone, right through every change of that clock."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

MINUTES_A_DAY: Final = 24 * 60
_DAY_S: Final = 24 * 60 * 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class QuietWindow:
    """From `start_minute` to before `end_minute` of a day in `time_zone`; an end that is earlier is the next day's."""

    time_zone: str
    start_minute: int
    end_minute: int

    def covers(self, second: int) -> bool:
        """Whether the wall clock is inside at this second of its day."""
        start, end = self.start_minute * 60, self.end_minute * 60
        return start <= second < end if start < end else second >= start or second < end


@lru_cache(maxsize=16_384)
def quiet_until(window: QuietWindow, now: datetime) -> datetime | None:
    """When the wall clock next leaves the window, in UTC; None when it is outside at `now`.

    The wall clock alone decides. Where a clock goes forward over an end, quiet ends at that moment; a window that lies
    within the hour that is left out does not occur that day. Where a clock goes back over an end, the window ends at
    the first of the two, and comes again for as long as the repeated hour is inside it.
    """
    if not window.covers(wall_clock(window.time_zone, now)):
        return None
    return next_edge(window, now)


def next_edge(window: QuietWindow, now: datetime) -> datetime:
    """When the wall clock next leaves the window, or enters it when it is outside at `now`, in UTC."""
    moment = _seconds(now)
    is_inside = window.covers(_wall_clock(window.time_zone, moment))
    edge = (window.end_minute if is_inside else window.start_minute) * 60
    while True:
        wall = _wall_clock(window.time_zone, moment)
        crosses = moment + (edge - wall) % _DAY_S
        change = _next_change(window.time_zone, moment, crosses)
        if change is None:
            break
        moment = crosses = change
        if window.covers(_wall_clock(window.time_zone, moment)) != is_inside:
            break
    return _EPOCH + timedelta(seconds=crosses)


@lru_cache(maxsize=4_096)
def wall_clock(time_zone: str, now: datetime) -> int:
    """The second of the day that the clocks of a zone show at `now`."""
    return _wall_clock(time_zone, _seconds(now))


def local_midnight(day: date, time_zone: str) -> datetime:
    """When a day begins in a zone, in UTC; where the clock leaves midnight out, the moment that it jumps to."""
    return datetime.combine(day, time.min, tzinfo=ZoneInfo(time_zone)).astimezone(UTC)


def _seconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1)


def _wall_clock(time_zone: str, moment: int) -> int:
    """The second of the day that the clocks of a zone show."""
    changes = _clock_changes(time_zone, moment // _DAY_S)
    offset = next(offset for since, offset in reversed(changes) if since <= moment)
    return (moment + offset) % _DAY_S


def _next_change(time_zone: str, after: int, until: int) -> int | None:
    """The first moment past `after`, up to and with `until` (a day ahead at most), at which the clocks are changed."""
    today, last_day = after // _DAY_S, until // _DAY_S
    offset = None
    for day in range(today, last_day + 1):
        for since, new_offset in _clock_changes(time_zone, day):
            if after < since <= until and new_offset != offset:
                return since
            offset = new_offset
    return None


@lru_cache(maxsize=4_096)
def _clock_changes(time_zone: str, day: int) -> tuple[tuple[int, int], ...]:
    """The offset from UTC with which a UTC day begins, and the other one with the moment of change when it has one.

    No zone has ever changed its offset twice within a day, nor does any rule that is in force: a test reads them all.
    """
    zone = ZoneInfo(time_zone)
    before, after = day * _DAY_S, (day + 1) * _DAY_S - 1
    first, last = _offset(zone, before), _offset(zone, after)
    if first == last:
        return ((day * _DAY_S, first),)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(zone, middle) == first else (before, middle)
    return (day * _DAY_S, first), (after, last)


def _offset(zone: ZoneInfo, moment: int) -> int:
    offset = (_EPOCH + timedelta(seconds=moment)).astimezone(zone).utcoffset()
    return offset // timedelta(seconds=1) if offset is not None else 0
