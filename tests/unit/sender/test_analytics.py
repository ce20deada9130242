"""When a broadcast is counted, what a count must be, and how pages of analytics are named."""

from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sender.analytics import (
    COUNTED_DAYS,
    Counts,
    Days,
    Group,
    Place,
    Question,
    Tally,
    day_of,
    end_of,
    follow,
    is_settled,
    portions,
    range_violations,
    read_page_token,
    write_page_token,
)
from services.sender.domain import Author, Priority
from shared import opaque
from shared.errors import InvalidPageToken

NOON = datetime(2027, 6, 5, 12, tzinfo=UTC)
DAY, MINUTE, SHORTEST = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=5)
ME = Author(str(uuid4()), is_service=False)
SOME = Counts(10, 8, 5, 2, 1, timedelta(minutes=50))
NOBODY = Counts(0, 0, 0, 0, 0, timedelta())


def a_tally(
    now: datetime, day: date | None = None, begun_at: datetime = NOON, is_over: bool = False
) -> Tally:
    """A broadcast of noon, to be counted for its own day, unless said otherwise."""
    return Tally("a", begun_at, day or day_of(begun_at), now, 10, is_over)


def test_rates_are_absent_where_they_would_divide_by_nothing() -> None:
    """And so is the time that nobody took."""
    assert (SOME.delivery_rate, SOME.engagement_rate, SOME.average_time_to_read) == (0.8, 0.625, 10 * MINUTE)
    assert (NOBODY.delivery_rate, NOBODY.engagement_rate, NOBODY.average_time_to_read) == (None, None, None)
    unread = Counts(10, 0, 0, 0, 0, timedelta())
    assert (unread.delivery_rate, unread.engagement_rate) == (0.0, None)


@pytest.mark.parametrize(
    "counts",
    [
        Counts(7, 8, 5, 2, 1, MINUTE),
        Counts(10, 4, 5, 2, 1, MINUTE),
        Counts(10, 8, 5, 6, 1, MINUTE),
        Counts(10, 8, 5, 2, 6, MINUTE),
        Counts(10, 8, 5, -1, 1, MINUTE),
        Counts(10, 8, 5, 2, -1, MINUTE),
        Counts(10, 8, 5, 2, 1, -MINUTE),
    ],
)
def test_what_cannot_be_was_not_counted_right(counts: Counts) -> None:
    """Each counts some of those that the one before it does."""
    assert SOME.is_possible
    assert NOBODY.is_possible
    assert not counts.is_possible


def test_a_day_is_settled_a_minute_after_its_end() -> None:
    """So that what was committed late is in it; and its end is that of the day in UTC."""
    midnight = datetime(2027, 6, 6, tzinfo=UTC)
    assert end_of(day_of(NOON)) == midnight
    assert day_of(midnight - timedelta(microseconds=1)) == day_of(NOON) != day_of(midnight)
    assert not is_settled(day_of(NOON), midnight + MINUTE - timedelta(microseconds=1))
    assert is_settled(day_of(NOON), midnight + MINUTE)


@given(st.timedeltas(timedelta(), timedelta(hours=11, minutes=59)))
def test_a_running_day_is_counted_again_when_the_broadcast_is_a_quarter_older(age: timedelta) -> None:
    """Not sooner than the shortest pause, and at the latest when the day has settled."""
    now = NOON + age
    after = follow(a_tally(now), SOME, SHORTEST)
    assert after.next_day == day_of(NOON)
    assert after.due_at == min(now + max(SHORTEST, age / 4), end_of(day_of(NOON)) + MINUTE)


@given(st.integers(1, COUNTED_DAYS - 1), st.timedeltas(MINUTE, 40 * DAY))
def test_a_day_that_has_settled_is_done(days: int, late: timedelta) -> None:
    """The next follows: at once if it has settled too, so that what was missed is caught up with; or once it has."""
    day = day_of(NOON) + (days - 1) * DAY
    now = end_of(day) + late
    after = follow(a_tally(now, day), SOME, SHORTEST)
    assert after.next_day == day + DAY
    settles = end_of(day + DAY) + MINUTE
    assert after.due_at is not None
    assert (after.due_at == now) if settles <= now else (now < after.due_at <= settles)


def test_a_month_old_broadcast_is_counted_once_a_day() -> None:
    """In the first minute after each."""
    day = day_of(NOON) + 30 * DAY
    now = end_of(day) + MINUTE
    assert follow(a_tally(now, day), SOME, SHORTEST).due_at == now + DAY


def test_the_last_day_ends_it() -> None:
    """Ninety days with the first one, for as long as its items live."""
    last = day_of(NOON) + (COUNTED_DAYS - 1) * DAY
    assert follow(a_tally(end_of(last), last), SOME, SHORTEST).due_at == end_of(last) + MINUTE
    assert follow(a_tally(end_of(last) + MINUTE, last), SOME, SHORTEST).due_at is None


@pytest.mark.parametrize(
    ("counts", "ends"), [(SOME, False), (NOBODY, True), (Counts(3, 3, 3, 3, 3, MINUTE), True)]
)
def test_what_cannot_change_any_more_is_not_counted_again(counts: Counts, ends: bool) -> None:
    """Because nobody is left who has not done all there is to do."""
    assert (follow(a_tally(NOON + MINUTE), counts, SHORTEST).due_at is None) is ends


def test_what_has_no_plan_yet_is_looked_at_again() -> None:
    """Unless it will never have one. A day that ends without a plan has nothing to count."""
    waiting = follow(a_tally(NOON + 4 * MINUTE), None, SHORTEST)
    assert (waiting.next_day, waiting.due_at) == (day_of(NOON), NOON + 5 * MINUTE)
    assert follow(a_tally(NOON, is_over=True), None, SHORTEST).due_at is None
    assert follow(a_tally(NOON + DAY), None, SHORTEST).next_day == day_of(NOON) + DAY


def test_the_inbox_is_asked_about_one_day_and_so_many_people_at_once() -> None:
    """A broadcast to more people than that is asked about alone; nothing is left out."""
    small = [Tally(f"small {n}", NOON, day_of(NOON), NOON, 10) for n in range(150)]
    large = [Tally(f"large {n}", NOON, day_of(NOON), NOON, 600_000) for n in range(3)]
    earlier = [Tally("earlier", NOON, day_of(NOON) - DAY, NOON, 2_000_000)]
    found = list(portions([*small, *large, *earlier]))
    assert [len(each) for each in found] == [1, 100, 51, 1, 1]
    assert all(len({tally.day for tally in each}) == 1 for each in found)
    assert {tally.broadcast_id for each in found for tally in each} == {
        tally.broadcast_id for tally in [*small, *large, *earlier]
    }
    assert list(portions([])) == []


TODAY = date(2027, 6, 5)


@pytest.mark.parametrize(
    ("first", "last", "fields"),
    [
        (None, None, []),
        (TODAY, TODAY, []),
        (TODAY - 365 * DAY, TODAY, []),
        (TODAY - 365 * DAY, None, []),
        (TODAY - 366 * DAY, TODAY, ["last_day"]),
        (TODAY - 366 * DAY, None, ["last_day"]),
        (TODAY, TODAY - DAY, ["last_day"]),
        (TODAY + DAY, None, ["last_day"]),
        (None, TODAY - 5000 * DAY, []),
        (TODAY, TODAY + 20 * DAY, []),
    ],
)
def test_days_are_in_order_and_at_most_a_year(
    first: date | None, last: date | None, fields: list[str]
) -> None:
    """What is broken is told."""
    assert [each.field for each in range_violations(first, last, TODAY)] == fields


def test_days_that_are_not_given_are_the_last_thirty() -> None:
    """No day is shown that has not begun."""
    assert Question(Group.TYPE).days(TODAY) == Days(TODAY - 29 * DAY, TODAY)
    assert Question(Group.TYPE, last_day=TODAY - DAY).days(TODAY) == Days(TODAY - 30 * DAY, TODAY - DAY)
    ahead = Question(Group.TYPE, first_day=TODAY - DAY, last_day=TODAY + 9 * DAY)
    assert ahead.days(TODAY) == Days(TODAY - DAY, TODAY)


PLACES = st.builds(
    Place,
    st.tuples(st.dates(max_value=date(9998, 12, 31)), st.integers(0, 365)).map(
        lambda days: Days(days[0], days[0] + days[1] * DAY)
    ),
    st.dates(),
    st.uuids().map(str),
)


@given(PLACES)
def test_a_page_token_names_its_place_and_days(place: Place) -> None:
    """To the same caller with the same question."""
    question = Question(Group.BROADCAST, type="wedding.", priorities=(Priority.HIGH,))
    token = write_page_token(place, ME, question)
    assert read_page_token(token, ME, question) == place
    for author, asked in (
        (Author("billing", is_service=True), question),
        (ME, Question(Group.TYPE, type="wedding.", priorities=(Priority.HIGH,))),
        (ME, Question(Group.BROADCAST, type="wedding.")),
    ):
        with pytest.raises(InvalidPageToken):
            read_page_token(token, author, asked)


ONE, OTHER, FAR = (n.to_bytes(4) for n in (1, 400, 3_652_059))


@pytest.mark.parametrize(
    ("group", "raw"),
    [
        (Group.TYPE, b""),
        (Group.TYPE, bytes(12)),
        (Group.TYPE, b"\xff" * 12),
        (Group.TYPE, ONE * 3 + b"\xff"),
        (Group.TYPE, ONE * 3 + b"\0"),
        (Group.TYPE, ONE + FAR + ONE + b"wedding.emergency"),
        (Group.TYPE, OTHER + ONE + ONE + b"wedding.emergency"),
        (Group.BROADCAST, ONE * 3 + b"no id"),
    ],
)
def test_a_place_that_cannot_be_is_refused(group: Group, raw: bytes) -> None:
    """Though somebody took the trouble of binding it to the question: days of no calendar, or too many of them."""
    question = Question(group)
    with pytest.raises(InvalidPageToken):
        read_page_token(opaque.write_page_token(raw, repr((ME, question)).encode()), ME, question)
