"""Who is asleep, led on as time and people change, against asking each person's window anew."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.preferences import quiet_people
from services.preferences.quiet_hours import QuietWindow, next_edge, quiet_until
from services.preferences.quiet_people import QuietPeople
from shared.audience import Audience

MINUTE = timedelta(minutes=1)
# Clocks go forward in Vienna and Lord Howe, or back, within a day of these.
BEGINS = [datetime(2026, month, day, 20, tzinfo=UTC) for month, day in ((3, 28), (4, 4), (10, 3), (10, 24))]
# In the hour that is left out or comes twice, across it, by day, and nearly always.
WINDOWS = [
    QuietWindow(zone, start, end)
    for zone in ("Europe/Vienna", "Australia/Lord_Howe", "Asia/Kolkata")
    for start, end in ((1260, 540), (130, 170), (0, 150), (150, 300), (720, 840), (600, 570))
]
People = Mapping[int, QuietWindow | None]


def _people(index: QuietPeople, before: People, change: People) -> QuietPeople:
    """After a change, told of as the index tells of one: the windows that are left or come into, as they are now."""
    after = {**before, **change}
    touched = {window for people in (before, change) for number, window in people.items() if number in change}
    altered = {
        window: Audience.of(number for number, theirs in after.items() if theirs == window)
        for window in touched
        if window is not None
    }
    return index.replaced(altered, Audience.of(change))


def _ends(people: People, moment: datetime) -> dict[int, datetime | None]:
    """The oracle: each person's window, asked anew."""
    return {number: window and quiet_until(window, moment) for number, window in people.items()}


people_sets = st.dictionaries(st.integers(0, 40), st.none() | st.sampled_from(WINDOWS), max_size=12)
# Minutes on, and back as a clock that is put right; or to the next edge of a window.
steps = st.integers(-400, 900) | st.sampled_from(WINDOWS)


@settings(max_examples=300)
@given(
    begin=st.sampled_from(BEGINS).map(lambda begin: begin + timedelta(seconds=7)),
    turns=st.lists(
        st.tuples(steps, people_sets, st.integers(0, 2_000), st.integers(0, 9)), min_size=1, max_size=8
    ),
)
def test_whoever_sleeps_and_until_when_is_as_if_asked_anew(
    begin: datetime, turns: list[tuple[int | QuietWindow, Mapping[int, QuietWindow | None], int, int]]
) -> None:
    """Through any sequence of minutes and changes; and of any members, for whom an earlier time was different."""
    index, people, now = QuietPeople(), dict[int, QuietWindow | None](), begin
    for step, change, back, first in turns:
        earlier_index, earlier_people = index, dict(people)
        index = _people(index, people, change)
        people |= change
        now = now + step * MINUTE if isinstance(step, int) else next_edge(step, now)
        members, since = Audience.of(range(first, 41)), now - back * MINUTE
        for known, theirs in ((index, people), (earlier_index, earlier_people)):
            ends, ended = _ends(theirs, now), _ends(theirs, since)
            assert known.differing(since, now, members).to_list() == sorted(
                number for number in theirs if number >= first and ends[number] != ended[number]
            )
            assert known.inside(since, members).to_list() == sorted(
                number for number in theirs if number >= first and ended[number]
            )
            asleep = [(number, end) for end, group in known.asleep(now) for number in group.to_list()]
            assert sorted(asleep) == sorted((number, end) for number, end in ends.items() if end)


@pytest.fixture
def reckoned(monkeypatch: pytest.MonkeyPatch) -> Counter[QuietWindow]:
    """How often the end of each window was reckoned."""
    counts = Counter[QuietWindow]()

    def counted(window: QuietWindow, moment: datetime) -> datetime | None:
        counts[window] += 1
        return quiet_until(window, moment)

    monkeypatch.setattr(quiet_people, "quiet_until", counted)
    return counts


NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)
# A person each; every minute of the day one begins and one ends.
MANY = [(QuietWindow("UTC", start, (start + 480) % 1440), Audience.of([start])) for start in range(1440)]


def test_a_further_minute_takes_what_begins_and_ends_in_it(reckoned: Counter[QuietWindow]) -> None:
    """Of 1,440 windows two, and none within the same minute, also after somebody has changed."""
    people = QuietPeople(MANY)
    assert sum(len(members) for _, members in people.asleep(NOON)) == 480
    reckoned.clear()
    people.asleep(NOON + timedelta(seconds=59))
    assert reckoned == {}
    people.asleep(NOON + MINUTE)
    assert reckoned == {MANY[721][0]: 1, MANY[241][0]: 1}
    window, _ = MANY[5]
    people = people.replaced({window: Audience.of([5, 2_000])}, Audience.of([2_000]))
    people.asleep(NOON + MINUTE)
    assert sum(reckoned.values()) == 2


def test_an_earlier_time_costs_what_those_asked_about_have_set(reckoned: Counter[QuietWindow]) -> None:
    """However many windows others have; and of everybody, those who slept then and may not have slept since."""
    people = QuietPeople(MANY)
    people.asleep(NOON)
    reckoned.clear()
    few = Audience.of([0, 300, 700])
    for hours in range(1, 24):
        people.differing(NOON - timedelta(hours=hours), NOON, few)
    assert reckoned.keys() <= {MANY[number][0] for number in few.to_list()}
    reckoned.clear()
    for minutes in range(1, 60):
        people.asleep(NOON + minutes * MINUTE)
    reckoned.clear()
    now = NOON + 59 * MINUTE
    assert people.differing(NOON, now, Audience.of(range(1440))) == Audience.of(
        [*range(721, 780), *range(241, 300)]
    )
    assert sum(reckoned.values()) == 0
