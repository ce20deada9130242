"""The set indexes against a plain dictionary of people, through any sequence of changes."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.preferences.directory import WeddingStatus
from services.preferences.domain import Category, Channel, Priority, Rules, WeddingDay
from services.preferences.index import (
    FacetKind,
    FilterGroup,
    PeopleGroups,
    SetIndex,
    SettingsGroup,
    StandingGroup,
    WindowGroup,
)
from services.preferences.quiet_hours import QuietWindow, quiet_until
from services.preferences.weddings import WeddingEntry, unpack
from shared.audience import Audience

FIRST, SECOND, ABSENT = UUID(int=1), UUID(int=2), UUID(int=3)
MUTED = (
    (),
    ("trial.ending",),
    ("form.locked",),
    ("trial.ending", "form.locked"),
    ("form.locked", "tier.upgraded"),
)
QUIET = (
    None,
    QuietWindow("Europe/Vienna", 21 * 60, 9 * 60),
    QuietWindow("Asia/Tokyo", 22 * 60, 7 * 60),
)


@dataclass(frozen=True)
class Person:
    """Somebody as the database tells of them."""

    role: str = "venue"
    is_erased: bool = False
    categories: frozenset[Category] = frozenset(Category)
    critical_only: bool = False
    muted_types: tuple[str, ...] = ()
    channels: frozenset[Channel] = frozenset(Channel)
    window: QuietWindow | None = None


def packed(*numbers: int) -> bytes:
    """Recipient numbers as Postgres sends them."""
    return struct.pack(f">{len(numbers)}i", *numbers)


def sorted_people(people: Mapping[int, Person]) -> PeopleGroups:
    """People as a query sorts them, each in a group of their own."""
    return PeopleGroups(
        tuple(
            StandingGroup(each.role, "supplier", "free", each.is_erased, packed(number))
            for number, each in people.items()
        ),
        tuple(
            SettingsGroup(
                each.categories, each.critical_only, each.muted_types, each.channels, packed(number)
            )
            for number, each in people.items()
        ),
        tuple(WindowGroup(each.window, packed(number)) for number, each in people.items() if each.window),
    )


def replace_people(index: SetIndex, changed: Audience, groups: PeopleGroups) -> None:
    """All steps at once."""
    assert all(step is None for step in index.replace_people(changed, groups))


def expected_facets(person: Person) -> set[tuple[FacetKind, str]]:
    """The oracle: the sets that a person is in."""
    facets = {(FacetKind.KNOWN, "")}
    facets |= {(FacetKind.CRITICAL_ONLY, "")} if person.critical_only else set()
    facets |= {(FacetKind.CATEGORY_OFF, each) for each in Category if each not in person.categories}
    facets |= {(FacetKind.CHANNEL_OFF, each) for each in Channel if each not in person.channels}
    facets |= {(FacetKind.TYPE_MUTED, each) for each in person.muted_types}
    if person.is_erased:
        return facets | {(FacetKind.ERASED, "")}
    return facets | {
        (FacetKind.ROLE, person.role),
        (FacetKind.USER_TYPE, "supplier"),
        (FacetKind.TIER, "free"),
    }


def a_wedding(wedding_id: UUID, *team: int, time_zone: str = "UTC", day: date | None = None) -> WeddingEntry:
    """A wedding with this team."""
    return WeddingEntry(wedding_id, "Amara & Jonas", day, time_zone, 1, packed(*team), WeddingStatus.PLANNING)


def about(wedding_id: UUID | None) -> Rules:
    """Rules of a broadcast about a wedding."""
    return Rules("trial.ending", Category.BUSINESS, Priority.NORMAL, False, wedding_id)


people = st.dictionaries(
    st.integers(1, 200_000) | st.integers(1, 40),
    st.builds(
        Person,
        role=st.sampled_from(["venue", "couple", "admin", "drone-pilot"]),
        is_erased=st.sampled_from([False, False, True]),
        categories=st.frozensets(st.sampled_from(Category)),
        critical_only=st.booleans(),
        muted_types=st.sampled_from(MUTED),
        channels=st.frozensets(st.sampled_from(Channel)),
        window=st.sampled_from(QUIET),
    ),
    max_size=30,
)


@given(changes=st.lists(people, min_size=1, max_size=4))
def test_any_sequence_of_changes_ends_where_reading_everything_ends(
    changes: list[Mapping[int, Person]],
) -> None:
    """Whoever is changed leaves every set that they were in, and is in exactly those of their last settings."""
    index, last = SetIndex(0), dict[int, Person]()
    for change in changes:
        replace_people(index, Audience.of(change), sorted_people(change))
        last |= change
    seen = {facet for change in changes for person in change.values() for facet in expected_facets(person)}
    for facet in seen:
        expected = sorted(number for number, person in last.items() if facet in expected_facets(person))
        assert expected == index.having(*facet).to_list()


@given(changes=st.lists(people, min_size=1, max_size=4), seconds=st.integers(0, 86_400))
def test_the_sleeping_are_those_inside_their_last_window(
    changes: list[Mapping[int, Person]], seconds: int
) -> None:
    """By the end of their window, after each change: what was known of a minute before is led on, or found out anew."""
    now = datetime(2026, 6, 10, tzinfo=UTC) + timedelta(seconds=seconds)
    index, last = SetIndex(0), dict[int, Person]()
    for change in changes:
        replace_people(index, Audience.of(change), sorted_people(change))
        last |= change
        for moment in (now, now + timedelta(hours=8), now):
            ends = {n: person.window and quiet_until(person.window, moment) for n, person in last.items()}
            asleep = index.view(about(None), None, []).quiet.asleep(moment)
            assert {number: end for end, members in asleep for number in members.to_list()} == {
                number: end for number, end in ends.items() if end
            }


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Audience]:
    """The sets that were looked into."""
    sets: list[Audience] = []
    isdisjoint, contains = Audience.isdisjoint, Audience.__contains__

    def counted_isdisjoint(self: Audience, other: Audience) -> bool:
        sets.append(self)
        return isdisjoint(self, other)

    def counted_contains(self: Audience, number: object) -> bool:
        sets.append(self)
        return contains(self, number)

    monkeypatch.setattr(Audience, "isdisjoint", counted_isdisjoint)
    monkeypatch.setattr(Audience, "__contains__", counted_contains)
    return sets


def test_what_few_invent_is_not_looked_at_for_others(looked_at: list[Audience]) -> None:
    """Thirty people mute a hundred types each that nobody else has heard of: neither a change nor a role is slower."""
    index = SetIndex(0)
    inventors = {
        number: Person(muted_types=tuple(f"invented.by_{number}_{place}" for place in range(100)))
        for number in range(1, 31)
    }
    replace_people(index, Audience(), sorted_people({**inventors, 31: Person(role="couple")}))
    looked_at.clear()
    replace_people(index, Audience.of([31]), sorted_people({31: Person(role="admin")}))
    assert index.role_of(31) == "admin"
    assert len(looked_at) < 100


def test_what_nobody_mutes_any_more_is_forgotten(looked_at: list[Audience]) -> None:
    """Whoever takes back what they had set leaves nothing behind that later changes would look at."""
    index, ordinary = SetIndex(0), sorted_people({1: Person()})
    changed, seen = Audience.of([1]), []
    replace_people(index, Audience(), sorted_people({1: Person(), 2: Person()}))
    muting = Person(muted_types=("invented.by_one", "trial.ending"), window=QUIET[1])
    for groups in (ordinary, sorted_people({1: muting}), ordinary, ordinary):
        looked_at.clear()
        replace_people(index, changed, groups)
        seen.append(len(looked_at))
        assert index.having(FacetKind.TYPE_MUTED, "invented.by_one") == Audience.of(
            [1] if groups is not ordinary else []
        )
    assert seen[3] == seen[0]


def test_a_change_is_seen_when_it_is_whole() -> None:
    """Between two steps of a replacement the index answers as before."""
    index = SetIndex(0)
    replace_people(index, Audience(), sorted_people({1: Person(role="venue"), 2: Person(role="venue")}))
    before = (index.having(FacetKind.ROLE, "venue"), index.everyone)
    for _ in index.replace_people(Audience.of([1]), sorted_people({1: Person(role="florist"), 3: Person()})):
        assert (index.having(FacetKind.ROLE, "venue"), index.everyone) == before
    assert index.having(FacetKind.ROLE, "venue") == Audience.of([2, 3])
    assert index.having(FacetKind.ROLE, "florist") == Audience.of([1])


def test_a_role_and_its_end_are_known() -> None:
    """Each has one role; the erased and strangers have none."""
    index = SetIndex(0)
    everybody = {1: Person(), 2: Person(role="admin"), 3: Person(is_erased=True)}
    replace_people(index, Audience(), sorted_people(everybody))
    assert [index.role_of(number) for number in (1, 2, 3, 4)] == ["venue", "admin", None, None]
    assert index.everyone == Audience.of([1, 2])


def test_a_zone_that_does_not_exist_counts_as_utc() -> None:
    """What was loaded past the service's checks must not stop everybody's broadcasts."""
    index = SetIndex(0)
    nowhere = Person(window=QuietWindow("Europe/Gotham", 12 * 60, 13 * 60))
    replace_people(index, Audience(), sorted_people({1: nowhere}))
    noon = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
    asleep = index.view(about(None), None, []).quiet.asleep(noon)
    assert asleep == ((noon + timedelta(hours=1), Audience.of([1])),)
    wedding = a_wedding(FIRST, time_zone="Mars/Olympus", day=date(2027, 6, 5))
    assert wedding.day == WeddingDay(date(2027, 6, 5), "UTC")


def test_weddings_are_replaced_whole() -> None:
    """Team, facts and filters; one that is not named stays."""
    index = SetIndex(0)
    filters = [
        FilterGroup(FIRST, True, frozenset(), packed(1)),
        FilterGroup(SECOND, True, frozenset(), packed(2)),
    ]
    index.replace_weddings((), [a_wedding(FIRST, 1, 2), a_wedding(SECOND, 2, 3)], filters)
    index.replace_weddings([FIRST], [a_wedding(FIRST, 4)], [])
    assert index.team([FIRST]) == Audience.of([4])
    assert index.team([FIRST, SECOND, ABSENT]) == Audience.of([2, 3, 4])
    assert index.view(about(FIRST), None, [FIRST]).wedding_muted == Audience.of([])
    assert index.view(about(SECOND), None, [SECOND]).wedding_muted == Audience.of([2])
    assert index.wedding(ABSENT) is None


def test_a_view_has_what_is_about_the_broadcast() -> None:
    """Category, type and wedding of the broadcast, and nobody else's."""
    index = SetIndex(0)
    only = Person(categories=frozenset(), critical_only=True)
    everybody = {1: only, 2: Person(muted_types=("trial.ending",)), 3: Person()}
    replace_people(index, Audience(), sorted_people(everybody))
    chosen = frozenset({Channel.IN_APP, Channel.EMAIL})
    index.replace_weddings(
        (), [a_wedding(FIRST, 1, 2, 3, day=date(2027, 6, 5))], [FilterGroup(FIRST, False, chosen, packed(3))]
    )
    view = index.view(about(FIRST), Audience.of([1, 2]), [FIRST])
    assert (view.category_off, view.type_muted) == (Audience.of([1]), Audience.of([2]))
    assert (view.critical_only, view.wall) == (Audience.of([1]), Audience.of([1, 2]))
    assert view.wedding_channels.filtered == view.wedding_channels.chosen[Channel.EMAIL] == Audience.of([3])
    assert view.wedding_channels.chosen[Channel.REALTIME] == Audience.of([])
    assert view.wedding_day == WeddingDay(date(2027, 6, 5), "UTC")


def test_filters_of_several_weddings_count_where_they_reach_somebody() -> None:
    """For who is on the team and has not muted it; whom another wedding reaches without a filter has what they set."""
    index = SetIndex(0)
    replace_people(index, Audience(), sorted_people(dict.fromkeys(range(1, 5), Person())))
    in_app = frozenset({Channel.IN_APP})
    filters = [
        FilterGroup(FIRST, False, in_app, packed(1, 2, 4)),
        FilterGroup(SECOND, True, in_app, packed(1)),
        FilterGroup(SECOND, False, in_app, packed(3)),
    ]
    index.replace_weddings((), [a_wedding(FIRST, 1, 2, 3), a_wedding(SECOND, 1, 2, 3)], filters)
    channels = index.view(about(None), None, [FIRST, SECOND]).wedding_channels
    assert channels.filtered - channels.chosen[Channel.REALTIME] == Audience.of([1])
    assert index.view(about(None), None, [SECOND, ABSENT]).wedding_channels.filtered == Audience.of([3])
    assert not index.view(about(None), None, [ABSENT, ABSENT]).wedding_channels.filtered


def test_numbers_come_in_any_order_and_in_parts() -> None:
    """As an aggregate of a hash gives them."""
    assert unpack([packed(70_000, 1), b"", packed(5)]) == Audience.of([1, 5, 70_000])
    assert unpack([]) == Audience.of([])
