"""Going back to the preset, and taking what is recommended, through a real channel."""

import grpc
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, preferences_pb2

from tests.integration.preferences.moments import around_now
from tests.integration.preferences.site import Site, some_rules
from tests.integration.shared.edge import refusal_of


async def test_after_a_reset_everything_is_as_if_never_edited(site: Site) -> None:
    """Every value, the mark and the missing time; only the etag tells that there was something."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    preset = await site.get(person)
    edited = await site.edit(
        person,
        "*",
        critical_only=True,
        role_settings=[{"role": "photographer", "muted_types": ["trial.ending"]}],
        wedding_filters=[{"wedding_id": wedding_id, "muted": True}],
        quiet_hours={"enabled": True, "time_zone": "Asia/Tokyo"},
    )
    reset = await site.reset(person)
    assert reset == await site.get(person)
    assert len({preset.etag, edited.etag, reset.etag}) == 3
    reset.etag = preset.etag
    assert reset == preset


async def test_after_a_reset_the_preset_follows_the_role_again(site: Site) -> None:
    """That of the role they then have, not the one they had; the next edit starts from it."""
    person = await site.someone()
    await site.edit(person, "business", business=False)
    await site.reset(person)
    person.entry.role = "couple"
    await site.upsert(person.entry)
    assert (await site.get(person)).quiet_hours.start.hours == 21
    edited = await site.edit(person, "system", system=False)
    assert (edited.edited, edited.business, edited.quiet_hours.start.hours) == (True, True, 21)


async def test_a_reset_binds_what_is_decided_after_it(site: Site) -> None:
    """Muted before: suppressed. After the reset the same person hears it, and is found to have changed."""
    person = await site.someone(role="drone-pilot")
    wedding_id = await site.wedding(person)
    rules = some_rules(wedding_id=wedding_id)
    await site.edit(
        person,
        "quiet_hours",
        "wedding_filters",
        quiet_hours=around_now(),
        wedding_filters=[{"wedding_id": wedding_id, "muted": True}],
    )
    muted = await site.resolve_users([person], rules)
    await site.reset(person)
    again = await site.reevaluate([person.number], muted, rules)
    assert muted.outcomes("in_app") == {person.number: "suppressed:wedding_muted"}
    assert again.outcomes("in_app") == again.outcomes("realtime") == {person.number: "pending"}
    await site.restart()
    assert (await site.resolve_users([person], rules)).outcomes("realtime") == {person.number: "pending"}


async def test_nothing_that_was_set_is_left_behind(site: Site) -> None:
    """No row of a role or a wedding, and no value but the count of versions."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    await site.edit(
        person,
        "role_settings",
        "wedding_filters",
        role_settings=[{"role": "florist"}],
        wedding_filters=[{"wedding_id": wedding_id}],
    )
    await site.reset(person)
    counts = await site.admin.fetchrow(
        """SELECT
            (SELECT count(*) FROM preferences.role_settings WHERE recipient_number = $1) AS by_role,
            (SELECT count(*) FROM preferences.wedding_filters WHERE recipient_number = $1) AS by_wedding,
            (SELECT num_nonnulls(system, channels, quiet_start, quiet_time_zone, critical_only)
             FROM preferences.preferences WHERE recipient_number = $1) AS of_their_own""",
        person.number,
    )
    assert counts is not None
    assert tuple(counts) == (0, 0, 0)


async def test_only_the_version_that_was_named_is_reset(site: Site) -> None:
    """An old etag is ABORTED and changes nothing; one from before a reset is old for good."""
    person = await site.someone()
    preset = (await site.get(person)).etag
    first = await site.edit(person, "business", business=False, etag=preset)
    refusal = await refusal_of(site.reset(person, etag=preset))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await site.get(person)) == first
    await site.reset(person, etag=first.etag)
    second = await site.edit(person, "system", system=False)
    for old in (preset, first.etag):
        refusal = await refusal_of(site.edit(person, "system", system=True, etag=old))
        assert refusal.reason == "STALE_ETAG"
    assert await site.get(person) == second


async def test_to_reset_what_nobody_edited_changes_nothing(site: Site) -> None:
    """Neither the etag nor the log, however often."""
    person = await site.someone()
    before = await site.get(person), await site.admin.fetchval("SELECT position FROM preferences.log_head")
    assert await site.reset(person) == await site.reset(person) == before[0]
    assert await site.admin.fetchval("SELECT position FROM preferences.log_head") == before[1]


async def test_a_reset_is_logged_without_saying_of_whom(site: Site) -> None:
    """As an edit of everything that ends edits."""
    person = await site.someone()
    await site.edit(person, "business", business=False)
    with capture_logs() as lines:
        await site.reset(person)
    [event] = [line for line in lines if line["event"] == "preferences_changed"]
    assert event == {
        "event": "preferences_changed",
        "log_level": "info",
        "recipient_number": person.number,
        "fields": ["*"],
        "first_edit": False,
        "is_reset": True,
    }


async def _take(site: Site, user_id: str, wanted: preferences_pb2.Preferences, *paths: str) -> object:
    request = preferences_pb2.UpdatePreferencesRequest(preferences=wanted)
    request.update_mask.paths.extend(paths)
    return await site.preferences.UpdatePreferences(request, metadata=site.person(user_id))


async def test_what_is_recommended_is_taken_by_one_call(site: Site) -> None:
    """Somebody of any other role is offered quiet nights; what they have set by wedding stays when they take all."""
    person = await site.someone(role="drone-pilot")
    wedding_id = await site.wedding(person)
    filters = [preferences_pb2.WeddingFilter(wedding_id=wedding_id, muted=True)]
    await site.edit(person, "business", "wedding_filters", wedding_filters=filters)
    offered = await site.recommended(person)
    differing = {each.path: each.reason for each in offered.recommendations if each.differs}
    assert differing == {
        "business": preferences_pb2.RECOMMENDATION_REASON_KNOWS_OF_MONEY,
        "quiet_hours": preferences_pb2.RECOMMENDATION_REASON_SLEEPS_AT_NIGHT,
    }
    assert all(each.explanation for each in offered.recommendations)
    await _take(site, person.user_id, offered.preferences, "*")
    found = await site.get(person)
    hours = found.quiet_hours
    assert (found.business, hours.enabled, hours.start.hours, hours.end.hours) == (True, True, 22, 8)
    assert list(found.wedding_filters) == filters
    assert not any(each.differs for each in (await site.recommended(person)).recommendations)


async def test_one_recommendation_is_taken_alone(site: Site) -> None:
    """By its path; and not when somebody has edited in the meantime."""
    person = await site.someone(role="drone-pilot")
    await site.edit(person, "business", "critical_only", critical_only=True)
    offered = (await site.recommended(person)).preferences
    await _take(site, person.user_id, offered, "quiet_hours")
    found = await site.get(person)
    assert (found.quiet_hours.enabled, found.business, found.critical_only) == (True, False, True)
    refusal = await refusal_of(_take(site, person.user_id, offered, "*"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")


async def test_a_preset_is_what_is_recommended_to_its_role(site: Site) -> None:
    """So taking it leaves the preset in place, which goes on following the role."""
    person = await site.someone(role="couple")
    offered = await site.recommended(person)
    assert list(offered.preferences.channels) == [
        common_pb2.CHANNEL_REALTIME,
        common_pb2.CHANNEL_IN_APP,
        common_pb2.CHANNEL_EMAIL,
    ]
    await _take(site, person.user_id, offered.preferences, "*")
    assert not (await site.get(person)).edited


async def test_an_etag_of_the_longest_role_can_be_sent_back(site: Site) -> None:
    """A role has up to 64 letters, and the etag of its preset names it."""
    person = await site.someone(role="x" * 64)
    preset = await site.get(person)
    assert (await site.edit(person, "business", etag=preset.etag)).edited
