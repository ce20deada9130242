"""Owns what a person's preferences consist of, and the preset of each role that holds until they edit theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from enum import Enum, auto
from types import MappingProxyType
from typing import Final
from uuid import UUID

from services.preferences.domain import Category, Channel
from services.preferences.quiet_hours import QuietWindow

SUPPLIER_ROLES: Final = frozenset(
    {"supplier", "photographer", "videographer", "florist", "caterer", "venue", "musician", "officiant"}
)
STAFF_ROLES: Final = frozenset({"admin", "staff"})

_ALWAYS: Final = frozenset({Channel.REALTIME, Channel.IN_APP})


class RoleKind(Enum):
    """The rows of product.md's table of presets."""

    COUPLE = auto()
    COORDINATOR = auto()
    SUPPLIER = auto()
    STAFF = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A daily window, to the minute; without a zone of its own it follows the person's directory entry."""

    enabled: bool
    start: time
    end: time
    time_zone: str | None = None

    def window(self, directory_zone: str) -> QuietWindow | None:
        """The window that is in effect for somebody of this zone; None when switched off."""
        if not self.enabled:
            return None
        return QuietWindow(self.time_zone or directory_zone, _minute(self.start), _minute(self.end))


@dataclass(frozen=True, slots=True)
class RoleSetting:
    """What differs while a person has a role; `channels` replace the person's unless there are none."""

    role: str
    muted_types: tuple[str, ...] = ()
    channels: frozenset[Channel] = frozenset()


@dataclass(frozen=True, slots=True)
class WeddingFilter:
    """What differs for one wedding; `channels` replace the role's or the person's unless there are none."""

    wedding_id: UUID
    muted: bool = False
    channels: frozenset[Channel] = frozenset()


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a person wants to be told, how, and when not. `channels` always has in_app."""

    categories: frozenset[Category]
    critical_only: bool
    channels: frozenset[Channel]
    quiet_hours: QuietHours
    role_settings: tuple[RoleSetting, ...] = ()
    wedding_filters: tuple[WeddingFilter, ...] = ()

    def setting_for(self, role: str) -> RoleSetting:
        """What is set for a role; nothing differs when there is no setting."""
        return next((each for each in self.role_settings if each.role == role), RoleSetting(role))


@dataclass(frozen=True, slots=True)
class PersonalPreferences:
    """One person's preferences as they apply: without a time while their role's preset holds.

    The version counts edits and resets; 0 before the first.
    """

    role: str
    values: Preferences
    version: int = 0
    update_time: datetime | None = None

    @property
    def is_edited(self) -> bool:
        """Whether somebody edited them and has not reset them since."""
        return self.update_time is not None

    def edited(self, values: Preferences, at: datetime) -> "PersonalPreferences":
        """What they are after an edit, which is a version of its own unless it changes nothing."""
        if values == self.values:
            return self
        return PersonalPreferences(self.role, values, self.version + 1, at)

    def reset(self) -> "PersonalPreferences":
        """What they are once the preset holds again; the same when it does."""
        if not self.is_edited:
            return self
        return PersonalPreferences(self.role, preset_for(self.role), self.version + 1)

    @property
    def etag(self) -> str:
        """Names this version; a preset is another one when the role is."""
        return str(self.version) if self.is_edited else f"{self.version}:{self.role}"


def kind_of(role: str) -> RoleKind:
    """The row of a role in the table of presets."""
    if role in SUPPLIER_ROLES:
        return RoleKind.SUPPLIER
    if role in STAFF_ROLES:
        return RoleKind.STAFF
    return _KINDS.get(role, RoleKind.OTHER)


def preset_for(role: str) -> Preferences:
    """What holds for people of a role until they edit theirs."""
    return _PRESETS[kind_of(role)]


def _preset(*channels: Channel, quiet: tuple[int, int] | None = None) -> Preferences:
    # Those without quiet hours have the proposal in their settings, switched off.
    start, end = quiet or (22, 8)
    return Preferences(
        categories=frozenset(Category),
        critical_only=False,
        channels=_ALWAYS | frozenset(channels),
        quiet_hours=QuietHours(quiet is not None, time(start), time(end)),
    )


_KINDS: Final[Mapping[str, RoleKind]] = MappingProxyType(
    {"couple": RoleKind.COUPLE, "coordinator": RoleKind.COORDINATOR}
)
_PRESETS: Final[Mapping[RoleKind, Preferences]] = MappingProxyType(
    {
        RoleKind.COUPLE: _preset(Channel.EMAIL, quiet=(21, 9)),
        RoleKind.COORDINATOR: _preset(Channel.EMAIL, Channel.SMS, Channel.PUSH, quiet=(23, 6)),
        RoleKind.SUPPLIER: _preset(Channel.EMAIL, Channel.PUSH, quiet=(22, 7)),
        RoleKind.STAFF: _preset(Channel.EMAIL),
        RoleKind.OTHER: _preset(),
    }
)


def _minute(clock: time) -> int:
    return clock.hour * 60 + clock.minute
