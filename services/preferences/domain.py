"""Owns who gets what, on which channel and when: the one decision, made about sets of recipients at once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final
from uuid import UUID

from services.preferences.quiet_hours import local_midnight
from services.preferences.quiet_people import Asleep, QuietPeople
from shared.audience import Audience

NOBODY: Final = Audience()
_LAST_DAY: Final = timedelta(hours=24)
# Farther than any zone can bring near; at the ends of the calendar there is no day before or after to reckon with.
_FAR_DAYS: Final = 7


class Channel(StrEnum):
    """A way to reach a person."""

    REALTIME = "realtime"
    IN_APP = "in_app"
    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"


DECIDED_CHANNELS: Final = (Channel.REALTIME, Channel.IN_APP)
"""The channels that there is a decision about."""


class Category(StrEnum):
    """What a broadcast is about; a person can switch one off."""

    SYSTEM = "system"
    BUSINESS = "business"
    COLLABORATION = "collaboration"
    WEDDING = "wedding"


class Priority(IntEnum):
    """How urgent a broadcast is; the numbers are the contract's."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4


class Outcome(StrEnum):
    """What happens to a delivery now."""

    PENDING = "pending"
    HELD = "held"
    SUPPRESSED = "suppressed"


class Reason(StrEnum):
    """Why a delivery will not happen."""

    NOT_IN_AUDIENCE = "not_in_audience"
    OUTSIDE_WALL = "outside_wall"
    ERASED = "erased"
    CRITICAL_ONLY = "critical_only"
    CATEGORY_MUTED = "category_muted"
    WEDDING_MUTED = "wedding_muted"
    TYPE_MUTED = "type_muted"
    CHANNEL_OFF = "channel_off"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the decision depends on besides the recipients: the broadcast's type, and what it is about."""

    type: str
    category: Category
    priority: Priority
    essential: bool
    wedding_id: UUID | None = None

    @property
    def is_critical(self) -> bool:
        """Whether it reaches people at once, whatever they have set."""
        return self.priority is Priority.CRITICAL


@dataclass(frozen=True, slots=True)
class WeddingDay:
    """When a wedding is: a day in the zone of the place."""

    day: date
    time_zone: str

    def is_near(self, now: datetime) -> bool:
        """Whether it begins within 24 hours or is going on: from 24 hours before its day until that day's end."""
        if abs((self.day - now.date()).days) > _FAR_DAYS:
            return False
        return self.near_from() <= now < local_midnight(self.day + timedelta(days=1), self.time_zone)

    def near_from(self) -> datetime:
        """The moment 24 hours before its day. Raises OverflowError at the ends of the calendar."""
        return local_midnight(self.day, self.time_zone) - _LAST_DAY

    def next_near(self, now: datetime) -> datetime | None:
        """That moment if it comes within days, None if it is over or far away."""
        if abs((self.day - now.date()).days) > _FAR_DAYS:
            return None
        near = self.near_from()
        return near if near > now else None


@dataclass(frozen=True, slots=True)
class WeddingChannels:
    """Those whose filters of the weddings in question replace their channels; of these, those who have each channel."""

    filtered: Audience = field(default_factory=Audience)
    chosen: Mapping[Channel, Audience] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """The directory as one decision sees it. Settings are those in effect: edited ones, else the preset of the role.

    `wall` is None for a broadcast that no team bounds. `category_off`, `wedding_muted` and `type_muted` are about the
    broadcast's own. `channel_off` follows the role's channels where there are any.
    """

    known: Audience
    erased: Audience = field(default_factory=Audience)
    wall: Audience | None = None
    critical_only: Audience = field(default_factory=Audience)
    category_off: Audience = field(default_factory=Audience)
    wedding_muted: Audience = field(default_factory=Audience)
    type_muted: Audience = field(default_factory=Audience)
    channel_off: Mapping[Channel, Audience] = field(default_factory=dict)
    wedding_channels: WeddingChannels = field(default_factory=WeddingChannels)
    quiet: QuietPeople = field(default_factory=QuietPeople)
    wedding_day: WeddingDay | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an audience that gets the same on one channel: `reason` when suppressed, `release_at` when held."""

    channel: Channel
    outcome: Outcome
    members: Audience
    reason: Reason | None = None
    release_at: datetime | None = None


def decide(
    rules: Rules, members: Audience, view: View, now: datetime, channels: Iterable[Channel] = DECIDED_CHANNELS
) -> Iterator[Slice]:
    """What each of `members` gets at `now`: on each channel everyone is in exactly one slice. No slice is empty."""
    for channel in channels:
        remaining = members
        for reason, barred in _bars(rules, channel, members, view):
            suppressed = remaining & barred
            if suppressed:
                yield Slice(channel, Outcome.SUPPRESSED, suppressed, reason=reason)
                remaining -= suppressed
        for release_at, asleep in _asleep(rules, channel, view, now):
            held = remaining & asleep
            if held:
                yield Slice(channel, Outcome.HELD, held, release_at=release_at)
                remaining -= held
        if remaining:
            yield Slice(channel, Outcome.PENDING, remaining)


def outsiders(members: Audience, view: View) -> Audience:
    """Those of `members` who get nothing any more, whatever it is: unknown, off the team, or erased."""
    return Audience.union_of(members & barred for _, barred in _outside(members, view))


def without_channel(view: View) -> Audience:
    """Those who do not want one of the channels that there is a decision about."""
    return Audience.union_of(
        _off(channel, view) for channel in DECIDED_CHANNELS if channel is not Channel.IN_APP
    )


def changed_by_time(rules: Rules, members: Audience, view: View, since: datetime, now: datetime) -> Audience:
    """Those of `members` whose quiet hours treat the broadcast otherwise at `now` than at `since`."""
    if rules.is_critical:
        return NOBODY
    applying = [moment for moment in (since, now) if _quiet_applies(rules, view, moment)]
    if len(applying) == 1:
        return view.quiet.inside(applying[0], members)
    return view.quiet.differing(since, now, members) if applying else NOBODY


def muted_weddings(muted: Iterable[tuple[Audience, Audience]], others: Audience) -> Audience:
    """Those whom a broadcast to several weddings reaches by muted ones only.

    `muted` are the weddings that somebody muted, each as its team and those who did; `others` everyone on other teams.
    """
    teams = list(muted)
    heard = others | Audience.union_of(team - by for team, by in teams)
    return Audience.union_of(team for team, _ in teams) - heard


def wedding_channels(
    filters: Iterable[tuple[Audience, WeddingChannels]], others: Audience, off: Mapping[Channel, Audience]
) -> WeddingChannels:
    """The channels of a broadcast to several weddings: somebody has one when any wedding that reaches them has it.

    `filters` are the weddings with filters of channels, each as those whom it reaches and their filters; `others` are
    whom the rest of them reach, and `off` those who have a channel switched off where no filter is.
    """
    reached = [(team, each, team & each.filtered) for team, each in filters]
    filtered = Audience.union_of(by for _, _, by in reached)
    plain = (others | Audience.union_of(team - by for team, _, by in reached)) & filtered
    chosen = {
        channel: Audience.union_of(by & each.chosen.get(channel, NOBODY) for _, each, by in reached)
        | (plain - off.get(channel, NOBODY))
        for channel in Channel
    }
    return WeddingChannels(filtered, chosen)


def _bars(rules: Rules, channel: Channel, members: Audience, view: View) -> Iterator[tuple[Reason, Audience]]:
    """Every reason to suppress on a channel with those whom it concerns, in the order in which they count."""
    yield from _outside(members, view)
    if rules.is_critical:
        return
    if not (rules.essential and channel is Channel.IN_APP):
        yield Reason.CRITICAL_ONLY, view.critical_only
        yield Reason.CATEGORY_MUTED, view.category_off
        yield Reason.WEDDING_MUTED, view.wedding_muted
        yield Reason.TYPE_MUTED, view.type_muted
    if channel is not Channel.IN_APP:
        yield Reason.CHANNEL_OFF, _off(channel, view)


def _outside(members: Audience, view: View) -> Iterator[tuple[Reason, Audience]]:
    yield Reason.NOT_IN_AUDIENCE, members - view.known
    # Whoever is erased is taken off the teams as well, and is not waited for as those are who may come back.
    yield Reason.ERASED, view.erased
    if view.wall is not None:
        yield Reason.OUTSIDE_WALL, members - view.wall


def _off(channel: Channel, view: View) -> Audience:
    """Those who do not want a channel: as their filters of the weddings say, else their role's or their own setting."""
    filtered = view.wedding_channels.filtered
    by_filter = filtered - view.wedding_channels.chosen.get(channel, NOBODY)
    return (view.channel_off.get(channel, NOBODY) - filtered) | by_filter


def _asleep(rules: Rules, channel: Channel, view: View, now: datetime) -> Asleep:
    """Those whose quiet hours hold the channel back, by the moment at which they end for this broadcast."""
    if channel is Channel.IN_APP or rules.is_critical or not _quiet_applies(rules, view, now):
        return ()
    day = _yielding_to(rules, view)
    near = day.next_near(now) if day is not None else None
    asleep = view.quiet.asleep(now)
    return asleep if near is None else _until(near, asleep)


def _until(latest: datetime, asleep: Asleep) -> Asleep:
    """The same people, nobody longer than `latest`."""
    longest = Audience.union_of(members for release_at, members in asleep if release_at >= latest)
    return (*(group for group in asleep if group[0] < latest), (latest, longest))


def _quiet_applies(rules: Rules, view: View, now: datetime) -> bool:
    """Quiet hours give way to what is high, essential and about a wedding within 24 hours."""
    day = _yielding_to(rules, view)
    return day is None or not day.is_near(now)


def _yielding_to(rules: Rules, view: View) -> WeddingDay | None:
    """The wedding whose nearness ends quiet hours for a broadcast, None for one that waits for their end."""
    return view.wedding_day if rules.essential and rules.priority is Priority.HIGH else None
