"""Owns what is recommended to people of a role, and why: the preset, and quiet nights for those who have none by it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from services.preferences.domain import Category
from services.preferences.presets import Preferences, RoleKind, kind_of, preset_for


class Why(StrEnum):
    """The reason for one value, as a sentence."""

    KNOWS_OF_INTERRUPTIONS = "You learn beforehand when WedSync is maintained, and what is new."
    KNOWS_OF_MONEY = "Payments, trials and limits that are missed cost you something."
    WORKS_WITH_OTHERS = "Others change timelines and forms that you work with."
    IS_ON_A_TEAM = "What happens to a wedding concerns everybody on its team."
    MISSES_NOTHING = "Little of what matters to you is critical; switch off single categories instead."
    IS_TOLD_GENTLY = "Besides the app you get emails, which make no sound."
    IS_REACHED_ANYWHERE = "In an emergency a team depends on reaching its coordinator."
    MISSES_NO_BUSINESS = "Reminders and changes of the timeline reach you where you work."
    WORKS_AT_A_DESK = "You work with WedSync open; emails are for what you would miss otherwise."
    GETS_NOTHING_UNASKED = "We do not know how you work, so nothing leaves the app until you choose it."
    SLEEPS_AT_NIGHT = "Nothing wakes you; what came at night is there in the morning."
    WORKS_LONG_DAYS = (
        "Weddings begin early and end late, so your night is short; what is critical comes through."
    )
    IS_ON_DUTY = "Whoever looks after WedSync is told at any hour."


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One value: its path as a mask names it, why it is recommended, and whether something else applies now."""

    path: str
    why: Why
    differs: bool


def recommended(role: str, current: Preferences) -> Preferences:
    """Preferences with what suits a role; nothing is recommended of settings by role and wedding, which stay."""
    preset = preset_for(role)
    quiet_hours = preset.quiet_hours
    if kind_of(role) is RoleKind.OTHER:
        quiet_hours = replace(quiet_hours, enabled=True)
    return replace(
        preset,
        quiet_hours=quiet_hours,
        role_settings=current.role_settings,
        wedding_filters=current.wedding_filters,
    )


def recommendations(role: str, current: Preferences) -> list[Recommendation]:
    """Why each value is recommended to somebody of a role, in the order of the contract's fields."""
    wanted = recommended(role, current)
    reasons = {**_FOR_ALL, "channels": _CHANNELS[kind_of(role)], "quiet_hours": _QUIET_HOURS[kind_of(role)]}
    return [
        Recommendation(path, why, _EFFECTS[path](current) != _EFFECTS[path](wanted))
        for path, why in reasons.items()
    ]


def _is_on(category: Category) -> Callable[[Preferences], object]:
    return lambda preferences: category in preferences.categories


_FOR_ALL: Final[Mapping[str, Why]] = MappingProxyType(
    {
        "system": Why.KNOWS_OF_INTERRUPTIONS,
        "business": Why.KNOWS_OF_MONEY,
        "collaboration": Why.WORKS_WITH_OTHERS,
        "wedding": Why.IS_ON_A_TEAM,
        "critical_only": Why.MISSES_NOTHING,
    }
)
_CHANNELS: Final[Mapping[RoleKind, Why]] = MappingProxyType(
    {
        RoleKind.COUPLE: Why.IS_TOLD_GENTLY,
        RoleKind.COORDINATOR: Why.IS_REACHED_ANYWHERE,
        RoleKind.SUPPLIER: Why.MISSES_NO_BUSINESS,
        RoleKind.STAFF: Why.WORKS_AT_A_DESK,
        RoleKind.OTHER: Why.GETS_NOTHING_UNASKED,
    }
)
_QUIET_HOURS: Final[Mapping[RoleKind, Why]] = MappingProxyType(
    {
        RoleKind.COUPLE: Why.SLEEPS_AT_NIGHT,
        RoleKind.COORDINATOR: Why.WORKS_LONG_DAYS,
        RoleKind.SUPPLIER: Why.SLEEPS_AT_NIGHT,
        RoleKind.STAFF: Why.IS_ON_DUTY,
        RoleKind.OTHER: Why.SLEEPS_AT_NIGHT,
    }
)
_EFFECTS: Final[Mapping[str, Callable[[Preferences], object]]] = MappingProxyType(
    {
        **{category.value: _is_on(category) for category in Category},
        "critical_only": lambda preferences: preferences.critical_only,
        "channels": lambda preferences: preferences.channels,
        # Of a window that is switched off nothing applies, and one in the directory's zone goes with that.
        "quiet_hours": lambda preferences: preferences.quiet_hours.window(""),
    }
)
"""What of the preferences applies at each path."""
