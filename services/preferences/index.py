"""Owns the set indexes: who has what, as bitmaps, of which a change replaces those that it concerns."""

from collections import defaultdict
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto
from functools import reduce
from operator import and_
from typing import Final, TypeAlias, TypeVar
from uuid import UUID

from services.preferences.domain import (
    NOBODY,
    Category,
    Channel,
    Rules,
    View,
    WeddingChannels,
    muted_weddings,
    wedding_channels,
)
from services.preferences.quiet_hours import QuietWindow
from services.preferences.quiet_people import QuietPeople
from services.preferences.segments import Criteria, SegmentEntry
from services.preferences.weddings import WeddingEntry, WeddingSets, unpack, usable_zone
from shared.audience import Audience

_Key = TypeVar("_Key")
# Whether it concerns anybody who has changed is seen of a set in a fraction of a microsecond.
_LOOKS_A_STEP: Final = 1_024
_SETS_A_STEP: Final = 16


class FacetKind(Enum):
    """What people are sorted by."""

    KNOWN = auto()
    ERASED = auto()
    ROLE = auto()
    USER_TYPE = auto()
    TIER = auto()
    CRITICAL_ONLY = auto()
    CATEGORY_OFF = auto()
    TYPE_MUTED = auto()
    CHANNEL_OFF = auto()


Facet: TypeAlias = tuple[FacetKind, str]
"""Names a set: a kind, and which one of it, such as the name of a role; empty where there is only one."""


@dataclass(frozen=True, slots=True)
class StandingGroup:
    """All people of the same role, type and tier.

    `numbers`, here and below, are recipient numbers as `unpack` takes them.
    """

    role: str
    user_type: str
    tier: str
    is_erased: bool
    numbers: bytes


@dataclass(frozen=True, slots=True)
class SettingsGroup:
    """All people with the same settings in effect: `muted_types` and `channels` are as they are for their role."""

    categories: frozenset[Category]
    critical_only: bool
    muted_types: tuple[str, ...]
    channels: frozenset[Channel]
    numbers: bytes


@dataclass(frozen=True, slots=True)
class WindowGroup:
    """All people with the same quiet hours in effect."""

    window: QuietWindow
    numbers: bytes


@dataclass(frozen=True, slots=True)
class PeopleGroups:
    """Some people, sorted in three ways: each is in one standing, in one of the settings, and in at most one window."""

    standings: tuple[StandingGroup, ...] = ()
    settings: tuple[SettingsGroup, ...] = ()
    windows: tuple[WindowGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class _Arriving:
    """People by the sets that they come into; of muted types also by all that somebody has muted together."""

    facets: dict[FacetKind, defaultdict[str, list[bytes]]] = field(
        default_factory=lambda: {kind: defaultdict(list) for kind in FacetKind}
    )
    muting: defaultdict[tuple[str, ...], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    windows: defaultdict[QuietWindow, list[bytes]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class FilterGroup:
    """All people who set the same for one wedding; `numbers` as in StandingGroup."""

    wedding_id: UUID
    is_muted: bool
    channels: frozenset[Channel]
    numbers: bytes


class SetIndex:
    """The directory and everybody's settings in effect, as of one place in the log.

    Audiences in it are replaced and never altered, so whoever has taken some out may go on with them across awaits.
    """

    def __init__(self, version: int) -> None:
        """An empty directory, at this place in the log."""
        self.version = version
        self._facets: dict[FacetKind, dict[str, Audience]] = {kind: {} for kind in FacetKind}
        # By all that somebody has muted: people may mute what they like, and where they were is found by that.
        self._muting: dict[tuple[str, ...], Audience] = {}
        self._everyone = NOBODY
        self._windows: dict[QuietWindow, Audience] = {}
        self._quiet = QuietPeople()
        self._weddings: dict[UUID, WeddingEntry] = {}
        self._wedding_sets = WeddingSets()
        self._filters: dict[UUID, tuple[FilterGroup, ...]] = {}
        self._segments: dict[UUID, SegmentEntry] = {}

    def replace_people(self, changed: Audience, groups: PeopleGroups) -> Iterator[None]:
        """From now on `groups` are all there is of `changed`; the others stay as they are.

        The work is done as the iterator is run through, and all of it is seen at once when that has ended: so that who
        changes many people can let others have their turn after each step.
        """
        arriving = _sorted(groups)
        muting = yield from _replaced(self._muting, changed, arriving.muting)
        muted = {muted_type for together in muting for muted_type in together}
        facets = {}
        for kind, sets in self._facets.items():
            among = muted if kind is FacetKind.TYPE_MUTED else None
            facets[kind] = yield from _replaced(sets, changed, arriving.facets[kind], among)
        windows = yield from _replaced(self._windows, changed, arriving.windows)
        for kind, sets in self._facets.items():
            _put(sets, facets[kind])
        _put(self._muting, muting)
        _put(self._windows, windows)
        self._everyone = self.having(FacetKind.KNOWN) - self.having(FacetKind.ERASED)
        self._quiet = self._quiet.replaced(windows, changed)

    def replace_weddings(
        self, changed: Iterable[UUID], entries: Iterable[WeddingEntry], filters: Iterable[FilterGroup]
    ) -> None:
        """From now on this is all there is of the weddings `changed`."""
        for wedding_id in changed:
            before = self._weddings.pop(wedding_id, None)
            if before is not None:
                self._wedding_sets.take_out(before)
            self._filters.pop(wedding_id, None)
        for entry in entries:
            self._weddings[entry.wedding_id] = entry
            self._wedding_sets.put(entry)
        for group in filters:
            self._filters[group.wedding_id] = (*self._filters.get(group.wedding_id, ()), group)

    def prepare_weddings(self) -> Iterator[None]:
        """Make what questions about many weddings are answered from, in steps, as the iterator is run through."""
        return self._wedding_sets.prepare()

    def replace_segments(self, changed: Iterable[UUID], entries: Iterable[SegmentEntry]) -> None:
        """From now on this is all there is of the segments `changed`."""
        for segment_id in changed:
            self._segments.pop(segment_id, None)
        self._segments |= {entry.segment_id: entry for entry in entries}

    def having(self, kind: FacetKind, value: str = "") -> Audience:
        """Those who have this; nobody when there is no such set."""
        return self._facets[kind].get(value, NOBODY)

    @property
    def everyone(self) -> Audience:
        """Everybody who has not been erased. It is asked for once for each wedding of a call, so it is kept."""
        return self._everyone

    def role_of(self, number: int) -> str | None:
        """The role of a recipient; None for somebody unknown or erased."""
        roles = self._facets[FacetKind.ROLE].items()
        return next((role for role, members in roles if number in members), None)

    def wedding(self, wedding_id: UUID) -> WeddingEntry | None:
        """A wedding, None when the directory does not know it."""
        return self._weddings.get(wedding_id)

    def team(self, wedding_ids: Iterable[UUID]) -> Audience:
        """Everyone on at least one of these teams; weddings that do not exist have none."""
        entries = (self._weddings.get(wedding_id) for wedding_id in wedding_ids)
        return unpack(entry.team for entry in entries if entry is not None)

    def segment(self, segment_id: UUID) -> SegmentEntry | None:
        """A segment, None when there is none."""
        return self._segments.get(segment_id)

    def meeting(self, criteria: Criteria, now: datetime) -> Audience:
        """Everybody who meets all of these at `now`; days pass without any change in the log."""
        alternatives = (
            [(FacetKind.ROLE, role) for role in criteria.roles],
            [(FacetKind.TIER, tier) for tier in criteria.tiers],
            [(FacetKind.USER_TYPE, user_type) for user_type in criteria.user_types],
        )
        met = [
            Audience.union_of(self.having(*facet) for facet in facets) for facets in alternatives if facets
        ]
        if criteria.is_about_weddings:
            met.append(self._wedding_sets.teams(criteria.wedding_statuses, criteria.wedding_within_days, now))
        # Without any criterion this raises, and is not taken for everybody.
        return reduce(and_, met) & self.everyone

    def view(self, rules: Rules, wall: Audience | None, about: Sequence[UUID]) -> View:
        """What a decision depends on: `wall` are those on the teams that bound it, `about` the weddings it is about."""
        wedding = self.wedding(rules.wedding_id) if rules.wedding_id is not None else None
        off = {channel: self.having(FacetKind.CHANNEL_OFF, channel) for channel in Channel}
        return View(
            known=self.having(FacetKind.KNOWN),
            erased=self.having(FacetKind.ERASED),
            wall=wall,
            critical_only=self.having(FacetKind.CRITICAL_ONLY),
            category_off=self.having(FacetKind.CATEGORY_OFF, rules.category),
            wedding_muted=self._muted(about),
            type_muted=self.having(FacetKind.TYPE_MUTED, rules.type),
            channel_off=off,
            wedding_channels=self._wedding_channels(about, off),
            quiet=self._quiet,
            wedding_day=wedding.day if wedding is not None else None,
        )

    def _muted(self, about: Sequence[UUID]) -> Audience:
        muted = {
            wedding_id: unpack(group.numbers for group in groups)
            for wedding_id in about
            if (groups := [group for group in self._filters.get(wedding_id, ()) if group.is_muted])
        }
        if not muted:
            return NOBODY
        others = self.team(wedding_id for wedding_id in about if wedding_id not in muted)
        return muted_weddings([(self.team([wedding_id]), by) for wedding_id, by in muted.items()], others)

    def _wedding_channels(self, about: Sequence[UUID], off: Mapping[Channel, Audience]) -> WeddingChannels:
        if len(about) == 1:
            return self._filtered_channels(about[0])
        found = {wedding_id: self._filtered_channels(wedding_id) for wedding_id in about}
        filters = [
            (self._reached(wedding_id), channels)
            for wedding_id, channels in found.items()
            if channels.filtered
        ]
        if not filters:
            return WeddingChannels()
        others = [wedding_id for wedding_id, channels in found.items() if not channels.filtered]
        return wedding_channels(filters, Audience.union_of(map(self._reached, others)), off)

    def _reached(self, wedding_id: UUID) -> Audience:
        """Those on a wedding's team who have not muted it."""
        muted = [group.numbers for group in self._filters.get(wedding_id, ()) if group.is_muted]
        team = self.team([wedding_id])
        return team - unpack(muted) if muted else team

    def _filtered_channels(self, wedding_id: UUID) -> WeddingChannels:
        """A filter without channels leaves them as they are."""
        groups = [group for group in self._filters.get(wedding_id, ()) if group.channels]
        if not groups:
            return WeddingChannels()
        chosen = {
            channel: unpack(group.numbers for group in groups if channel in group.channels)
            for channel in Channel
        }
        return WeddingChannels(unpack(group.numbers for group in groups), chosen)


def standing_facets(group: StandingGroup) -> list[Facet]:
    """The sets that people are in by who they are; the erased are nobody any more."""
    if group.is_erased:
        return [(FacetKind.KNOWN, ""), (FacetKind.ERASED, "")]
    return [
        (FacetKind.KNOWN, ""),
        (FacetKind.ROLE, group.role),
        (FacetKind.USER_TYPE, group.user_type),
        (FacetKind.TIER, group.tier),
    ]


def settings_facets(group: SettingsGroup) -> Iterator[Facet]:
    """The sets that people are in by what they want."""
    if group.critical_only:
        yield FacetKind.CRITICAL_ONLY, ""
    for category in set(Category) - group.categories:
        yield FacetKind.CATEGORY_OFF, category
    for muted_type in set(group.muted_types):
        yield FacetKind.TYPE_MUTED, muted_type
    for channel in set(Channel) - group.channels:
        yield FacetKind.CHANNEL_OFF, channel


def _sorted(groups: PeopleGroups) -> _Arriving:
    arriving = _Arriving()
    for standing in groups.standings:
        for kind, value in standing_facets(standing):
            arriving.facets[kind][value].append(standing.numbers)
    for settings in groups.settings:
        for kind, value in settings_facets(settings):
            arriving.facets[kind][value].append(settings.numbers)
        if settings.muted_types:
            arriving.muting[settings.muted_types].append(settings.numbers)
    for sleepers in groups.windows:
        arriving.windows[_usable_window(sleepers.window)].append(sleepers.numbers)
    return arriving


def _replaced(
    sets: Mapping[_Key, Audience],
    changed: Audience,
    arriving: Mapping[_Key, list[bytes]],
    among: Collection[_Key] | None = None,
) -> Generator[None, None, dict[_Key, Audience]]:
    """What becomes of the sets that `changed` leave or come into, in steps; those they leave are `among` these."""
    left: list[_Key] = []
    looked_at = sets.items() if among is None else ((key, sets[key]) for key in among if key in sets)
    for step, (key, members) in enumerate(looked_at, start=1):
        if not members.isdisjoint(changed):
            left.append(key)
        if step % _LOOKS_A_STEP == 0:
            yield
    replaced: dict[_Key, Audience] = {}
    for step, key in enumerate(left):
        replaced[key] = sets[key] - changed
        if step % _SETS_A_STEP == 0:
            yield
    for step, (key, numbers) in enumerate(arriving.items()):
        replaced[key] = replaced.get(key, sets.get(key, NOBODY)) | unpack(numbers)
        if step % _SETS_A_STEP == 0:
            yield
    return replaced


def _put(sets: dict[_Key, Audience], replaced: Mapping[_Key, Audience]) -> None:
    """Take in what has been replaced; sets that are empty then go."""
    sets.update(replaced)
    for key, members in replaced.items():
        if not members:
            del sets[key]


def _usable_window(window: QuietWindow) -> QuietWindow:
    return replace(window, time_zone=usable_zone(window.time_zone))
