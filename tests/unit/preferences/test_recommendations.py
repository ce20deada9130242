"""What is recommended to each role of product.md's table, and what of it differs from what somebody has."""

from dataclasses import replace
from datetime import time
from uuid import UUID

import pytest

from services.preferences.domain import Category, Channel
from services.preferences.editing import EDITS
from services.preferences.presets import QuietHours, RoleSetting, WeddingFilter, preset_for
from services.preferences.recommendations import Why, recommendations, recommended

PATHS = ["system", "business", "collaboration", "wedding", "critical_only", "channels", "quiet_hours"]
NONE = QuietHours(False, time(22), time(8))
NIGHTS = {
    "couple": (QuietHours(True, time(21), time(9)), Why.SLEEPS_AT_NIGHT),
    "coordinator": (QuietHours(True, time(23), time(6)), Why.WORKS_LONG_DAYS),
    "florist": (QuietHours(True, time(22), time(7)), Why.SLEEPS_AT_NIGHT),
    "admin": (NONE, Why.IS_ON_DUTY),
    "staff": (NONE, Why.IS_ON_DUTY),
    "drone-pilot": (QuietHours(True, time(22), time(8)), Why.SLEEPS_AT_NIGHT),
}


@pytest.mark.parametrize("role", NIGHTS)
def test_the_preset_is_recommended_and_to_any_other_role_quiet_nights(role: str) -> None:
    """Of any other role's preset, which has no quiet hours, 22:00-08:00 is what differs; of the others nothing."""
    preset, (night, why) = preset_for(role), NIGHTS[role]
    assert recommended(role, preset) == replace(preset, quiet_hours=night)
    told = recommendations(role, preset)
    assert [each.path for each in told] == PATHS
    assert [each.path for each in told if each.differs] == (["quiet_hours"] if role == "drone-pilot" else [])
    assert told[-1].why is why


@pytest.mark.parametrize("role", NIGHTS)
def test_what_was_recommended_and_taken_is_recommended_no_more(role: str) -> None:
    """Every path is one that a mask may name, and once all is as recommended nothing differs."""
    taken = recommended(role, preset_for("couple"))
    assert not any(each.differs for each in recommendations(role, taken))
    assert {each.path for each in recommendations(role, taken)} <= EDITS.keys()


def test_each_value_is_compared_by_itself() -> None:
    """A category, critical only, channels, and quiet hours as they have effect."""
    venue = preset_for("venue")
    for path, other in {
        "business": replace(venue, categories=frozenset(Category) - {Category.BUSINESS}),
        "critical_only": replace(venue, critical_only=True),
        "channels": replace(venue, channels=frozenset({Channel.IN_APP})),
        "quiet_hours": replace(venue, quiet_hours=replace(venue.quiet_hours, time_zone="Asia/Tokyo")),
    }.items():
        assert [each.path for each in recommendations("venue", other) if each.differs] == [path]
    off = replace(preset_for("admin"), quiet_hours=QuietHours(False, time(1), time(2)))
    assert not any(each.differs for each in recommendations("admin", off))


def test_settings_by_role_and_wedding_stay() -> None:
    """Nothing is recommended of them, so whoever takes all keeps them."""
    own = replace(
        preset_for("couple"),
        role_settings=(RoleSetting("couple", ("trial.ending",)),),
        wedding_filters=(WeddingFilter(UUID(int=1), muted=True),),
    )
    wanted = recommended("florist", own)
    assert (wanted.role_settings, wanted.wedding_filters) == (own.role_settings, own.wedding_filters)
