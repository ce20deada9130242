"""Owns what rows of the preferences service's tables mean: records in, domain values out, and edits back."""

from collections.abc import Iterable
from typing import Final
from uuid import UUID

from services.preferences.directory import KnownPerson, Person, UserType, WeddingStatus
from services.preferences.domain import Category, Channel
from services.preferences.index import (
    FilterGroup,
    PeopleGroups,
    SettingsGroup,
    StandingGroup,
    WindowGroup,
)
from services.preferences.presets import (
    PersonalPreferences,
    Preferences,
    QuietHours,
    RoleSetting,
    WeddingFilter,
    preset_for,
)
from services.preferences.quiet_hours import QuietWindow
from services.preferences.segments import Criteria, Segment, SegmentEntry, SegmentValues
from services.preferences.weddings import WeddingEntry
from shared.database import Row, Value

# From critical_only to the zone of quiet hours.
_NO_OTHER_VALUES: Final = (None,) * 6


def to_personal(row: Row) -> PersonalPreferences:
    """A row of `read_preferences`; without values while the preset holds."""
    if row["system"] is None:
        return PersonalPreferences(row["role"], preset_for(row["role"]), row["version"] or 0)
    values = Preferences(
        categories=_categories(row),
        critical_only=row["critical_only"],
        channels=to_channels(row["channels"]),
        quiet_hours=QuietHours(
            row["quiet_enabled"], row["quiet_start"], row["quiet_end"], row["quiet_time_zone"]
        ),
        role_settings=tuple(
            RoleSetting(each["role"], tuple(each["muted_types"]), to_channels(each["channels"]))
            for each in row["role_settings"] or ()
        ),
        wedding_filters=tuple(
            WeddingFilter(UUID(each["wedding_id"]), each["muted"], to_channels(each["channels"]))
            for each in row["wedding_filters"] or ()
        ),
    )
    return PersonalPreferences(row["role"], values, row["version"], row["update_time"])


def from_personal(personal: PersonalPreferences) -> tuple[Value, ...]:
    """The arguments of `save_preferences` from the categories to the wedding filters, in its order.

    While the preset holds there are none to keep.
    """
    if not personal.is_edited:
        return (*(None for _ in Category), *_NO_OTHER_VALUES, [], [])
    values, quiet = personal.values, personal.values.quiet_hours
    settings = [
        {"role": each.role, "muted_types": each.muted_types, "channels": sorted(each.channels)}
        for each in values.role_settings
    ]
    filters = [
        {"wedding_id": str(each.wedding_id), "muted": each.muted, "channels": sorted(each.channels)}
        for each in values.wedding_filters
    ]
    return (
        *(category in values.categories for category in Category),
        values.critical_only,
        sorted(values.channels),
        quiet.enabled,
        quiet.start,
        quiet.end,
        quiet.time_zone,
        settings,
        filters,
    )


def to_people_groups(rows: Iterable[Row]) -> PeopleGroups:
    """Rows of `list_people` or `find_people`, which sort the same people in three ways."""
    standings: list[StandingGroup] = []
    settings: list[SettingsGroup] = []
    windows: list[WindowGroup] = []
    for row in rows:
        if row["is_standing"]:
            standings.append(
                StandingGroup(row["role"], row["user_type"], row["tier"], row["erased"], row["numbers"])
            )
        elif not row["is_window"]:
            settings.append(_settings_group(row))
        elif (window := _window(row)) is not None:
            windows.append(WindowGroup(window, row["numbers"]))
    return PeopleGroups(tuple(standings), tuple(settings), tuple(windows))


def to_wedding_entry(row: Row) -> WeddingEntry:
    """A row of `list_weddings_after` or `find_weddings`."""
    return WeddingEntry(
        row["wedding_id"],
        row["couple_name"],
        row["wedding_date"],
        row["time_zone"],
        row["team_version"],
        row["numbers"],
        WeddingStatus(row["status"]),
    )


def to_filter_group(row: Row) -> FilterGroup:
    """A row of `find_filters`."""
    return FilterGroup(row["wedding_id"], row["muted"], to_channels(row["channels"]), row["numbers"])


def to_segment(row: Row) -> Segment:
    """A row of `find_segment` or `list_segments_after`, or what a change of one returns."""
    return Segment(
        row["segment_id"],
        SegmentValues(row["name"], row["description"], _criteria(row), row["is_active"]),
        row["version"],
        row["user_count"],
        row["user_count_time"],
        row["create_time"],
        row["update_time"],
    )


def from_segment(values: SegmentValues) -> tuple[Value, ...]:
    """The arguments of `add_segment` from the name to the days, in its order."""
    criteria = values.criteria
    return (
        values.name,
        values.description,
        values.is_active,
        criteria.roles,
        criteria.tiers,
        criteria.user_types,
        criteria.wedding_statuses,
        criteria.wedding_within_days,
    )


def to_segment_entry(row: Row) -> SegmentEntry:
    """A row of `list_segment_criteria` or `find_segment_criteria`."""
    return SegmentEntry(row["segment_id"], row["version"], row["is_active"], _criteria(row))


def to_known_person(row: Row) -> KnownPerson:
    """A row of `find_recipient`."""
    person = Person(
        row["user_id"],
        row["display_name"],
        row["role"],
        UserType(row["user_type"]),
        row["tier"],
        row["email"],
        row["phone"],
        row["time_zone"],
    )
    return KnownPerson(person, row["number"], row["update_time"])


def to_channels(names: Iterable[str]) -> frozenset[Channel]:
    """The channels of these names."""
    return frozenset(map(Channel, names))


def _criteria(row: Row) -> Criteria:
    return Criteria(
        tuple(row["roles"]),
        tuple(row["tiers"]),
        tuple(map(UserType, row["user_types"])),
        tuple(map(WeddingStatus, row["wedding_statuses"])),
        row["wedding_within_days"],
    )


def _settings_group(row: Row) -> SettingsGroup:
    if row["preset_role"] is not None:
        preset = preset_for(row["preset_role"])
        return SettingsGroup(preset.categories, preset.critical_only, (), preset.channels, row["numbers"])
    return SettingsGroup(
        _categories(row),
        row["critical_only"],
        tuple(row["muted_types"] or ()),
        # Channels set for the role count before the person's, unless there are none.
        to_channels(row["role_channels"] or row["channels"]),
        row["numbers"],
    )


def _window(row: Row) -> QuietWindow | None:
    """The quiet hours of a group: those of the preset, or those that were set; None when there are none."""
    if row["preset_role"] is not None:
        return preset_for(row["preset_role"]).quiet_hours.window(row["time_zone"])
    if row["quiet_start"] is None:
        return None
    return QuietHours(True, row["quiet_start"], row["quiet_end"]).window(row["time_zone"])


def _categories(row: Row) -> frozenset[Category]:
    return frozenset(category for category in Category if row[category.value])
