"""Owns the editing of preferences: which paths a field mask may name, what each changes, and what may not be saved."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import time
from types import MappingProxyType
from typing import Final, TypeAlias
from uuid import UUID

from services.preferences.domain import Category, Channel
from services.preferences.presets import Preferences, QuietHours, RoleSetting, WeddingFilter
from shared.errors import FieldViolation, InvalidField, OutsideReach
from shared.time_zones import is_time_zone

EVERYTHING: Final = "*"
_LISTS: Final = frozenset({"channels", "role_settings", "wedding_filters"})
_IGNORED: Final = frozenset({"etag", "update_time", "edited"})
"""What a client that sends back what it read may name: the server's own, and the etag, which is a condition."""

_QUIET: Final = "preferences.quiet_hours"
_BROADCAST_TYPE: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")


@dataclass(frozen=True, slots=True)
class GivenQuietHours:
    """Quiet hours as a request has them: None for what it leaves out, an empty zone for the directory's."""

    enabled: bool = False
    start: time | None = None
    end: time | None = None
    time_zone: str = ""


@dataclass(frozen=True, slots=True)
class GivenPreferences:
    """Preferences as a request has them."""

    categories: frozenset[Category] = frozenset()
    critical_only: bool = False
    channels: frozenset[Channel] = frozenset()
    quiet_hours: GivenQuietHours | None = None
    role_settings: tuple[RoleSetting, ...] = ()
    wedding_filters: tuple[WeddingFilter, ...] = ()


_Edit: TypeAlias = Callable[[Preferences, GivenPreferences], Preferences]


def edit(current: Preferences, given: GivenPreferences, paths: Iterable[str]) -> Preferences:
    """The preferences after the fields that `paths` name were taken from `given`. Raises InvalidField."""
    named = list(paths)
    edited = current
    for path in named:
        edited = EDITS[path](edited, given) if path in EDITS else edited
    violations = [*_wrong_paths(named, given), *_violations(given)]
    if edited.quiet_hours.start == edited.quiet_hours.end:
        violations.append(FieldViolation(f"{_QUIET}.end", "must differ from start"))
    if violations:
        raise InvalidField(violations=violations)
    return edited


def require_reach(current: Preferences, edited: Preferences, teams: Iterable[UUID]) -> None:
    """Raise OutsideReach when a new filter is about a wedding on whose team the person is not, existing or not."""
    kept = {each.wedding_id for each in current.wedding_filters}
    if {each.wedding_id for each in edited.wedding_filters} - kept - set(teams):
        raise OutsideReach("A wedding filter is about a wedding on whose team you are not.")


def changed_weddings(current: Preferences, edited: Preferences) -> list[UUID]:
    """The weddings whose filter is another after the edit, sorted."""
    changed = set(current.wedding_filters) ^ set(edited.wedding_filters)
    return sorted({each.wedding_id for each in changed})


def _with_category(category: Category) -> _Edit:
    def change(current: Preferences, given: GivenPreferences) -> Preferences:
        others = current.categories - {category}
        return replace(current, categories=others | (given.categories & {category}))

    return change


def _with_quiet_hours(current: Preferences, given: GivenPreferences) -> Preferences:
    """Without quiet hours in the request they are switched off; a start or end that it leaves out stays."""
    wanted = given.quiet_hours or GivenQuietHours(time_zone=current.quiet_hours.time_zone or "")
    return replace(
        current,
        quiet_hours=QuietHours(
            wanted.enabled,
            current.quiet_hours.start if wanted.start is None else wanted.start,
            current.quiet_hours.end if wanted.end is None else wanted.end,
            wanted.time_zone or None,
        ),
    )


def _part_of_quiet_hours(change: Callable[[QuietHours, GivenQuietHours], QuietHours]) -> _Edit:
    def apply(current: Preferences, given: GivenPreferences) -> Preferences:
        wanted = given.quiet_hours or GivenQuietHours()
        return replace(current, quiet_hours=change(current.quiet_hours, wanted))

    return apply


def _with_everything(current: Preferences, given: GivenPreferences) -> Preferences:
    for path, change in EDITS.items():
        if path != EVERYTHING and "." not in path:
            current = change(current, given)
    return current


EDITS: Final[Mapping[str, _Edit]] = MappingProxyType(
    {category.value: _with_category(category) for category in Category}
    | {
        "critical_only": lambda now, given: replace(now, critical_only=given.critical_only),
        "channels": lambda now, given: replace(now, channels=given.channels | {Channel.IN_APP}),
        **dict.fromkeys(("quiet_hours", "quiet_hours.*"), _with_quiet_hours),
        "quiet_hours.enabled": _part_of_quiet_hours(lambda now, given: replace(now, enabled=given.enabled)),
        "quiet_hours.start": _part_of_quiet_hours(
            lambda now, given: replace(now, start=given.start or now.start)
        ),
        "quiet_hours.end": _part_of_quiet_hours(lambda now, given: replace(now, end=given.end or now.end)),
        "quiet_hours.time_zone": _part_of_quiet_hours(
            lambda now, given: replace(now, time_zone=given.time_zone or None)
        ),
        "role_settings": lambda now, given: replace(now, role_settings=_sorted_roles(given.role_settings)),
        "wedding_filters": lambda now, given: replace(
            now, wedding_filters=_sorted_weddings(given.wedding_filters)
        ),
        EVERYTHING: _with_everything,
    }
)
"""What each path of a mask changes, by AIP-161; `*` changes all."""


def _sorted_roles(settings: tuple[RoleSetting, ...]) -> tuple[RoleSetting, ...]:
    return tuple(sorted(settings, key=lambda each: each.role))


def _sorted_weddings(filters: tuple[WeddingFilter, ...]) -> tuple[WeddingFilter, ...]:
    return tuple(sorted(filters, key=lambda each: each.wedding_id))


def _wrong_paths(paths: Iterable[str], given: GivenPreferences) -> Iterator[FieldViolation]:
    quiet = given.quiet_hours or GivenQuietHours()
    for path in paths:
        if path not in EDITS and path not in _IGNORED:
            yield FieldViolation("update_mask", _rule_of(path))
        elif (path, None) in (("quiet_hours.start", quiet.start), ("quiet_hours.end", quiet.end)):
            yield FieldViolation(f"preferences.{path}", "must be given when the mask names it")


def _rule_of(path: str) -> str:
    """What a path breaks that names nothing."""
    field = path.partition(".")[0]
    if field in _LISTS:
        return f"{path!r} goes into a list, which is replaced as a whole: name {field!r}"
    return f"{path!r} is no path of the preferences; name any of {', '.join(EDITS)}"


def _violations(given: GivenPreferences) -> Iterator[FieldViolation]:
    quiet = given.quiet_hours
    if quiet is not None and quiet.time_zone and not is_time_zone(quiet.time_zone):
        yield FieldViolation(f"{_QUIET}.time_zone", "must be a time zone of the IANA database")
    roles: set[str] = set()
    for position, setting in enumerate(given.role_settings):
        place = f"preferences.role_settings[{position}]"
        if setting.role in roles:
            yield FieldViolation(f"{place}.role", "is there twice")
        roles.add(setting.role)
        for at, muted_type in enumerate(setting.muted_types):
            if not _BROADCAST_TYPE.fullmatch(muted_type):
                yield FieldViolation(
                    f"{place}.muted_types[{at}]", "must be a broadcast type such as trial.ending"
                )
    weddings: set[UUID] = set()
    for position, wedding_filter in enumerate(given.wedding_filters):
        if wedding_filter.wedding_id in weddings:
            yield FieldViolation(f"preferences.wedding_filters[{position}].wedding_id", "is there twice")
        weddings.add(wedding_filter.wedding_id)
