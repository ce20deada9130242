"""Owns what a segment is: criteria under a name, what may be saved, and what each path of a mask changes of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeAlias
from uuid import UUID

from services.preferences.directory import UserType, WeddingStatus
from shared import opaque
from shared.errors import FieldViolation, InvalidField, StaleEtag

PAGE_SIZE: Final = 50
EVERYTHING: Final = "*"
_IGNORED: Final = frozenset(
    {"segment_id", "user_count", "user_count_time", "create_time", "update_time", "etag"}
)
"""What a client that sends back what it read may name: the server's own, and the etag, which is a condition."""

_QUERY: Final = b"segments by name"
NAME_TAKEN: Final = FieldViolation("segment.name", "is the name of another segment, whatever its case")
_NAME_MISSING: Final = FieldViolation("segment.name", "must be 1-100 characters")
_NO_CRITERION: Final = FieldViolation(
    "segment.criteria",
    "must have at least one of roles, tiers, user_types, wedding_statuses and wedding_within_days",
)
_ACTIVE_MISSING: Final = FieldViolation("segment.is_active", "must be given when the mask names it")


@dataclass(frozen=True, slots=True)
class Criteria:
    """Who is in a segment: all criteria must hold, and of each one value; one that is empty or None is none.

    Those about weddings hold for one wedding on whose team somebody is: its status, and that it is from today to so
    many days ahead, on the calendar of its place.
    """

    roles: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    user_types: tuple[UserType, ...] = ()
    wedding_statuses: tuple[WeddingStatus, ...] = ()
    wedding_within_days: int | None = None

    @property
    def is_about_weddings(self) -> bool:
        """Whether it takes a wedding to meet them."""
        return bool(self.wedding_statuses) or self.wedding_within_days is not None

    @property
    def is_any(self) -> bool:
        """Whether there is at least one criterion."""
        return bool(self.roles or self.tiers or self.user_types) or self.is_about_weddings


@dataclass(frozen=True, slots=True)
class SegmentValues:
    """What people say of a segment."""

    name: str = ""
    description: str = ""
    criteria: Criteria = field(default_factory=Criteria)
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class GivenSegment:
    """A segment as a request has it: `is_active` is None where it leaves that out."""

    name: str = ""
    description: str = ""
    criteria: Criteria = field(default_factory=Criteria)
    is_active: bool | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as it is kept; `user_count_time` is None while nobody has counted."""

    segment_id: UUID
    values: SegmentValues
    version: int
    user_count: int
    user_count_time: datetime | None
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """Names this version."""
        return str(self.version)

    def require_etag(self, etag: str) -> None:
        """Raise StaleEtag when a condition is given, and is another version."""
        if etag not in ("", self.etag):
            raise StaleEtag


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """What an audience needs to know of a segment, as of one version of it."""

    segment_id: UUID
    version: int
    is_active: bool
    criteria: Criteria


_Edit: TypeAlias = Callable[[SegmentValues, GivenSegment], SegmentValues]


def new_segment(given: GivenSegment) -> SegmentValues:
    """The values of a segment that is made of this. Raises InvalidField."""
    return edit(SegmentValues(), given, [EVERYTHING])


def edit(current: SegmentValues, given: GivenSegment, paths: Iterable[str]) -> SegmentValues:
    """The values after the fields that `paths` name were taken from `given`. Raises InvalidField."""
    named = list(paths)
    edited = current
    for path in named:
        edited = EDITS[path](edited, given) if path in EDITS else edited
    violations = [*_wrong_paths(named, given), *_violations(edited)]
    if violations:
        raise InvalidField(violations=violations)
    return edited


def write_page_token(name: str) -> str:
    """The name of the page that follows the segment of this name."""
    return opaque.write_page_token(name.encode(), _QUERY)


def read_page_token(token: str) -> str:
    """The segment's name that a token stands for. Raises InvalidPageToken."""
    try:
        name = opaque.read_page_token(token, _QUERY).decode()
    except UnicodeDecodeError as error:
        raise opaque.refused_page_token() from error
    if "\0" in name:
        raise opaque.refused_page_token()
    return name


def _with_activity(current: SegmentValues, given: GivenSegment) -> SegmentValues:
    return current if given.is_active is None else replace(current, is_active=given.is_active)


def _criterion(change: Callable[[Criteria, Criteria], Criteria]) -> _Edit:
    def apply(current: SegmentValues, given: GivenSegment) -> SegmentValues:
        return replace(current, criteria=change(current.criteria, given.criteria))

    return apply


def _with_everything(current: SegmentValues, given: GivenSegment) -> SegmentValues:
    whole = SegmentValues(given.name, given.description, given.criteria, current.is_active)
    return _with_activity(whole, given)


EDITS: Final[Mapping[str, _Edit]] = MappingProxyType(
    {
        "name": lambda now, given: replace(now, name=given.name),
        "description": lambda now, given: replace(now, description=given.description),
        "is_active": _with_activity,
        "criteria": _criterion(lambda now, given: given),
        "criteria.roles": _criterion(lambda now, given: replace(now, roles=given.roles)),
        "criteria.tiers": _criterion(lambda now, given: replace(now, tiers=given.tiers)),
        "criteria.user_types": _criterion(lambda now, given: replace(now, user_types=given.user_types)),
        "criteria.wedding_statuses": _criterion(
            lambda now, given: replace(now, wedding_statuses=given.wedding_statuses)
        ),
        "criteria.wedding_within_days": _criterion(
            lambda now, given: replace(now, wedding_within_days=given.wedding_within_days)
        ),
        EVERYTHING: _with_everything,
    }
)
"""What each path of a mask changes, by AIP-161; `*` changes all."""


def _wrong_paths(paths: Iterable[str], given: GivenSegment) -> Iterator[FieldViolation]:
    for path in paths:
        if path not in EDITS and path not in _IGNORED:
            yield FieldViolation("update_mask", f"{path!r} is no path of a segment")
        elif path == "is_active" and given.is_active is None:
            yield _ACTIVE_MISSING


def _violations(values: SegmentValues) -> Iterator[FieldViolation]:
    if not values.name:
        yield _NAME_MISSING
    if not values.criteria.is_any:
        yield _NO_CRITERION
