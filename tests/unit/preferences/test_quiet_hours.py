"""Quiet hours against a walk through UTC, minute by minute, in every zone."""

from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from services.preferences.quiet_hours import QuietWindow, local_midnight, quiet_until

ZONES = files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
# Clocks in use change near these: half an hour on Lord Howe, at midnight in Havana, two hours at Troll, twice around
# Ramadan in Casablanca.
WATCHED_ZONES = [
    "Australia/Lord_Howe",
    "America/Havana",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Europe/Vienna",
    "America/New_York",
    "Asia/Kathmandu",
    "Pacific/Apia",
]
MINUTE = timedelta(minutes=1)


def _is_quiet(window: QuietWindow, moment: datetime) -> bool:
    """The definition: what the clock on the wall shows, and nothing else."""
    wall = moment.astimezone(ZoneInfo(window.time_zone))
    minute = wall.hour * 60 + wall.minute
    if window.start_minute < window.end_minute:
        return window.start_minute <= minute < window.end_minute
    return minute >= window.start_minute or minute < window.end_minute


def _walk(window: QuietWindow, moment: datetime) -> datetime | None:
    """The first whole minute at or after `moment` that is not quiet; None when `moment` itself is not."""
    if not _is_quiet(window, moment):
        return None
    moment = moment.replace(second=0, microsecond=0)
    while _is_quiet(window, moment):
        moment += MINUTE
    return moment


def _clock_change(zone: str, year: int, which: int) -> datetime:
    """The moment of one of a zone's clock changes in a year, to the minute; New Year where there is none."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=hour) for hour in range(366 * 24)]
    info = ZoneInfo(zone)
    offsets = [hour.astimezone(info).utcoffset() for hour in hours]
    changes = [hours[at] for at in range(1, len(hours)) if offsets[at] != offsets[at - 1]]
    return changes[which % len(changes)] if changes else start


windows = st.tuples(st.integers(0, 1439), st.integers(0, 1439)).filter(lambda pair: pair[0] != pair[1])


@given(
    zone=st.sampled_from(ZONES),
    window=windows,
    moment=st.integers(0, 14 * 366 * 86_400).map(
        lambda s: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=s)
    ),
)
def test_any_zone_agrees_with_a_walk_through_utc(
    zone: str, window: tuple[int, int], moment: datetime
) -> None:
    """In any zone, at any time, a window is open and ends exactly as its wall clock says."""
    quiet = QuietWindow(zone, *window)
    assert _walk(quiet, moment) == quiet_until(quiet, moment)


@given(
    zone=st.sampled_from(WATCHED_ZONES),
    year=st.integers(2024, 2030),
    which=st.integers(0, 3),
    window=windows,
    minutes=st.integers(-36 * 60, 36 * 60),
)
def test_around_clock_changes_it_agrees_with_a_walk_through_utc(
    zone: str, year: int, which: int, window: tuple[int, int], minutes: int
) -> None:
    """The same within a day and a half of a change of the clocks, where hours are missing or come twice."""
    quiet = QuietWindow(zone, *window)
    moment = _clock_change(zone, year, which) + timedelta(minutes=minutes)
    assert _walk(quiet, moment) == quiet_until(quiet, moment)


def _vienna(start: tuple[int, int], end: tuple[int, int]) -> QuietWindow:
    return QuietWindow("Europe/Vienna", start[0] * 60 + start[1], end[0] * 60 + end[1])


def test_start_is_quiet_and_end_is_not() -> None:
    """21:00 sharp is inside 21:00-09:00; 09:00 sharp is not."""
    window = _vienna((21, 0), (9, 0))
    ends = datetime(2026, 7, 2, 7, 0, tzinfo=UTC)
    assert ends == quiet_until(window, datetime(2026, 7, 1, 19, 0, tzinfo=UTC))
    assert quiet_until(window, ends) is None
    assert ends == quiet_until(window, ends - timedelta(microseconds=1))


def test_a_night_in_spring_is_an_hour_shorter() -> None:
    """In the night of 29 March 2026 Vienna's 21:00-09:00 takes eleven hours."""
    begins = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)
    assert quiet_until(_vienna((21, 0), (9, 0)), begins) == begins + timedelta(hours=11)


def test_an_end_within_the_missing_hour_is_the_moment_of_the_change() -> None:
    """A window until 02:30 ends at 01:00 UTC on the day on which 02:00 becomes 03:00."""
    window = _vienna((22, 0), (2, 30))
    assert quiet_until(window, datetime(2026, 3, 29, 0, 30, tzinfo=UTC)) == datetime(
        2026, 3, 29, 1, 0, tzinfo=UTC
    )


def test_a_window_within_the_missing_hour_does_not_occur() -> None:
    """02:10-02:50 is never on the wall that day."""
    start = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)
    quiet = [quiet_until(_vienna((2, 10), (2, 50)), start + minute * MINUTE) for minute in range(240)]
    assert quiet == [None] * 240


def test_an_end_within_the_repeated_hour_comes_twice() -> None:
    """A window until 02:30 ends at the first 02:30 of 25 October 2026, and is back while it is 02:00-02:30 again."""
    window = _vienna((22, 0), (2, 30))
    first_end, second_start = (
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 0, tzinfo=UTC),
    )
    assert quiet_until(window, first_end - MINUTE) == first_end
    assert quiet_until(window, first_end) is None
    assert quiet_until(window, second_start) == second_start + timedelta(minutes=30)


def test_a_start_within_the_repeated_hour_is_left_when_the_clock_goes_back() -> None:
    """02:30-05:00 begins at the first 02:30, is left when 03:00 becomes 02:00, and begins again."""
    window = _vienna((2, 30), (5, 0))
    change = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    assert quiet_until(window, change - timedelta(minutes=15)) == change
    assert quiet_until(window, change) is None
    assert quiet_until(window, change + timedelta(minutes=30)) == datetime(2026, 10, 25, 4, 0, tzinfo=UTC)


def test_a_day_begins_when_the_clock_leaves_midnight_out() -> None:
    """In Havana on 8 March 2026 midnight becomes one o'clock: the day begins at that moment."""
    assert local_midnight(date(2026, 3, 8), "America/Havana") == datetime(2026, 3, 8, 5, 0, tzinfo=UTC)
