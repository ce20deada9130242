"""Owns the answers about audiences: who is meant, what each of them gets, and who is whom, always as of now."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Final
from uuid import UUID

from services.preferences.changes import Changes
from services.preferences.domain import (
    NOBODY,
    Channel,
    Rules,
    Slice,
    View,
    changed_by_time,
    decide,
    outsiders,
    without_channel,
)
from services.preferences.index import FacetKind, SetIndex
from services.preferences.keeper import IndexKeeper
from services.preferences.weddings import WeddingEntry
from shared.audience import Audience
from shared.clock import Clock
from shared.errors import FieldViolation, IllegalState, InvalidField, NotFound

_NOBODY_NAMED: Final = FieldViolation(
    "targeting", "must name somebody: everyone, user_ids, roles, tiers, segment_ids or wedding_ids"
)
_EVERYONE_AND_SOME: Final = FieldViolation(
    "targeting.everyone", "cannot be joined with user_ids, roles, tiers or segment_ids"
)
_TIME_MISSING: Final = FieldViolation("since_time", "must be given with since_version")


@dataclass(frozen=True, slots=True)
class Targeting:
    """Who is meant: everyone or the union of what is named, within the teams of the weddings when there are any."""

    everyone: bool = False
    user_ids: tuple[UUID, ...] = ()
    roles: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    segment_ids: tuple[UUID, ...] = ()
    wedding_ids: tuple[UUID, ...] = ()

    @property
    def names_people(self) -> bool:
        """Whether it names some people otherwise than by weddings."""
        return bool(self.user_ids or self.roles or self.tiers or self.segment_ids)


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be decided: about a broadcast of these rules, within these weddings' teams, on these channels."""

    rules: Rules
    wall: tuple[UUID, ...]
    channels: tuple[Channel, ...]

    @property
    def walls(self) -> tuple[Sequence[UUID], Sequence[UUID]]:
        """The weddings that bound it: those named as its wall, and the one that it is about."""
        return self.wall, (self.rules.wedding_id,) if self.rules.wedding_id is not None else ()


@dataclass(frozen=True, slots=True)
class Count:
    """How many people are meant, and the directory version of the answer.

    Of the users named, how many are not known, and how many are known and outside the wall.
    """

    targeted: int
    version: int
    unknown_users: int = 0
    outside_users: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What people get at `time`; the slices are made as they are taken."""

    count: Count
    time: datetime
    slices: Iterator[Slice]


@dataclass(frozen=True, slots=True)
class WeddingAccess:
    """A wedding's entry, None when there is none, whether the user is on its team, and how many are."""

    entry: WeddingEntry | None
    on_team: bool
    team_size: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who a user is, if known, and where they belong."""

    number: int | None
    role: str | None
    weddings: Mapping[UUID, WeddingAccess]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Known users with number and role, known weddings, and the directory version of the answer.

    `names` are of those who were asked for by number.
    """

    recipients: Mapping[UUID, tuple[int, str]]
    weddings: tuple[WeddingEntry, ...]
    version: int
    names: Mapping[UUID, str] = field(default_factory=dict)


class Audiences:
    """Answers from the set indexes. Every method sees all that was accepted before it was called.

    An index moves on while others wait, so each method first awaits what it needs, and then takes all it reads from the
    index in one go.
    """

    def __init__(self, keeper: IndexKeeper, clock: Clock) -> None:
        self._keeper = keeper
        self._clock = clock

    async def count(self, targeting: Targeting) -> Count:
        """How many are meant. Raises InvalidField, NotFound, IllegalState."""
        index, numbers = await self._look_up(targeting)
        wall = _within(index, [targeting.wedding_ids])
        members = _meant(index, targeting, numbers, wall, self._clock.now())
        return _count(members, targeting, numbers, wall, index)

    async def resolve(self, targeting: Targeting, question: Question) -> Decision:
        """Who is meant, and what each of them gets now. Raises InvalidField, NotFound, IllegalState."""
        index, numbers = await self._look_up(targeting)
        now = self._clock.now()
        wall = _within(index, [targeting.wedding_ids, *question.walls])
        members = _meant(index, targeting, numbers, wall, now)
        view = _view(index, question, wall, targeting.wedding_ids)
        slices = decide(question.rules, members, view, now, question.channels)
        return Decision(_count(members, targeting, numbers, wall, index), now, slices)

    async def reevaluate(
        self, members: Audience, question: Question, since_version: int, since_time: datetime | None
    ) -> Decision:
        """What those of `members` get now who changed since they were decided about; with version 0, all of them.

        Raises InvalidField when there is a version but no time.
        """
        if since_version and since_time is None:
            raise InvalidField(violations=[_TIME_MISSING])
        index = await self._keeper.current()
        changes = (
            await self._keeper.changes_since(since_version) if since_version else Changes(is_reload=True)
        )
        wall = _within(index, question.walls)
        view, now = _view(index, question, wall, ()), self._clock.now()
        if since_time is not None and not changes.is_reload:
            members = _affected(members, question, view, changes, since_time, now)
        slices = decide(question.rules, members, view, now, question.channels)
        return Decision(Count(len(members), index.version), now, slices)

    async def changes(self, since_version: int) -> tuple[Changes, int]:
        """Whom the log is about since a version, and the version up to which that is told."""
        index = await self._keeper.current()
        version = index.version
        return await self._keeper.changes_since(since_version), version

    async def access(
        self, user_id: UUID | None, wedding_ids: Iterable[UUID], *, all_teams: bool = False
    ) -> Access:
        """Who a user is, and where they belong; the weddings in the order asked, without repeats.

        With `all_teams` the others on whose team they are follow.
        """
        index = await self._keeper.current()
        numbers = await self._keeper.numbers_of([user_id], index) if user_id is not None else {}
        number = next(iter(numbers.values()), None)
        own = await self._keeper.weddings_of(number) if all_teams and number is not None else []
        named = {wedding_id: _wedding_access(index, wedding_id, number) for wedding_id in wedding_ids}
        others = {each: _wedding_access(index, each, number) for each in own if each not in named}
        weddings = named | {each: found for each, found in others.items() if found.on_team}
        return Access(number, index.role_of(number) if number is not None else None, weddings)

    async def lookup(
        self, user_ids: Collection[UUID], wedding_ids: Iterable[UUID], by_number: Collection[int] = ()
    ) -> Lookup:
        """Numbers and roles of users, also by number, and weddings with their teams; what is not known is left out."""
        index = await self._keeper.current()
        named = await self._keeper.names_of(by_number)
        numbers = await self._keeper.numbers_of(user_ids, index)
        numbers |= {user_id: number for number, (user_id, _) in named.items()}
        recipients = {
            user_id: (number, role)
            for user_id, number in numbers.items()
            if (role := index.role_of(number)) is not None
        }
        weddings = [index.wedding(wedding_id) for wedding_id in dict.fromkeys(wedding_ids)]
        names = dict(named.values())
        return Lookup(recipients, tuple(filter(None, weddings)), index.version, names)

    async def _look_up(self, targeting: Targeting) -> tuple[SetIndex, Mapping[UUID, int]]:
        """The index, and the numbers of the users named that it knows."""
        _check(targeting)
        index = await self._keeper.current()
        return index, await self._keeper.numbers_of(set(targeting.user_ids), index)


def _wedding_access(index: SetIndex, wedding_id: UUID, number: int | None) -> WeddingAccess:
    team = index.everyone & index.team([wedding_id])
    return WeddingAccess(index.wedding(wedding_id), number is not None and number in team, len(team))


def _check(targeting: Targeting) -> None:
    if not (targeting.everyone or targeting.names_people or targeting.wedding_ids):
        raise InvalidField(violations=[_NOBODY_NAMED])
    if targeting.everyone and targeting.names_people:
        raise InvalidField(violations=[_EVERYONE_AND_SOME])


def _within(index: SetIndex, walls: Iterable[Sequence[UUID]]) -> Audience | None:
    """Those on a team of each wall that names weddings; None when none does.

    Raises NotFound for a wedding that the directory does not know.
    """
    bounds = dict.fromkeys(tuple(wall) for wall in walls if wall)
    if any(index.wedding(wedding_id) is None for wall in bounds for wedding_id in wall):
        raise NotFound("A wedding that the request names does not exist.")
    teams = [index.team(wall) for wall in bounds]
    return reduce(and_, teams) if teams else None


def _meant(
    index: SetIndex,
    targeting: Targeting,
    numbers: Mapping[UUID, int],
    wall: Audience | None,
    now: datetime,
) -> Audience:
    """The people meant, within the wall. Raises NotFound and IllegalState for a segment."""
    meant = index.everyone if wall is None else index.everyone & wall
    if not targeting.names_people:
        return meant
    named = [
        Audience.of(numbers.values()),
        *(index.having(FacetKind.ROLE, role) for role in targeting.roles),
        *(index.having(FacetKind.TIER, tier) for tier in targeting.tiers),
        *_in_segments(index, targeting.segment_ids, now),
    ]
    return meant & Audience.union_of(named)


def _in_segments(index: SetIndex, segment_ids: Sequence[UUID], now: datetime) -> Iterator[Audience]:
    """Those in each segment. Raises NotFound for one that there is not, IllegalState for one that is not active."""
    found = {segment_id: index.segment(segment_id) for segment_id in segment_ids}
    absent = [segment_id for segment_id, segment in found.items() if segment is None]
    if absent:
        message = "A segment that the targeting names does not exist."
        raise NotFound(message, violations=_named(absent, "which does not exist"))
    segments = [segment for segment in found.values() if segment is not None]
    resting = [segment.segment_id for segment in segments if not segment.is_active]
    if resting:
        message = "A segment that the targeting names is not active."
        raise IllegalState(message, violations=_named(resting, "which is not active"))
    return (index.meeting(segment.criteria, now) for segment in segments)


def _named(segment_ids: Iterable[UUID], problem: str) -> list[FieldViolation]:
    return [FieldViolation("targeting.segment_ids", f"names {each}, {problem}") for each in segment_ids]


def _view(index: SetIndex, question: Question, wall: Audience | None, targeted: Sequence[UUID]) -> View:
    """What the decision depends on. A broadcast is about its wedding, else about the weddings that bound it."""
    wedding_id = question.rules.wedding_id
    about = [wedding_id] if wedding_id is not None else question.wall or targeted
    return index.view(question.rules, wall, about)


def _affected(
    members: Audience, question: Question, view: View, changes: Changes, since: datetime, now: datetime
) -> Audience:
    """Those of `members` whose outcome may be another than at `since`."""
    if question.rules.wedding_id in changes.redated:
        return members
    changed = changes.recipients | changed_by_time(question.rules, members, view, since, now)
    if not changes.weddings.isdisjoint(question.wall):
        # Who has left one of several teams may be left with those that they have muted, or have without a channel.
        changed |= view.wedding_muted
        changed |= without_channel(view) if len(question.wall) > 1 else NOBODY
    return members & changed | outsiders(members, view)


def _count(
    members: Audience,
    targeting: Targeting,
    numbers: Mapping[UUID, int],
    wall: Audience | None,
    index: SetIndex,
) -> Count:
    return Count(
        targeted=len(members),
        version=index.version,
        unknown_users=len(set(targeting.user_ids)) - len(numbers),
        outside_users=0 if wall is None else len(Audience.of(numbers.values()) - wall),
    )
