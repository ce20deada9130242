"""Who meets the criteria of a segment, against a walk over every person and wedding; on any day, in any zone."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.preferences.directory import UserType, WeddingStatus
from services.preferences.index import PeopleGroups, SetIndex, StandingGroup
from services.preferences.segments import Criteria, SegmentEntry
from services.preferences.weddings import WeddingEntry, WeddingSets
from shared.audience import Audience

# It is always another day in the first than in the last.
ZONES = ("Pacific/Kiritimati", "Asia/Tokyo", "Europe/Vienna", "UTC", "America/St_Johns", "Pacific/Pago_Pago")
START = datetime(2026, 10, 24, 9, 30, tzinfo=UTC)
PLANNING, CONFIRMED, CANCELLED = WeddingStatus.PLANNING, WeddingStatus.CONFIRMED, WeddingStatus.CANCELLED


@dataclass(frozen=True)
class Person:
    """Somebody as the directory has them."""

    role: str = "florist"
    tier: str = "free"
    user_type: str = "supplier"
    is_erased: bool = False


@dataclass(frozen=True)
class Wedding:
    """A wedding as the directory has it."""

    day: date | None
    status: WeddingStatus
    zone: str
    team: frozenset[int]


def packed(numbers: frozenset[int]) -> bytes:
    """Recipient numbers as Postgres sends them."""
    return struct.pack(f">{len(numbers)}i", *numbers)


def entry(number: int, wedding: Wedding) -> WeddingEntry:
    """A wedding as the index takes it."""
    return WeddingEntry(
        UUID(int=number), "A & B", wedding.day, wedding.zone, 1, packed(wedding.team), wedding.status
    )


def oracle(
    people: Mapping[int, Person], weddings: Mapping[int, Wedding], criteria: Criteria, now: datetime
) -> list[int]:
    """Product.md's sentence, said of each person."""
    return sorted(
        number
        for number, person in people.items()
        if not person.is_erased
        and (not criteria.roles or person.role in criteria.roles)
        and (not criteria.tiers or person.tier in criteria.tiers)
        and (not criteria.user_types or person.user_type in criteria.user_types)
        and (
            not criteria.is_about_weddings
            or any(number in each.team and suits(each, criteria, now) for each in weddings.values())
        )
    )


def suits(wedding: Wedding, criteria: Criteria, now: datetime) -> bool:
    """Whether one wedding meets all that is asked of weddings."""
    if criteria.wedding_statuses and wedding.status not in criteria.wedding_statuses:
        return False
    if criteria.wedding_within_days is None:
        return True
    today = now.astimezone(ZoneInfo(wedding.zone)).date()
    days = [today + timedelta(days=ahead) for ahead in range(criteria.wedding_within_days + 1)]
    return wedding.day in days


NUMBERS = st.integers(1, 8)
PEOPLE = st.dictionaries(
    NUMBERS,
    st.builds(
        Person,
        role=st.sampled_from(["florist", "couple"]),
        tier=st.sampled_from(["free", "starter"]),
        user_type=st.sampled_from(list(UserType)).map(str),
        is_erased=st.sampled_from([False, False, False, True]),
    ),
    max_size=8,
)
WEDDINGS = st.dictionaries(
    st.integers(1, 12),
    st.builds(
        Wedding,
        day=st.none() | st.integers(-3, 6).map(lambda days: START.date() + timedelta(days=days)),
        status=st.sampled_from(list(WeddingStatus)),
        zone=st.sampled_from(ZONES),
        team=st.frozensets(NUMBERS, max_size=4),
    ),
    max_size=12,
)
CRITERIA = st.builds(
    Criteria,
    roles=st.sampled_from([(), ("florist",), ("couple", "florist")]),
    tiers=st.sampled_from([(), ("free",)]),
    user_types=st.sampled_from([(), (UserType.COUPLE,), (UserType.COUPLE, UserType.SUPPLIER)]),
    wedding_statuses=st.lists(st.sampled_from(list(WeddingStatus)), unique=True, max_size=3).map(tuple),
    wedding_within_days=st.none() | st.integers(0, 4),
).filter(lambda criteria: criteria.is_any)


def index_of(people: Mapping[int, Person]) -> SetIndex:
    """An index with these people in it."""
    groups = PeopleGroups(
        tuple(
            StandingGroup(each.role, each.user_type, each.tier, each.is_erased, packed(frozenset({number})))
            for number, each in people.items()
        )
    )
    index = SetIndex(0)
    assert all(step is None for step in index.replace_people(Audience(), groups))
    return index


@given(
    people=PEOPLE,
    changes=st.lists(WEDDINGS, min_size=1, max_size=3),
    criteria=st.lists(CRITERIA, min_size=1, max_size=3),
    hours=st.lists(st.integers(0, 30), min_size=1, max_size=3),
)
def test_the_index_finds_whom_the_criteria_describe(
    people: Mapping[int, Person],
    changes: Sequence[Mapping[int, Wedding]],
    criteria: Sequence[Criteria],
    hours: Sequence[int],
) -> None:
    """Through any changes of weddings, asked again after each, and again as hours and days pass without a change."""
    index, weddings, now = index_of(people), dict[int, Wedding](), START
    for change in changes:
        entries = [entry(number, wedding) for number, wedding in change.items()]
        index.replace_weddings([UUID(int=number) for number in change], entries, [])
        weddings |= change
        for passed in hours:
            now += timedelta(hours=passed)
            for each in criteria:
                assert index.meeting(each, now).to_list() == oracle(people, weddings, each, now)


@given(weddings=WEDDINGS, gone=st.sets(st.integers(1, 12)))
@example(weddings={1: Wedding(START.date(), PLANNING, "UTC", frozenset({1}))}, gone={1})
def test_weddings_that_are_gone_leave_nothing_behind(weddings: Mapping[int, Wedding], gone: set[int]) -> None:
    """What is taken out is as if it had never been there."""
    before, after = WeddingSets(), WeddingSets()
    for number, wedding in weddings.items():
        before.put(entry(number, wedding))
        if number not in gone:
            after.put(entry(number, wedding))
    assert before.teams((), 3, START) == Audience.of(
        member
        for each in weddings.values()
        for member in each.team
        if suits(each, Criteria((), (), (), (), 3), START)
    )
    for number in gone & weddings.keys():
        before.take_out(entry(number, weddings[number]))
    for statuses, within in (((), None), ((PLANNING,), None), ((), 3), ((CONFIRMED, CANCELLED), 0)):
        assert before.teams(statuses, within, START) == after.teams(statuses, within, START)


def test_status_and_day_are_of_one_wedding() -> None:
    """Somebody with a confirmed wedding in a year, and a cancelled one tomorrow, has no confirmed one tomorrow."""
    weddings = {
        1: Wedding(START.date() + timedelta(days=365), CONFIRMED, "UTC", frozenset({1})),
        2: Wedding(START.date() + timedelta(days=1), CANCELLED, "UTC", frozenset({1, 2})),
        3: Wedding(START.date() + timedelta(days=1), CONFIRMED, "UTC", frozenset({3})),
    }
    index = index_of({number: Person() for number in (1, 2, 3)})
    index.replace_weddings((), [entry(number, wedding) for number, wedding in weddings.items()], [])
    soon = Criteria(wedding_statuses=(CONFIRMED,), wedding_within_days=1)
    assert index.meeting(soon, START).to_list() == [3]


@pytest.mark.parametrize(
    ("zone", "ends"), [("Pacific/Kiritimati", 10), ("UTC", 24), ("Pacific/Pago_Pago", 35)]
)
def test_a_wedding_is_over_when_its_day_ends_at_its_place(zone: str, ends: int) -> None:
    """So many hours after midnight in Greenwich; a minute before that it counts, and nothing had to change for it."""
    midnight = datetime(2026, 6, 10, tzinfo=UTC)
    sets = WeddingSets()
    sets.put(entry(1, Wedding(midnight.date(), PLANNING, zone, frozenset({7}))))
    end = midnight + timedelta(hours=ends)
    assert sets.teams((PLANNING,), 0, end - timedelta(minutes=1)).to_list() == [7]
    assert sets.teams((PLANNING,), 0, end).to_list() == []


def test_a_wedding_comes_near_when_its_day_does() -> None:
    """Ten days ahead is within ten days, and eleven are not, as the calendar of the place counts them."""
    now = datetime(2026, 6, 10, 23, 0, tzinfo=UTC)
    sets = WeddingSets()
    sets.put(entry(1, Wedding(date(2026, 6, 21), PLANNING, "Europe/Vienna", frozenset({1}))))
    sets.put(entry(2, Wedding(date(2026, 6, 21), PLANNING, "UTC", frozenset({2}))))
    assert sets.teams((), 10, now).to_list() == [1]
    assert sets.teams((), 10, now + timedelta(hours=1)).to_list() == [1, 2]


def test_a_wedding_in_a_zone_where_there_was_none_counts_at_once() -> None:
    """Where it is still yesterday, in the very minute in which somebody has asked about the others."""
    sets = WeddingSets()
    sets.put(entry(1, Wedding(START.date(), PLANNING, "UTC", frozenset({1}))))
    assert sets.teams((), 0, START).to_list() == [1]
    yesterday = START.date() - timedelta(days=1)
    sets.put(entry(2, Wedding(yesterday, PLANNING, "Pacific/Pago_Pago", frozenset({2}))))
    assert sets.teams((), 0, START).to_list() == [1, 2]


def test_many_questions_are_not_kept_for_ever() -> None:
    """Each is answered right, however many others came before."""
    sets = WeddingSets()
    for ahead in range(200):
        day = START.date() + timedelta(days=ahead)
        sets.put(entry(ahead + 1, Wedding(day, PLANNING, "UTC", frozenset({ahead + 1}))))
    for _ in range(2):
        assert [len(sets.teams((), within, START)) for within in range(200)] == list(range(1, 201))


def test_sets_that_were_made_before_answer_the_same() -> None:
    """Preparing them changes nothing but who pays for it."""
    sets = WeddingSets()
    for number, status in enumerate(WeddingStatus, start=1):
        sets.put(entry(number, Wedding(START.date(), status, "UTC", frozenset({number}))))
    assert (len(list(sets.prepare())), len(list(sets.prepare()))) == (len(WeddingStatus), 0)
    assert sets.teams((), None, START).to_list() == [1, 2, 3, 4]


def test_segments_are_replaced_whole() -> None:
    """One that is changed, one that is gone, one that stays."""
    index = SetIndex(0)
    one, two, three = (
        SegmentEntry(UUID(int=number), 1, True, Criteria(roles=("florist",))) for number in (1, 2, 3)
    )
    index.replace_segments((), [one, two, three])
    changed = SegmentEntry(one.segment_id, 2, False, Criteria(tiers=("free",)))
    index.replace_segments([one.segment_id, two.segment_id], [changed])
    assert [index.segment(UUID(int=number)) for number in (1, 2, 3)] == [changed, None, three]


def test_no_criterion_at_all_is_not_everybody() -> None:
    """The schema keeps such a segment out; if there were one, nobody would be written to."""
    with pytest.raises(TypeError):
        index_of({1: Person()}).meeting(Criteria(), START)
