"""The presets of product.md, as they read there."""

from datetime import UTC, datetime, time

import pytest

from services.preferences.domain import Category, Channel
from services.preferences.presets import (
    SUPPLIER_ROLES,
    PersonalPreferences,
    Preferences,
    QuietHours,
    RoleSetting,
    preset_for,
)
from services.preferences.quiet_hours import QuietWindow

NOW = datetime(2026, 6, 10, tzinfo=UTC)
EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.PUSH


@pytest.mark.parametrize(
    ("role", "others", "quiet"),
    [
        ("couple", {EMAIL}, (21, 9)),
        ("coordinator", {EMAIL, SMS, PUSH}, (23, 6)),
        *((role, {EMAIL, PUSH}, (22, 7)) for role in sorted(SUPPLIER_ROLES)),
        ("admin", {EMAIL}, None),
        ("staff", {EMAIL}, None),
        ("drone-pilot", set(), None),
        ("supplier", {EMAIL, PUSH}, (22, 7)),
    ],
)
def test_each_role_has_its_preset(role: str, others: set[Channel], quiet: tuple[int, int] | None) -> None:
    """Channels besides realtime and in_app, and quiet hours; everything else is on."""
    start, end = quiet or (22, 8)
    expected = Preferences(
        categories=frozenset(Category),
        critical_only=False,
        channels=frozenset({Channel.REALTIME, Channel.IN_APP, *others}),
        quiet_hours=QuietHours(quiet is not None, time(start), time(end)),
    )
    assert expected == preset_for(role)


def test_quiet_hours_follow_the_directory_until_they_have_a_zone_of_their_own() -> None:
    """The zone of the person's entry counts unless they chose another; switched off, there is no window."""
    hours = QuietHours(True, time(21), time(9, 30))
    assert hours.window("Europe/Vienna") == QuietWindow("Europe/Vienna", 21 * 60, 9 * 60 + 30)
    abroad = QuietHours(True, time(21), time(9, 30), "Asia/Tokyo")
    assert abroad.window("Europe/Vienna") == QuietWindow("Asia/Tokyo", 21 * 60, 9 * 60 + 30)
    assert QuietHours(False, time(21), time(9)).window("Europe/Vienna") is None


def test_a_role_without_a_setting_differs_in_nothing() -> None:
    """What is set for one role says nothing about another."""
    muted = RoleSetting("florist", ("trial.ending",))
    preferences = Preferences(
        frozenset(), False, frozenset(), QuietHours(False, time(22), time(8)), role_settings=(muted,)
    )
    assert preferences.setting_for("florist") == muted
    assert preferences.setting_for("venue") == RoleSetting("venue")


def test_an_etag_names_a_version_or_a_roles_preset() -> None:
    """Who changes role before their first edit holds another preset, and so another etag."""
    assert PersonalPreferences("venue", preset_for("venue"), 7, NOW).etag == "7"
    presets = {PersonalPreferences(role, preset_for(role)).etag for role in ("venue", "florist")}
    assert len(presets) == 2


def test_a_reset_goes_back_to_the_preset_and_never_to_an_etag_of_before() -> None:
    """Values and mark are those of somebody who never edited; every version on the way has an etag of its own."""
    fresh = PersonalPreferences("couple", preset_for("couple"))
    edited = fresh.edited(preset_for("venue"), NOW)
    reset = edited.reset()
    again = reset.edited(preset_for("venue"), NOW)
    assert (reset.values, reset.is_edited, reset.update_time) == (fresh.values, False, None)
    assert (edited.values, edited.is_edited) == (again.values, True)
    assert len({each.etag for each in (fresh, edited, reset, again, again.reset())}) == 5
    assert (fresh.reset(), reset.reset()) == (fresh, reset)
