"""Partial updates: what each path changes, and what may not be saved."""

from datetime import time
from uuid import UUID

import pytest

from services.preferences.domain import Category, Channel
from services.preferences.editing import (
    EDITS,
    GivenPreferences,
    GivenQuietHours,
    changed_weddings,
    edit,
    require_reach,
)
from services.preferences.presets import Preferences, QuietHours, RoleSetting, WeddingFilter, preset_for
from shared.errors import InvalidField, OutsideReach

COUPLE = preset_for("couple")
ONE, TWO = UUID(int=1), UUID(int=2)
GIVEN = GivenPreferences(
    categories=frozenset({Category.WEDDING}),
    critical_only=True,
    channels=frozenset({Channel.PUSH}),
    quiet_hours=GivenQuietHours(True, time(20), time(6), "Asia/Tokyo"),
    role_settings=(RoleSetting("couple", ("trial.ending",)),),
    wedding_filters=(WeddingFilter(ONE, muted=True),),
)


def _refused(given: GivenPreferences, *paths: str) -> list[str]:
    with pytest.raises(InvalidField) as refusal:
        edit(COUPLE, given, paths)
    return [violation.field for violation in refusal.value.violations]


@pytest.mark.parametrize("path", sorted(EDITS))
def test_a_path_changes_what_it_names_and_nothing_else(path: str) -> None:
    """Each path of the mask moves its own part from the request; the rest stays."""
    edited = edit(COUPLE, GIVEN, [path])
    parts = {
        "system": COUPLE.categories - {Category.SYSTEM} == edited.categories,
        "business": COUPLE.categories - {Category.BUSINESS} == edited.categories,
        "collaboration": COUPLE.categories - {Category.COLLABORATION} == edited.categories,
        "wedding": COUPLE.categories == edited.categories,
        "critical_only": edited.critical_only,
        "channels": edited.channels == {Channel.PUSH, Channel.IN_APP},
        "quiet_hours": edited.quiet_hours == QuietHours(True, time(20), time(6), "Asia/Tokyo"),
        "quiet_hours.*": edited.quiet_hours == QuietHours(True, time(20), time(6), "Asia/Tokyo"),
        "quiet_hours.enabled": edited.quiet_hours == COUPLE.quiet_hours,
        "quiet_hours.start": edited.quiet_hours == QuietHours(True, time(20), time(9)),
        "quiet_hours.end": edited.quiet_hours == QuietHours(True, time(21), time(6)),
        "quiet_hours.time_zone": edited.quiet_hours == QuietHours(True, time(21), time(9), "Asia/Tokyo"),
        "role_settings": edited.role_settings == GIVEN.role_settings,
        "wedding_filters": edited.wedding_filters == GIVEN.wedding_filters,
        "*": edited
        == Preferences(
            GIVEN.categories,
            True,
            frozenset({Channel.PUSH, Channel.IN_APP}),
            QuietHours(True, time(20), time(6), "Asia/Tokyo"),
            GIVEN.role_settings,
            GIVEN.wedding_filters,
        ),
    }
    assert parts[path]
    untouched = {
        name: (getattr(COUPLE, name), getattr(edited, name))
        for name in (
            "categories",
            "critical_only",
            "channels",
            "quiet_hours",
            "role_settings",
            "wedding_filters",
        )
        if path != "*" and not path.startswith(name) and not (name == "categories" and path in list(Category))
    }
    assert all(before == after for before, after in untouched.values())


def test_what_a_client_may_send_back_is_ignored() -> None:
    """Naming the etag or the server's own fields changes nothing and is no mistake."""
    assert edit(COUPLE, GIVEN, ["etag", "update_time", "edited"]) == COUPLE


def test_in_app_stays_on() -> None:
    """A list of channels without in_app has it all the same."""
    assert edit(COUPLE, GivenPreferences(), ["channels"]).channels == {Channel.IN_APP}


def test_leaving_quiet_hours_out_switches_them_off_and_keeps_the_window() -> None:
    """A full replacement without quiet hours is loud; the window waits to be switched on again."""
    assert edit(COUPLE, GivenPreferences(), ["*"]).quiet_hours == QuietHours(False, time(21), time(9))


def test_a_start_or_end_that_is_left_out_stays() -> None:
    """Switching on needs no times."""
    off = edit(COUPLE, GivenPreferences(quiet_hours=GivenQuietHours(False)), ["quiet_hours"])
    on = edit(off, GivenPreferences(quiet_hours=GivenQuietHours(True)), ["quiet_hours"])
    assert on.quiet_hours == QuietHours(True, time(21), time(9))


def test_an_empty_zone_goes_back_to_the_directorys() -> None:
    """A zone of one's own can be given up."""
    abroad = edit(COUPLE, GIVEN, ["quiet_hours.time_zone"])
    assert edit(abroad, GivenPreferences(), ["quiet_hours.time_zone"]).quiet_hours == COUPLE.quiet_hours


def test_a_window_without_length_is_refused() -> None:
    """Start and end must differ, also when only one of them is sent."""
    given = GivenPreferences(quiet_hours=GivenQuietHours(start=time(9)))
    assert _refused(given, "quiet_hours.start") == ["preferences.quiet_hours.end"]


def test_every_mistake_is_told_at_once() -> None:
    """Unknown paths, zones and types, and what is there twice."""
    given = GivenPreferences(
        quiet_hours=GivenQuietHours(time_zone="Mars/Olympus"),
        role_settings=(RoleSetting("venue", ("trial.ending", "Trial!")), RoleSetting("venue")),
        wedding_filters=(WeddingFilter(ONE), WeddingFilter(TWO), WeddingFilter(ONE)),
    )
    assert _refused(given, "business", "sleep", "quiet_hours.start") == [
        "update_mask",
        "preferences.quiet_hours.start",
        "preferences.quiet_hours.time_zone",
        "preferences.role_settings[0].muted_types[1]",
        "preferences.role_settings[1].role",
        "preferences.wedding_filters[2].wedding_id",
    ]


def test_a_path_that_names_nothing_is_told_what_may_be_named() -> None:
    """Of a list the list, since that is replaced as a whole; else every path that there is."""
    with pytest.raises(InvalidField) as refusal:
        edit(COUPLE, GIVEN, ["role_settings.muted_types", "wedding_filters.*.muted", "quiet_hours.length"])
    into, wildcard, unknown = (violation.description for violation in refusal.value.violations)
    assert into.endswith("name 'role_settings'")
    assert wildcard.endswith("name 'wedding_filters'")
    assert "quiet_hours.enabled" in unknown


def test_filters_reach_as_far_as_ones_teams() -> None:
    """A new filter is for a wedding of one's own; one that is there already may stay after leaving the team."""
    mine = edit(COUPLE, GIVEN, ["wedding_filters"])
    require_reach(COUPLE, mine, [ONE])
    require_reach(mine, mine, [])
    with pytest.raises(OutsideReach):
        require_reach(COUPLE, mine, [TWO])


def test_the_weddings_of_changed_filters_are_known() -> None:
    """Added, removed and altered filters count; those that stay do not."""
    before = edit(COUPLE, GivenPreferences(wedding_filters=(WeddingFilter(ONE), WeddingFilter(TWO))), ["*"])
    after = edit(
        COUPLE, GivenPreferences(wedding_filters=(WeddingFilter(ONE, muted=True), WeddingFilter(TWO))), ["*"]
    )
    assert changed_weddings(before, after) == [ONE]
    assert changed_weddings(before, COUPLE) == [ONE, TWO]
