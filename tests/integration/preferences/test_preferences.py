"""People's own preferences, through a real channel."""

import asyncio

import grpc
from google.type.timeofday_pb2 import TimeOfDay
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, preferences_pb2

from tests.integration.preferences.site import Site
from tests.integration.shared.edge import refusal_of

IN_APP, REALTIME, PUSH, EMAIL = (
    common_pb2.CHANNEL_IN_APP,
    common_pb2.CHANNEL_REALTIME,
    common_pb2.CHANNEL_PUSH,
    common_pb2.CHANNEL_EMAIL,
)


async def test_until_edited_the_roles_preset_holds(site: Site) -> None:
    """A photographer's preset, marked as not edited."""
    found = await site.get(await site.someone())
    assert (found.edited, found.HasField("update_time"), found.system) == (False, False, True)
    assert list(found.channels) == [REALTIME, IN_APP, EMAIL, PUSH]
    hours = found.quiet_hours
    assert (hours.enabled, hours.start.hours, hours.end.hours, hours.time_zone) == (True, 22, 7, "")


async def test_a_preset_follows_the_role(site: Site) -> None:
    """Who becomes a couple gets a couple's preset, until they edit theirs."""
    person = await site.someone()
    person.entry.role = "couple"
    await site.upsert(person.entry)
    assert (await site.get(person)).quiet_hours.start.hours == 21
    await site.edit(person, "business", business=False)
    person.entry.role = "coordinator"
    await site.upsert(person.entry)
    assert (await site.get(person)).quiet_hours.start.hours == 21


async def test_the_first_edit_starts_from_the_preset(site: Site) -> None:
    """What the mask does not name is as the preset has it, and stays."""
    person = await site.someone(role="couple")
    edited = await site.edit(person, "business", business=False)
    assert (edited.edited, edited.business, edited.system, edited.quiet_hours.start.hours) == (
        True,
        False,
        True,
        21,
    )
    assert await site.get(person) == edited


async def test_nested_fields_are_edited_one_by_one(site: Site) -> None:
    """`quiet_hours.enabled` leaves the window; `quiet_hours.end` leaves the start."""
    person = await site.someone()
    off = await site.edit(person, "quiet_hours.enabled")
    assert (off.quiet_hours.enabled, off.quiet_hours.start.hours) == (False, 22)
    later = await site.edit(person, "quiet_hours.end", quiet_hours={"end": TimeOfDay(hours=8, minutes=30)})
    assert (later.quiet_hours.enabled, later.quiet_hours.start.hours) == (False, 22)
    assert (later.quiet_hours.end.hours, later.quiet_hours.end.minutes) == (8, 30)


async def test_without_a_mask_what_is_set_is_changed(site: Site) -> None:
    """No mask means the fields that have a value (AIP-134)."""
    person = await site.someone()
    edited = await site.edit(person, critical_only=True, quiet_hours={"time_zone": "Asia/Tokyo"})
    assert (edited.critical_only, edited.system, edited.quiet_hours.enabled) == (True, True, True)
    assert edited.quiet_hours.time_zone == "Asia/Tokyo"


async def test_a_star_replaces_everything(site: Site) -> None:
    """`*` also switches off what is not given; in_app cannot be."""
    person = await site.someone()
    edited = await site.edit(person, "*", wedding=True)
    assert (edited.system, edited.business, edited.wedding, edited.quiet_hours.enabled) == (
        False,
        False,
        True,
        False,
    )
    assert list(edited.channels) == [IN_APP]


async def test_settings_by_role_and_wedding_are_kept(site: Site) -> None:
    """Muted types and channels by role, and filters of one's own weddings; in_app is always among channels."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    edited = await site.edit(
        person,
        "role_settings",
        "wedding_filters",
        role_settings=[{"role": "photographer", "muted_types": ["trial.ending"], "channels": [PUSH]}],
        wedding_filters=[{"wedding_id": wedding_id, "muted": True}],
    )
    assert edited == await site.get(person)
    [setting], [wedding_filter] = edited.role_settings, edited.wedding_filters
    assert (list(setting.muted_types), list(setting.channels)) == (["trial.ending"], [IN_APP, PUSH])
    assert (wedding_filter.wedding_id, wedding_filter.muted, list(wedding_filter.channels)) == (
        wedding_id,
        True,
        [],
    )


async def test_a_filter_of_a_wedding_beyond_ones_reach_is_refused(site: Site) -> None:
    """Whether the wedding exists cannot be told from the refusal."""
    person, other = await site.someone(), await site.someone()
    refusals = [
        await refusal_of(site.edit(person, "wedding_filters", wedding_filters=[{"wedding_id": wedding_id}]))
        for wedding_id in (await site.wedding(other), "7b0c2a34-6d6e-4a3e-8a3b-1f1a2b3c4d5e")
    ]
    assert refusals[0] == refusals[1]
    assert (refusals[0].code, refusals[0].reason) == (grpc.StatusCode.PERMISSION_DENIED, "OUTSIDE_REACH")


async def test_a_filter_outlives_leaving_the_team(site: Site) -> None:
    """Who was taken off a team may still edit the rest of their preferences, filters and all."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    mine = await site.edit(person, "wedding_filters", wedding_filters=[{"wedding_id": wedding_id}])
    await site.set_team(wedding_id)
    mine.business = False
    request = preferences_pb2.UpdatePreferencesRequest(preferences=mine)
    request.update_mask.paths.append("*")
    answer = await site.preferences.UpdatePreferences(request, metadata=site.person(person.user_id))
    assert answer.preferences.wedding_filters[0].wedding_id == wedding_id


async def test_an_old_etag_is_aborted(site: Site) -> None:
    """An edit on an old version is refused and changes nothing; on the present one it is taken."""
    person = await site.someone()
    preset = (await site.get(person)).etag
    first = await site.edit(person, "business", business=False, etag=preset)
    refusal = await refusal_of(site.edit(person, "system", system=False, etag=preset))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    second = await site.edit(person, "system", system=False, etag=first.etag)
    assert (second.business, second.system, second.etag != first.etag) == (False, False, True)


async def test_edits_at_the_same_time_are_all_kept(site: Site) -> None:
    """Without an etag nobody's edit of another field is lost."""
    person = await site.someone()
    await asyncio.gather(
        site.edit(person, "system"),
        site.edit(person, "business"),
        site.edit(person, "critical_only", critical_only=True),
    )
    found = await site.get(person)
    assert (found.system, found.business, found.collaboration, found.critical_only) == (
        False,
        False,
        True,
        True,
    )


async def test_an_edit_that_changes_nothing_leaves_the_etag(site: Site) -> None:
    """A repeated update is harmless."""
    person = await site.someone()
    once = await site.edit(person, "business", business=False)
    assert await site.edit(person, "business", business=False) == once


async def test_every_broken_field_is_named(site: Site) -> None:
    """Start equal to end, a zone that does not exist, and a path that does not."""
    refusal = await refusal_of(
        site.edit(
            await site.someone(),
            "quiet_hours",
            "sleep",
            quiet_hours={
                "start": TimeOfDay(hours=7),
                "end": TimeOfDay(hours=7),
                "time_zone": "Europe/Gotham",
            },
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refusal.fields) == {
        "update_mask",
        "preferences.quiet_hours.time_zone",
        "preferences.quiet_hours.end",
    }


async def test_seconds_in_quiet_hours_are_refused(site: Site) -> None:
    """Windows are to the minute."""
    refusal = await refusal_of(
        site.edit(await site.someone(), "quiet_hours", quiet_hours={"start": TimeOfDay(hours=7, seconds=1)})
    )
    assert refusal.fields == ("preferences.quiet_hours.start",)


async def test_nobody_the_directory_does_not_know_has_preferences(site: Site) -> None:
    """A good token of a stranger: NOT_FOUND."""
    refusal = await refusal_of(
        site.preferences.GetPreferences(
            preferences_pb2.GetPreferencesRequest(),
            metadata=site.person("0d9f3a52-9f0c-4c0e-9e71-3f9a4c3f5b11"),
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_service_has_no_preferences(site: Site) -> None:
    """Whatever its scopes."""
    refusal = await refusal_of(
        site.preferences.GetPreferences(
            preferences_pb2.GetPreferencesRequest(), metadata=site.service("internal", "directory.admin")
        )
    )
    assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_change_is_logged_without_saying_of_whom(site: Site) -> None:
    """The event names the fields and a number, and neither a user id nor a setting."""
    person = await site.someone()
    with capture_logs() as lines:
        await site.edit(person, "business", business=False)
    [event] = [line for line in lines if line["event"] == "preferences_changed"]
    assert event == {
        "event": "preferences_changed",
        "log_level": "info",
        "recipient_number": person.number,
        "fields": ["business"],
        "first_edit": True,
        "is_reset": False,
    }
