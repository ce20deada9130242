"""Owns the weddings as the index has them: facts and team of each, and who is on those of a status, some days ahead."""

import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Final, TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog

from services.preferences.directory import WeddingStatus
from services.preferences.domain import WeddingDay
from shared.audience import Audience
from shared.time_zones import is_time_zone

log = structlog.get_logger(__name__)

_SUBSTITUTE_ZONE: Final = "UTC"
# Each is up to as large as a bitmap of everybody on a team; all are forgotten at the next change anyway.
_MOST_ANSWERS: Final = 64


@dataclass(frozen=True, slots=True)
class WeddingEntry:
    """A wedding as the directory has it.

    `team` are recipient numbers as `unpack` takes them: fifty thousand bitmaps of a dozen people each would take ten
    times the memory.
    """

    wedding_id: UUID
    couple_name: str
    wedding_date: date | None
    time_zone: str
    team_version: int
    team: bytes
    status: WeddingStatus

    @property
    def day(self) -> WeddingDay | None:
        """When it is, once that is fixed."""
        return WeddingDay(self.wedding_date, usable_zone(self.time_zone)) if self.wedding_date else None


@dataclass(slots=True)
class _Day:
    """The teams of the weddings of one status on one day, by the zone of the place, and everyone on them."""

    teams: dict[str, dict[UUID, bytes]] = field(default_factory=dict)
    union: Audience | None = None

    def everyone(self) -> Audience:
        """Everyone on any of them."""
        if self.union is None:
            self.union = unpack(team for teams in self.teams.values() for team in teams.values())
        return self.union

    def in_zones(self, zones: Iterable[str]) -> Audience:
        """Everyone on those in these zones."""
        return unpack(team for zone in zones for team in self.teams.get(zone, {}).values())


_Days: TypeAlias = dict[date | None, _Day]
_Wanted: TypeAlias = tuple[tuple[WeddingStatus, ...], int | None]


class WeddingSets:
    """Everyone on weddings of some statuses, some days ahead.

    A question is answered from one set for each status and day, so that it costs as many unions as there are days, and
    from what it was answered before while no wedding has changed and no day has begun anywhere.
    """

    def __init__(self) -> None:
        self._by_status: dict[WeddingStatus, _Days] = {status: {} for status in WeddingStatus}
        self._zones: set[str] = set()
        self._minute: datetime | None = None
        self._todays: Mapping[str, date] = {}
        self._answers: dict[_Wanted, Audience] = {}

    def put(self, wedding: WeddingEntry) -> None:
        """One more wedding."""
        zone = usable_zone(wedding.time_zone)
        if zone not in self._zones:
            self._zones.add(zone)
            self._minute = None
        day = self._by_status[wedding.status].setdefault(wedding.wedding_date, _Day())
        day.teams.setdefault(zone, {})[wedding.wedding_id] = wedding.team
        self._forget(day)

    def take_out(self, wedding: WeddingEntry) -> None:
        """One less, which is there exactly so."""
        days, zone = self._by_status[wedding.status], usable_zone(wedding.time_zone)
        day = days[wedding.wedding_date]
        del day.teams[zone][wedding.wedding_id]
        if not day.teams[zone]:
            del day.teams[zone]
        if not day.teams:
            del days[wedding.wedding_date]
        self._forget(day)

    def teams(self, statuses: Collection[WeddingStatus], within_days: int | None, now: datetime) -> Audience:
        """Everyone on a wedding of one of these statuses (of any without one) that is so many days ahead at most.

        Days are those of the wedding's place, from today there on. Without `within_days` any day will do, and none.
        """
        if within_days is not None:
            self._look_at_calendars(now)
        wanted = (tuple(sorted(statuses)) or tuple(WeddingStatus), within_days)
        found = self._answers.get(wanted)
        if found is None:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            found = self._answers[wanted] = Audience.union_of(self._parts(*wanted))
        return found

    def prepare(self) -> Iterator[None]:
        """Make the sets of days that have changed, one a step, so that no question has to make many of them at once."""
        for days in self._by_status.values():
            for day in tuple(days.values()):
                if day.union is None:
                    day.everyone()
                    yield

    def _forget(self, day: _Day) -> None:
        day.union = None
        self._answers.clear()

    def _look_at_calendars(self, now: datetime) -> None:
        """Which day it is in each zone; days begin at whole minutes."""
        minute = now.replace(second=0, microsecond=0)
        if minute == self._minute:
            return
        todays = {zone: now.astimezone(ZoneInfo(zone)).date() for zone in self._zones}
        if todays != self._todays:
            self._answers.clear()
        self._minute, self._todays = minute, todays

    def _parts(self, statuses: Iterable[WeddingStatus], within_days: int | None) -> Iterator[Audience]:
        for status in statuses:
            if within_days is None:
                yield from (day.everyone() for day in self._by_status[status].values())
            else:
                yield from self._ahead(self._by_status[status], within_days)

    def _ahead(self, days: _Days, within_days: int) -> Iterator[Audience]:
        """Those of some days: wholly where all zones agree that the day is near enough, and that it is not over."""
        earliest = min(self._todays.values(), default=date.max)
        latest = max(self._todays.values(), default=date.min)
        for when, day in days.items():
            if when is None or when < earliest or (when - latest).days > within_days:
                continue
            if when >= latest and (when - earliest).days <= within_days:
                yield day.everyone()
            else:
                yield day.in_zones(
                    zone for zone, today in self._todays.items() if 0 <= (when - today).days <= within_days
                )


def unpack(numbers: Iterable[bytes]) -> Audience:
    """The audience of recipient numbers as Postgres sends them, without making an object of any.

    They are big-endian 32-bit integers, one after the other, in any order.
    """
    words = array("I", b"".join(numbers))
    if sys.byteorder == "little":
        words.byteswap()
    return Audience.of(words)


@lru_cache(maxsize=1_024)
def usable_zone(name: str) -> str:
    """A zone that the database has: what came in past the service's own checks must not stop everybody's broadcasts."""
    if is_time_zone(name):
        return name
    log.warning("unknown_time_zone", time_zone=name, instead=_SUBSTITUTE_ZONE)
    return _SUBSTITUTE_ZONE
