"""What has changed for members of an audience since they were decided about."""

import grpc
import pytest
from google.type.date_pb2 import Date
from wedsync.broadcast.v1 import audience_pb2, common_pb2, directory_pb2

from shared.audience import Audience
from tests.integration.preferences.moments import around_now, far_from_now, near_day
from tests.integration.preferences.site import Site, a_wedding, a_word, some_rules
from tests.integration.shared.edge import refusal_of

HIGH = common_pb2.PRIORITY_HIGH


async def test_those_who_have_not_changed_are_not_decided_again(site: Site) -> None:
    """Nothing changed: no slice. One person edits: only they are decided again."""
    people = [await site.someone() for _ in range(3)]
    numbers = [person.number for person in people]
    since = await site.resolve_users(people)
    assert (await site.reevaluate(numbers, since)).slices == []
    await site.edit(people[1], "system", system=False)
    await site.edit(await site.someone(), "system", system=False)
    again = await site.reevaluate(numbers, since)
    assert again.outcomes("in_app") == {people[1].number: "suppressed:category_muted"}
    assert again.directory_version > since.directory_version


async def test_version_zero_decides_all_again(site: Site) -> None:
    """As when a hold ends."""
    people = [await site.someone() for _ in range(2)]
    await site.edit(people[0], "system", system=False)
    again = await site.reevaluate([person.number for person in people])
    assert again.outcomes("in_app") == {
        people[0].number: "suppressed:category_muted",
        people[1].number: "pending",
    }


async def test_who_is_off_the_wall_is_outside_whenever_they_left(site: Site) -> None:
    """Taken off a team they are OUTSIDE_WALL on every channel; back on it, nothing is said of them."""
    one, two = await site.someone(), await site.someone()
    wedding_id = await site.wedding(one, two)
    rules = some_rules(wall_wedding_ids=[wedding_id])
    since = await site.resolve(common_pb2.Targeting(wedding_ids=[wedding_id]), rules)
    await site.set_team(wedding_id, one)
    gone = await site.reevaluate([one.number, two.number], since, rules)
    assert gone.outcomes("realtime") == gone.outcomes("in_app") == {two.number: "suppressed:outside_wall"}
    await site.set_team(wedding_id, one, two)
    assert (await site.reevaluate([one.number, two.number], since, rules)).slices == []


async def test_who_is_left_with_a_muted_wedding_is_decided_again(site: Site) -> None:
    """Of a broadcast to two teams they heard by the one that they did not mute; off that, they hear nothing of it."""
    person = await site.someone(role="drone-pilot")
    muted, heard = await site.wedding(person), await site.wedding(person)
    filters = [{"wedding_id": muted, "muted": True}]
    await site.edit(person, "wedding_filters", wedding_filters=filters)
    rules = some_rules(wall_wedding_ids=[muted, heard])
    since = await site.resolve_users([person], rules)
    await site.set_team(heard)
    again = await site.reevaluate([person.number], since, rules)
    assert since.outcomes("in_app") == {person.number: "pending"}
    assert again.outcomes("in_app") == {person.number: "suppressed:wedding_muted"}


async def test_the_erased_get_nothing(site: Site) -> None:
    """Not meant in a new audience, ERASED in an old one, unknown to every lookup."""
    person, other = await site.someone(), await site.someone()
    since = await site.resolve_users([person, other])
    await site.admin.execute(
        "UPDATE preferences.recipients SET erased_at = now() WHERE number = $1", person.number
    )
    await site.admin.execute(
        "SELECT preferences.append_log('recipients', $1)", Audience.of([person.number]).to_bytes()
    )
    again = await site.reevaluate([person.number, other.number], since)
    assert again.outcomes("in_app") == {person.number: "suppressed:erased"}
    fresh = await site.resolve_users([person, other])
    assert (set(fresh.outcomes("in_app")), fresh.unknown_user_ids) == ({other.number}, 1)


async def test_numbers_of_nobody_are_not_in_the_audience(site: Site) -> None:
    """A member that the directory never had."""
    again = await site.reevaluate([2_000_000_000])
    assert again.outcomes("in_app") == {2_000_000_000: "suppressed:not_in_audience"}


async def test_a_window_that_began_since_is_found(site: Site) -> None:
    """Nobody edited anything; only time has passed."""
    person, other = await site.someone(), await site.someone()
    await site.edit(person, "quiet_hours", quiet_hours=around_now())
    await site.edit(other, "quiet_hours", quiet_hours=far_from_now())
    since = await site.resolve_users([person, other])
    two_hours_ago = since.decide_time_ns - int(2 * 3600 * 1e9)
    again = await site.reevaluate([person.number, other.number], since, since_time_ns=two_hours_ago)
    assert again.outcomes("realtime") == {person.number: "held"}


async def test_a_wedding_that_gets_another_date_is_decided_again(site: Site) -> None:
    """Moved to today, a wedding's high and essential broadcasts wake its whole team."""
    person = await site.someone()
    await site.edit(person, "quiet_hours", quiet_hours=around_now())
    wedding_id = await site.wedding(person, wedding_date=Date(year=2099, month=6, day=5))
    rules = some_rules(wedding_id=wedding_id, priority=HIGH, essential=True)
    since = await site.resolve_users([person], rules)
    moved = a_wedding(wedding_id=wedding_id, time_zone="UTC", wedding_date=near_day())
    await site.directory.UpsertWeddings(
        directory_pb2.UpsertWeddingsRequest(weddings=[moved]), metadata=site.service("directory.write")
    )
    again = await site.reevaluate([person.number], since, rules)
    assert since.outcomes("realtime") == {person.number: "held"}
    assert again.outcomes("realtime") == {person.number: "pending"}


async def test_changes_from_before_a_restart_are_read_from_the_log(site: Site) -> None:
    """A version that is older than what the process remembers is answered from the table."""
    people = [await site.someone() for _ in range(3)]
    since = await site.resolve_users(people)
    await site.edit(people[2], "system", system=False)
    await site.restart()
    again = await site.reevaluate([person.number for person in people], since)
    assert again.outcomes("in_app") == {people[2].number: "suppressed:category_muted"}


async def test_a_reload_entry_decides_everybody_again(site: Site) -> None:
    """Tables that were loaded by hand are read anew once the log says so."""
    people = [await site.someone() for _ in range(2)]
    since = await site.resolve_users(people)
    tier = a_word("tier")
    await site.admin.execute(
        "UPDATE preferences.recipients SET tier = $2 WHERE number = $1", people[0].number, tier
    )
    assert (await site.count(tiers=[tier])).targeted == 0
    await site.admin.execute("SELECT preferences.append_log('reload', '')")
    assert (await site.count(tiers=[tier])).targeted == 1
    again = await site.reevaluate([person.number for person in people], since)
    assert set(again.outcomes("in_app")) == {person.number for person in people}


async def test_a_log_that_was_cut_off_is_no_obstacle(site: Site) -> None:
    """Entries gone before they were read, and a version that this log never had: everything is read or decided anew."""
    person = await site.someone()
    since = await site.resolve_users([person])
    tier = a_word("tier")
    await site.admin.execute(
        "UPDATE preferences.recipients SET tier = $2 WHERE number = $1", person.number, tier
    )
    async with site.admin.transaction():
        await site.admin.execute(
            "SELECT preferences.append_log('reload', ''), preferences.append_log('reload', '')"
        )
        await site.admin.execute("DELETE FROM preferences.log")
    assert (await site.count(tiers=[tier])).targeted == 1
    since.directory_version += 1_000_000
    assert set((await site.reevaluate([person.number], since)).outcomes("in_app")) == {person.number}


@pytest.mark.parametrize("members", [b"", b"nonsense", Audience.of([1]).to_bytes() + b"x"])
async def test_broken_members_are_refused(site: Site, members: bytes) -> None:
    """Bytes that are no bitmap are the caller's mistake."""
    request = audience_pb2.ReevaluateAudienceRequest(members=members, rules=some_rules())
    stream = site.audience.ReevaluateAudience(request, metadata=site.service("internal"))
    refusal = await refusal_of(stream.read())
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("members",))


async def test_a_version_needs_its_time(site: Site) -> None:
    """Without the moment of the decision nobody knows whose quiet hours began since."""
    request = audience_pb2.ReevaluateAudienceRequest(
        members=Audience.of([1]).to_bytes(), since_version=1, rules=some_rules()
    )
    stream = site.audience.ReevaluateAudience(request, metadata=site.service("internal"))
    refusal = await refusal_of(stream.read())
    assert refusal.fields == ("since_time",)
