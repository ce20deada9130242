"""Owns the directory's entries: people and weddings, what may be written of them, and who may see whom."""

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.errors import FieldViolation, InvalidField, PermissionDenied
from shared.time_zones import NO_TIME_ZONE, is_time_zone

ADMIN: Final = "admin"
COORDINATOR: Final = "coordinator"


class UserType(StrEnum):
    """The kind of person."""

    COUPLE = "couple"
    SUPPLIER = "supplier"
    STAFF = "staff"


class WeddingStatus(StrEnum):
    """Where a wedding is."""

    PLANNING = "planning"
    CONFIRMED = "confirmed"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Reach(StrEnum):
    """Whom a caller may look up."""

    SELF = "self"
    TEAMS = "teams"
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as the directory is told of them."""

    user_id: UUID
    display_name: str
    role: str
    user_type: UserType
    tier: str
    email: str | None
    phone: str | None
    time_zone: str


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """Somebody as the directory keeps them; without addresses for those who may not see them."""

    person: Person
    number: int
    update_time: datetime


@dataclass(frozen=True, slots=True)
class WeddingDetails:
    """A wedding as the directory is told of it; its date is meant in its own zone."""

    wedding_id: UUID
    couple_name: str
    wedding_date: date | None
    status: WeddingStatus
    time_zone: str


@dataclass(frozen=True, slots=True)
class PeopleWritten:
    """What an upsert of people has done: their numbers in the order given, how many were new, and where the log is."""

    numbers: tuple[int, ...]
    created: int
    version: int


@dataclass(frozen=True, slots=True)
class WeddingsWritten:
    """What an upsert of weddings has done: how many were new, and where the log is."""

    created: int
    version: int


@dataclass(frozen=True, slots=True)
class TeamWritten:
    """What setting a team has done: at which version it is, and how many joined and left."""

    version: int
    added: int
    removed: int


@dataclass(frozen=True, slots=True)
class Team:
    """Who is on a wedding's team, by number, at a version."""

    version: int
    members: tuple[int, ...]


def reach_of(role: str | None, *, is_service: bool) -> Reach:
    """Whom a caller with this directory role may look up."""
    if is_service or role == ADMIN:
        return Reach.EVERYONE
    return Reach.TEAMS if role == COORDINATOR else Reach.SELF


def check_people(people: Sequence[Person]) -> None:
    """Raise InvalidField for zones that do not exist and for users who are there twice."""
    violations = list(_twice("recipients[{}].user_id", [person.user_id for person in people]))
    violations += _bad_zones("recipients", (person.time_zone for person in people))
    if violations:
        raise InvalidField(violations=violations)


def check_weddings(weddings: Sequence[WeddingDetails], broken: Iterable[FieldViolation] = ()) -> None:
    """Raise InvalidField for zones that do not exist, weddings that are there twice, and what was `broken` before."""
    violations = list(broken)
    violations += list(_twice("weddings[{}].wedding_id", [wedding.wedding_id for wedding in weddings]))
    violations += _bad_zones("weddings", (wedding.time_zone for wedding in weddings))
    if violations:
        raise InvalidField(violations=violations)


def require_admin_right(
    people: Iterable[Person], roles: Mapping[UUID, str], *, may_change_admins: bool
) -> None:
    """Raise PermissionDenied when the admin role is given or taken by who may not; `roles` are those of now."""
    if may_change_admins:
        return
    for person in people:
        if (person.role == ADMIN) != (roles.get(person.user_id) == ADMIN):
            raise PermissionDenied("Giving or taking the admin role needs the scope directory.admin.")


def require_known(user_ids: Sequence[UUID], known: Container[UUID]) -> None:
    """Raise InvalidField that names every user who is not among the `known`."""
    violations = [
        FieldViolation(f"user_ids[{position}]", "is not known to the directory")
        for position, user_id in enumerate(user_ids)
        if user_id not in known
    ]
    if violations:
        raise InvalidField(violations=violations)


def _twice(path: str, keys: Sequence[Hashable]) -> Iterator[FieldViolation]:
    seen: set[Hashable] = set()
    for position, key in enumerate(keys):
        if key in seen:
            yield FieldViolation(path.format(position), "is there twice")
        seen.add(key)


def _bad_zones(name: str, time_zones: Iterable[str]) -> Iterator[FieldViolation]:
    for position, time_zone in enumerate(time_zones):
        if not is_time_zone(time_zone):
            yield FieldViolation(f"{name}[{position}].time_zone", NO_TIME_ZONE)
