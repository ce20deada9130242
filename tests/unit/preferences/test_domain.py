"""The decision about sets against an oracle that asks the rules of product.md person by person."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.preferences.domain import (
    NOBODY,
    Category,
    Channel,
    Outcome,
    Priority,
    Reason,
    Rules,
    Slice,
    View,
    WeddingChannels,
    WeddingDay,
    changed_by_time,
    decide,
    muted_weddings,
    outsiders,
    wedding_channels,
    without_channel,
)
from services.preferences.quiet_hours import QuietWindow, quiet_until
from services.preferences.quiet_people import QuietPeople
from shared.audience import Audience

WEDDING = UUID("6a3a1f1e-0d7c-4d43-9d3e-52d6c1f7a001")
CHOICES = (Channel.REALTIME, Channel.EMAIL, Channel.PUSH)
WINDOWS = (
    None,
    QuietWindow("Europe/Vienna", 21 * 60, 9 * 60),
    QuietWindow("America/New_York", 22 * 60, 7 * 60),
    QuietWindow("Asia/Kolkata", 0, 7 * 60),
    QuietWindow("UTC", 12 * 60, 14 * 60),
)


@dataclass(frozen=True)
class Person:
    """Somebody and their settings in effect, about one broadcast."""

    known: bool
    on_team: bool
    erased: bool
    critical_only: bool
    category_off: bool
    wedding_muted: bool
    type_muted: bool
    channels: frozenset[Channel]
    filter_channels: frozenset[Channel]
    window: QuietWindow | None


@dataclass(frozen=True)
class Fate:
    """What one person gets on one channel."""

    outcome: Outcome
    reason: Reason | None = None
    release_at: datetime | None = None


def _fate(
    person: Person, channel: Channel, rules: Rules, has_wall: bool, day: WeddingDay | None, now: datetime
) -> Fate:
    """The oracle: product.md's order 1 to 7, for one person on one channel."""
    in_app = channel is Channel.IN_APP
    reason: Reason | None = None
    if not person.known:
        reason = Reason.NOT_IN_AUDIENCE
    elif person.erased:
        reason = Reason.ERASED
    elif has_wall and not person.on_team:
        reason = Reason.OUTSIDE_WALL
    elif rules.priority == Priority.CRITICAL:
        return Fate(Outcome.PENDING)
    elif not (rules.essential and in_app) and (muted := _muted(person)):
        reason = muted
    elif not in_app and channel not in (person.filter_channels or person.channels):
        reason = Reason.CHANNEL_OFF
    if reason is not None:
        return Fate(Outcome.SUPPRESSED, reason)
    end = None if in_app else _held_until(person, rules, day, now)
    return Fate(Outcome.HELD, release_at=end) if end else Fate(Outcome.PENDING)


def _held_until(person: Person, rules: Rules, day: WeddingDay | None, now: datetime) -> datetime | None:
    end = quiet_until(person.window, now) if person.window else None
    if end is None or day is None or rules.priority != Priority.HIGH or not rules.essential:
        return end
    if _is_near(day, now):
        return None
    return min(end, near) if (near := _near_from(day)) > now else end


def _muted(person: Person) -> Reason | None:
    if person.critical_only:
        return Reason.CRITICAL_ONLY
    if person.category_off:
        return Reason.CATEGORY_MUTED
    if person.wedding_muted:
        return Reason.WEDDING_MUTED
    return Reason.TYPE_MUTED if person.type_muted else None


def _is_near(day: WeddingDay | None, now: datetime) -> bool:
    if day is None:
        return False
    return _near_from(day) <= now < (_midnight(day) + timedelta(days=1)).astimezone(UTC)


def _near_from(day: WeddingDay) -> datetime:
    return _midnight(day).astimezone(UTC) - timedelta(hours=24)


def _midnight(day: WeddingDay) -> datetime:
    return datetime(day.day.year, day.day.month, day.day.day, tzinfo=ZoneInfo(day.time_zone))


def _view(people: Sequence[Person], *, has_wall: bool, day: WeddingDay | None) -> View:
    def those(flag: str) -> Audience:
        return Audience.of(number for number, person in enumerate(people) if getattr(person, flag))

    def without(channel: Channel) -> Audience:
        return Audience.of(number for number, person in enumerate(people) if channel not in person.channels)

    def filtered_to(channel: Channel) -> Audience:
        return Audience.of(
            number for number, person in enumerate(people) if channel in person.filter_channels
        )

    return View(
        known=those("known"),
        erased=those("erased"),
        wall=those("on_team") if has_wall else None,
        critical_only=those("critical_only"),
        category_off=those("category_off"),
        wedding_muted=those("wedding_muted"),
        type_muted=those("type_muted"),
        channel_off={channel: without(channel) for channel in CHOICES},
        wedding_channels=WeddingChannels(
            those("filter_channels"), {channel: filtered_to(channel) for channel in CHOICES}
        ),
        quiet=QuietPeople(
            (window, Audience.of(number for number, person in enumerate(people) if person.window == window))
            for window in WINDOWS
            if window is not None
        ),
        wedding_day=day,
    )


def _fates(slices: Sequence[Slice], channel: Channel) -> dict[int, Fate]:
    mine = [each for each in slices if each.channel is channel]
    told = Counter(number for each in mine for number in each.members.to_list())
    assert set(told.values()) <= {1}
    return {
        number: Fate(each.outcome, each.reason, each.release_at)
        for each in mine
        for number in each.members.to_list()
    }


# Rare enough that most people come through to the later rules.
rarely = st.integers(0, 9).map(lambda number: number == 7)
channel_sets = st.frozensets(st.sampled_from(CHOICES))
people = st.lists(
    st.builds(
        Person,
        known=rarely.map(lambda flag: not flag),
        on_team=rarely.map(lambda flag: not flag),
        erased=rarely,
        critical_only=rarely,
        category_off=rarely,
        wedding_muted=rarely,
        type_muted=rarely,
        channels=channel_sets,
        filter_channels=channel_sets,
        window=st.sampled_from(WINDOWS),
    ),
    min_size=8,
    max_size=30,
)
rules = st.builds(
    Rules,
    type=st.just("timeline.changed"),
    category=st.just(Category.COLLABORATION),
    priority=st.sampled_from([*Priority, Priority.HIGH, Priority.HIGH]),
    essential=st.booleans(),
    wedding_id=st.just(WEDDING),
)
# Drawn evenly, so that half of the moments are near half of the days.
moments = st.sampled_from(
    [datetime(2026, 6, 10, tzinfo=UTC) + timedelta(minutes=m) for m in range(0, 5760, 7)]
)
days = st.sampled_from(
    [
        None,
        WeddingDay(date(2026, 6, 11), "Pacific/Kiritimati"),
        WeddingDay(date(2026, 6, 12), "Europe/Vienna"),
        WeddingDay(date(2026, 6, 13), "Pacific/Pago_Pago"),
    ]
)


@given(people=people, rules=rules, has_wall=st.booleans(), day=days, now=moments)
def test_sets_decide_as_person_by_person(
    people: list[Person], rules: Rules, has_wall: bool, day: WeddingDay | None, now: datetime
) -> None:
    """On each channel everyone gets exactly one outcome, and it is the one that the rules give them alone."""
    everyone = Audience.of(range(len(people)))
    slices = list(decide(rules, everyone, _view(people, has_wall=has_wall, day=day), now))
    for channel in (Channel.REALTIME, Channel.IN_APP):
        expected = {
            number: _fate(person, channel, rules, has_wall, day, now) for number, person in enumerate(people)
        }
        assert expected == _fates(slices, channel)
    assert all(each.members for each in slices)


@given(
    people=people,
    rules=rules,
    has_wall=st.booleans(),
    day=days,
    since=moments,
    now=moments,
    first=st.integers(0, 9),
)
def test_time_changes_exactly_those_whose_outcome_it_changes(
    people: list[Person],
    rules: Rules,
    has_wall: bool,
    day: WeddingDay | None,
    since: datetime,
    now: datetime,
    first: int,
) -> None:
    """Whoever is asked about and gets something else at a later time is found; who is not found gets the same."""
    everyone = Audience.of(range(first, len(people)))
    view = _view(people, has_wall=has_wall, day=day)
    changed = changed_by_time(rules, everyone, view, since, now)
    assert changed.issubset(everyone)
    before = _fates(list(decide(rules, everyone, view, since)), Channel.REALTIME)
    after = _fates(list(decide(rules, everyone, view, now)), Channel.REALTIME)
    assert {number for number in before if before[number] != after[number]} <= set(changed.to_list())


@given(people=people, has_wall=st.booleans())
def test_outsiders_are_those_who_get_nothing_of_anything(people: list[Person], has_wall: bool) -> None:
    """Unknown, off the team or erased: nobody else is outside."""
    everyone = Audience.of(range(len(people)))
    expected = [
        number
        for number, person in enumerate(people)
        if not person.known or person.erased or (has_wall and not person.on_team)
    ]
    assert expected == outsiders(everyone, _view(people, has_wall=has_wall, day=None)).to_list()


def test_only_those_with_no_other_wedding_are_muted() -> None:
    """Of a broadcast to two teams, who mutes one still hears the other; who is on that one only hears nothing."""
    both, first_only, second_only = 1, 2, 3
    first = (Audience.of([both, first_only]), Audience.of([both, first_only, second_only]))
    second = (Audience.of([both, second_only]), Audience.of([]))
    assert muted_weddings([first, second], Audience()) == Audience.of([first_only])
    assert muted_weddings([first], second[0]) == Audience.of([first_only])
    assert muted_weddings([first], Audience.of([both, first_only])) == Audience()


def test_nobody_is_held_longer_than_until_the_wedding_is_near() -> None:
    """What quiet hours do not hold back once the wedding is within 24 hours goes then, whoever changes meanwhile."""
    window = QuietWindow("Europe/Vienna", 22 * 60, 7 * 60)
    view = View(
        known=Audience.of([1]),
        quiet=QuietPeople([(window, Audience.of([1]))]),
        wedding_day=WeddingDay(date(2026, 6, 13), "Europe/Vienna"),
    )
    rules = Rules(
        "timeline.changed", Category.COLLABORATION, Priority.HIGH, essential=True, wedding_id=WEDDING
    )
    now = datetime(2026, 6, 11, 21, 0, tzinfo=UTC)

    def release_at(rules: Rules) -> datetime | None:
        [told] = decide(rules, view.known, view, now, [Channel.REALTIME])
        return told.release_at

    assert release_at(rules) == datetime(2026, 6, 11, 22, 0, tzinfo=UTC)
    assert release_at(replace(rules, essential=False)) == datetime(2026, 6, 12, 5, 0, tzinfo=UTC)


def test_a_broadcast_to_several_weddings_comes_by_a_channel_of_any_of_them() -> None:
    """A filter counts for who is on its team and has not muted it; elsewhere what they have set."""
    only, both, plain, stranger = 1, 2, 3, 4
    off = {Channel.REALTIME: Audience.of([both, plain, stranger])}
    quiet = WeddingChannels(Audience.of([only, both]), {Channel.IN_APP: Audience.of([only, both])})
    loud = WeddingChannels(Audience.of([both, stranger]), {Channel.REALTIME: Audience.of([both, stranger])})

    def unreached(*filters: tuple[Audience, WeddingChannels], others: Audience) -> list[int]:
        view = View(
            known=Audience.of([only, both, plain, stranger]),
            channel_off=off,
            wedding_channels=wedding_channels(filters, others, off),
        )
        return without_channel(view).to_list()

    first, second = Audience.of([only, both, plain]), Audience.of([both])
    assert unreached((first, quiet), (second, loud), others=NOBODY) == [only, plain, stranger]
    assert unreached((first, quiet), others=second) == [only, both, plain, stranger]
    assert unreached((first, quiet), others=Audience.of([only])) == [both, plain, stranger]


def test_the_day_before_a_wedding_counts_in_the_zone_of_the_place() -> None:
    """A wedding on 13 June in Vienna is near from 12 June 00:00 to 13 June 24:00 there."""
    day = WeddingDay(date(2026, 6, 13), "Europe/Vienna")
    begins = datetime(2026, 6, 11, 22, 0, tzinfo=UTC)
    second = timedelta(seconds=1)
    assert [day.is_near(begins - second), day.is_near(begins)] == [False, True]
    ends = begins + timedelta(hours=48)
    assert [day.is_near(ends - second), day.is_near(ends)] == [True, False]


@pytest.mark.parametrize("day", [date.min, date.max])
@pytest.mark.parametrize("time_zone", ["Etc/GMT+12", "Etc/UTC", "Etc/GMT-14"])
def test_a_wedding_at_an_end_of_the_calendar_is_far(day: date, time_zone: str) -> None:
    """There is no day before the first or after the last, and nobody needs one to know that it is not near."""
    wedding, now = WeddingDay(day, time_zone), datetime(2026, 6, 11, 22, 0, tzinfo=UTC)
    assert (wedding.is_near(now), wedding.next_near(now)) == (False, None)
