"""Quiet hours against a walk through UTC, minute by minute, in every zone and past every change of a clock."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.preferences.quiet_hours import QuietWindow, local_midnight, next_edge, quiet_until
from tests.unit.preferences.clock_changes import ZONES, changes_of, rule_of

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
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
CHANGING_ZONES = [zone for zone in ZONES if changes_of(zone)]


def _is_quiet(window: QuietWindow, moment: datetime) -> bool:
    """The definition: what the clock on the wall shows, and nothing else."""
    wall = moment.astimezone(ZoneInfo(window.time_zone))
    minute = wall.hour * 60 + wall.minute
    if window.start_minute < window.end_minute:
        return window.start_minute <= minute < window.end_minute
    return minute >= window.start_minute or minute < window.end_minute


def _walk(window: QuietWindow, moment: datetime) -> tuple[datetime, bool]:
    """The first moment after `moment` that is not as quiet or loud as that itself, and whether that is quiet.

    It goes by whole minutes of UTC, and by seconds where a minute ends otherwise than it began: clocks of former times
    were behind UTC by odd seconds, and were changed at any.
    """
    is_quiet = _is_quiet(window, moment)
    return next(at for at in _moments(window, moment) if _is_quiet(window, at) != is_quiet), is_quiet


def _told(window: QuietWindow, moment: datetime) -> tuple[datetime, bool]:
    """The same as the service has it; how long it is quiet, it also says by itself."""
    edge, ends = next_edge(window, moment), quiet_until(window, moment)
    assert ends in (edge, None)
    return edge, ends is not None


def _moments(window: QuietWindow, moment: datetime) -> Iterator[datetime]:
    zone, moment = ZoneInfo(window.time_zone), moment.replace(microsecond=0)
    is_quiet = _is_quiet(window, moment)
    while True:
        following = moment.replace(second=0) + MINUTE
        is_even = moment.astimezone(zone).utcoffset() == following.astimezone(zone).utcoffset()
        if is_even and _is_quiet(window, following) == is_quiet:
            yield following
        else:
            yield from (moment + step * SECOND for step in range(1, int((following - moment) / SECOND) + 1))
        moment = following


@cache
def _changes_in(zone: str, year: int) -> list[datetime]:
    """A zone's clock changes in a year, to the hour; New Year where there is none."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=hour) for hour in range(366 * 24)]
    info = ZoneInfo(zone)
    offsets = [hour.astimezone(info).utcoffset() for hour in hours]
    return [hours[at] for at in range(1, len(hours)) if offsets[at] != offsets[at - 1]] or [start]


def _clock_change(zone: str, year: int, which: int) -> datetime:
    """One of them."""
    changes = _changes_in(zone, year)
    return changes[which % len(changes)]


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
    """In any zone, at any time, a window is open, ends and begins exactly as its wall clock says."""
    quiet = QuietWindow(zone, *window)
    assert _walk(quiet, moment) == _told(quiet, moment)


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
    assert _walk(quiet, moment) == _told(quiet, moment)


@settings(max_examples=300)
@given(
    zone=st.sampled_from(CHANGING_ZONES),
    which=st.integers(0, 10_000),
    window=windows,
    minutes=st.integers(-36 * 60, 36 * 60),
    second=st.integers(0, 59),
)
def test_past_every_clock_change_on_record_it_agrees_with_a_walk_through_utc(
    zone: str, which: int, window: tuple[int, int], minutes: int, second: int
) -> None:
    """The same at any change that the zone database knows, since the first clocks: also where days were left out."""
    quiet = QuietWindow(zone, *window)
    changes = changes_of(zone)
    moment = changes[which % len(changes)].at + timedelta(minutes=minutes, seconds=second)
    assert _walk(quiet, moment) == _told(quiet, moment)


@given(
    zone=st.sampled_from(WATCHED_ZONES),
    year=st.integers(2024, 2030),
    which=st.integers(0, 3),
    offset=st.sampled_from([-120, -90, -60, -30, 0, 30, 60, 90, 120]),
    lengths=st.tuples(st.integers(1, 180), st.sampled_from(["start", "end"])),
    minutes=st.integers(-240, 240),
)
def test_windows_that_begin_or_end_in_a_missing_or_repeated_hour_agree_with_a_walk(
    zone: str, year: int, which: int, offset: int, lengths: tuple[int, str], minutes: int
) -> None:
    """Short and long ones with an edge at the change itself, or at a half or a whole hour from it."""
    change = _clock_change(zone, year, which)
    wall = (change + timedelta(minutes=offset)).astimezone(ZoneInfo(zone))
    edge, (length, side) = wall.hour * 60 + wall.minute, lengths
    start, end = (edge, edge + length) if side == "start" else (edge - length, edge)
    quiet = QuietWindow(zone, start % 1440, end % 1440)
    moment = change + timedelta(minutes=minutes)
    assert _walk(quiet, moment) == _told(quiet, moment)


@given(
    start=st.tuples(st.sampled_from(WATCHED_ZONES), st.integers(2024, 2030), st.integers(0, 3)),
    minutes=st.integers(-24 * 60, 12 * 60),
    settings_in_turn=st.lists(
        st.tuples(st.integers(1, 600), st.none() | st.tuples(st.sampled_from(ZONES), windows)), max_size=4
    ),
    first=windows,
)
def test_a_hold_follows_changes_of_zone_and_window(
    start: tuple[str, int, int],
    minutes: int,
    settings_in_turn: Sequence[tuple[int, tuple[str, tuple[int, int]] | None]],
    first: tuple[int, int],
) -> None:
    """Released at the first moment that is not quiet by what the person had set then, whatever they set before."""
    now = _clock_change(*start) + timedelta(minutes=minutes)
    in_force = [(now, QuietWindow(start[0], *first))]
    for delay, setting in settings_in_turn:
        in_force.append(
            (in_force[-1][0] + delay * MINUTE, QuietWindow(setting[0], *setting[1]) if setting else None)
        )
    release = now
    for changed_at, window in in_force:
        if changed_at > release:
            break
        release = (quiet_until(window, changed_at) if window else None) or changed_at
    assert release == _walk_settings(in_force)


def _walk_settings(in_force: Sequence[tuple[datetime, QuietWindow | None]]) -> datetime:
    """The first whole minute that is not quiet by the settings of that minute."""
    at = in_force[0][0]
    while True:
        window = next(window for since, window in reversed(in_force) if since <= at)
        if window is None or not _is_quiet(window, at):
            return at
        at += MINUTE


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC)),
        ("Pacific/Kwajalein", datetime(1993, 8, 21, 12, 0, tzinfo=UTC)),
        ("Asia/Manila", datetime(1844, 12, 31, 15, 56, 8, tzinfo=UTC)),
        ("America/Juneau", datetime(1867, 10, 19, 0, 31, 13, tzinfo=UTC)),
    ],
    ids=["left out in Samoa", "left out on Kwajalein", "left out in Manila", "repeated in Juneau"],
)
def test_a_day_that_is_left_out_or_repeated_makes_no_night_longer(zone: str, change: datetime) -> None:
    """The date jumps and the clock goes on, so whoever sleeps then is woken when it shows the end of their window."""
    assert min(abs(each.at - change) for each in changes_of(zone)) <= timedelta(hours=1)
    begins = change - timedelta(hours=1)
    wall = begins.astimezone(ZoneInfo(zone))
    start = wall.hour * 60 + wall.minute
    quiet = QuietWindow(zone, start, (start + 9 * 60) % 1440)
    ends = quiet_until(quiet, begins)
    assert ends is not None
    assert timedelta(hours=9) - MINUTE <= ends - begins <= timedelta(hours=9)


def test_no_zone_changes_its_clock_twice_within_a_day() -> None:
    """What quiet hours rely on, for every change in the zone database, and for every rule that goes on for ever."""
    closest = timedelta.max
    for zone in ZONES:
        changes = changes_of(zone)
        gaps = [after.at - before.at for before, after in pairwise(changes)]
        closest = min([closest, *gaps])
    assert closest >= timedelta(days=2)
    one_of_each_rule = {rule_of(zone): zone for zone in ZONES}
    for zone in one_of_each_rule.values():
        info, begins = ZoneInfo(zone), datetime(2038, 1, 1, tzinfo=UTC)
        days = [begins + timedelta(days=day) for day in range(28 * 366)]
        offsets = [day.astimezone(info).utcoffset() for day in days]
        changed = [day for day, (one, other) in enumerate(pairwise(offsets)) if one != other]
        assert min((later - earlier for earlier, later in pairwise(changed)), default=2) >= 2, zone


def test_clocks_have_been_whole_minutes_from_utc_for_fifty_years() -> None:
    """So a decision of now may look at minutes alone, and one a minute is enough for everybody."""
    since = datetime(1972, 2, 1, tzinfo=UTC)
    for zone in ZONES:
        offsets = {change.offset for change in changes_of(zone) if change.at >= since}
        offsets.add(since.astimezone(ZoneInfo(zone)).utcoffset())
        assert {offset % MINUTE for offset in offsets} == {timedelta()}, zone
        assert {change.at.second for change in changes_of(zone) if change.at >= since} <= {0}, zone


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
