"""Audiences through a real channel: who is meant, what they get, and what has changed since."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from google.type.date_pb2 import Date
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1 import audience_pb2, common_pb2

from shared.audience import Audience
from tests.integration.preferences.moments import around_now, far_from_now, near_day
from tests.integration.preferences.site import Site, a_word, some_rules
from tests.integration.shared.edge import refusal_of

ABSENT = "3f2b8f58-52b3-4a44-9c7e-0b6b5ad5b9a1"
CRITICAL, HIGH = common_pb2.PRIORITY_CRITICAL, common_pb2.PRIORITY_HIGH


async def test_an_audience_is_the_union_of_what_is_named(site: Site) -> None:
    """Users, roles and tiers add up; unknown users are counted; nobody is counted twice."""
    one = await site.someone(role=a_word("role"))
    two = await site.someone(tier=a_word("tier"), role="florist")
    three = await site.someone()
    answer = await site.resolve(
        common_pb2.Targeting(
            user_ids=[three.user_id, one.user_id, ABSENT, three.user_id],
            roles=[one.entry.role, "no-such-role"],
            tiers=[two.entry.tier],
        )
    )
    assert set(answer.outcomes("in_app")) == {one.number, two.number, three.number}
    assert (answer.targeted, answer.unknown_user_ids) == (3, 1)


async def test_the_wall_cuts_silently(site: Site) -> None:
    """With weddings, only those on their teams are meant; with weddings alone, the teams are."""
    role = a_word("role")
    one, two = await site.someone(role=role), await site.someone(role=role)
    member = await site.someone()
    wedding_id = await site.wedding(one, member)
    both = await site.resolve(common_pb2.Targeting(roles=[role], wedding_ids=[wedding_id]))
    assert (set(both.outcomes("in_app")), both.targeted) == ({one.number}, 1)
    team = await site.resolve(common_pb2.Targeting(wedding_ids=[wedding_id]))
    assert set(team.outcomes("in_app")) == {one.number, member.number}
    everyone = await site.count(everyone=True, wedding_ids=[wedding_id])
    assert everyone.targeted == 2
    assert everyone.outside_user_ids == 0
    assert two.number not in team.outcomes("realtime")


async def test_users_outside_the_wall_are_counted_apart_from_unknown_ones(site: Site) -> None:
    """Each once, for whoever may not tell the ones from the others."""
    member, stranger = await site.someone(), await site.someone()
    user_ids = [member.user_id, stranger.user_id, stranger.user_id, ABSENT]
    bounded = {"user_ids": user_ids, "wedding_ids": [await site.wedding(member)]}
    for answer in (await site.count(**bounded), await site.resolve(common_pb2.Targeting(**bounded))):
        assert (answer.targeted, answer.unknown_user_ids, answer.outside_user_ids) == (1, 1, 1)
    unbounded = await site.count(user_ids=user_ids)
    assert (unbounded.targeted, unbounded.unknown_user_ids, unbounded.outside_user_ids) == (2, 1, 0)


async def test_what_a_broadcast_is_about_bounds_it_too(site: Site) -> None:
    """The rules' wedding and wall bound the audience even when the targeting names no wedding."""
    one, two = await site.someone(), await site.someone()
    wedding_id = await site.wedding(one)
    for rules in (some_rules(wedding_id=wedding_id), some_rules(wall_wedding_ids=[wedding_id])):
        answer = await site.resolve_users([one, two], rules)
        assert set(answer.outcomes("in_app")) == {one.number}


async def test_everyone_is_everyone(site: Site) -> None:
    """Nobody is left out, and the counts agree."""
    person = await site.someone()
    answer = await site.resolve(common_pb2.Targeting(everyone=True))
    known = await site.admin.fetchval("SELECT count(*) FROM preferences.recipients WHERE erased_at IS NULL")
    assert answer.targeted == known == (await site.count(everyone=True)).targeted
    assert person.number in answer.outcomes("realtime")


@pytest.mark.parametrize(
    ("targeting", "code", "field"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, ("targeting",)),
        ({"everyone": True, "roles": ["venue"]}, grpc.StatusCode.INVALID_ARGUMENT, ("targeting.everyone",)),
        ({"wedding_ids": [ABSENT]}, grpc.StatusCode.NOT_FOUND, ()),
        ({"segment_ids": [ABSENT]}, grpc.StatusCode.NOT_FOUND, ("targeting.segment_ids",)),
        ({"user_ids": [ABSENT] * 1_001}, grpc.StatusCode.RESOURCE_EXHAUSTED, ("targeting.user_ids",)),
        ({"user_ids": ["me"]}, grpc.StatusCode.INVALID_ARGUMENT, ("targeting.user_ids[0]",)),
    ],
)
async def test_bad_targetings_are_refused(
    site: Site, targeting: dict[str, object], code: grpc.StatusCode, field: tuple[str, ...]
) -> None:
    """Nobody named, everyone and some, weddings and segments that do not exist, too many or broken ids."""
    refusal = await refusal_of(site.count(**targeting))
    assert (refusal.code, refusal.fields) == (code, field)


async def test_only_the_suites_own_services_ask(site: Site) -> None:
    """An admin and a service account with other scopes are refused."""
    admin = await site.someone(role="admin")
    request = audience_pb2.CountAudienceRequest(targeting=common_pb2.Targeting(everyone=True))
    for metadata in (site.person(admin.user_id), site.service("broadcast.send", "directory.admin")):
        refusal = await refusal_of(site.audience.CountAudience(request, metadata=metadata))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_channels_that_are_not_decided_about_are_refused(site: Site) -> None:
    """Email has no decision yet, and says so rather than answering for it."""
    request = audience_pb2.ResolveAudienceRequest(
        targeting=common_pb2.Targeting(everyone=True),
        rules=some_rules(),
        channels=[common_pb2.CHANNEL_IN_APP, common_pb2.CHANNEL_EMAIL],
    )
    stream = site.audience.ResolveAudience(request, metadata=site.service("internal"))
    refusal = await refusal_of(stream.read())
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("channels[1]",))


async def test_an_audience_of_nobody_has_one_empty_message(site: Site) -> None:
    """The answer still says when and at which version it was decided."""
    answer = await site.resolve(common_pb2.Targeting(roles=[a_word("role")]))
    assert (answer.slices, answer.targeted) == ([], 0)
    assert answer.directory_version > 0
    assert answer.decide_time_ns > 0


async def test_counts_alone_carry_no_members(site: Site) -> None:
    """What a preview needs, without the bitmaps."""
    person = await site.someone(role=a_word("role"))
    answer = await site.resolve(common_pb2.Targeting(roles=[person.entry.role]), counts_only=True)
    assert [(part.count, part.members) for part in answer.slices] == [(1, b""), (1, b"")]


async def test_what_people_muted_is_suppressed_with_its_reason(site: Site) -> None:
    """Each in the order of the rules: critical only, category, wedding, type, channel."""
    people = [await site.someone() for _ in range(6)]
    only, category, wedding, muted_type, channel, plain = people
    wedding_id = await site.wedding(*people)
    rules = some_rules(wedding_id=wedding_id)
    off: dict[str, object] = {"quiet_hours": far_from_now()}
    await site.edit(only, "critical_only", "system", "quiet_hours", critical_only=True, **off)
    await site.edit(category, "system", "quiet_hours", **off)
    await site.edit(
        wedding,
        "wedding_filters",
        "quiet_hours",
        wedding_filters=[{"wedding_id": wedding_id, "muted": True}],
        **off,
    )
    await site.edit(
        muted_type,
        "role_settings",
        "quiet_hours",
        role_settings=[{"role": "photographer", "muted_types": ["feature.released"]}],
        **off,
    )
    await site.edit(channel, "channels", "quiet_hours", channels=[common_pb2.CHANNEL_EMAIL], **off)
    await site.edit(plain, "quiet_hours", **off)
    expected = {
        only.number: "suppressed:critical_only",
        category.number: "suppressed:category_muted",
        wedding.number: "suppressed:wedding_muted",
        muted_type.number: "suppressed:type_muted",
        channel.number: "suppressed:channel_off",
        plain.number: "pending",
    }
    answer = await site.resolve_users(people, rules)
    assert answer.outcomes("realtime") == expected
    assert answer.outcomes("in_app") == expected | {channel.number: "pending"}
    essential = await site.resolve_users(people, some_rules(wedding_id=wedding_id, essential=True))
    assert essential.outcomes("realtime") == expected
    assert set(essential.outcomes("in_app").values()) == {"pending"}
    critical = await site.resolve_users(people, some_rules(wedding_id=wedding_id, priority=CRITICAL))
    assert {*critical.outcomes("realtime").values(), *critical.outcomes("in_app").values()} == {"pending"}


async def test_settings_of_another_role_do_not_count(site: Site) -> None:
    """A type muted as a florist is heard as a photographer, and muted again when the role comes back."""
    person = await site.someone(role="florist")
    await site.edit(
        person,
        "role_settings",
        role_settings=[{"role": "florist", "muted_types": ["feature.released"]}],
    )
    muted = (await site.resolve_users([person])).outcomes("in_app")
    person.entry.role = "photographer"
    await site.upsert(person.entry)
    heard = (await site.resolve_users([person])).outcomes("in_app")
    assert [muted, heard] == [{person.number: "suppressed:type_muted"}, {person.number: "pending"}]


async def test_a_weddings_filter_decides_its_channels(site: Site) -> None:
    """The filter's channels count before the role's, and the role's before the person's own."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    realtime, email = common_pb2.CHANNEL_REALTIME, common_pb2.CHANNEL_EMAIL
    await site.edit(
        person,
        "channels",
        "role_settings",
        "wedding_filters",
        "quiet_hours",
        channels=[realtime],
        role_settings=[{"role": "photographer", "channels": [email]}],
        wedding_filters=[{"wedding_id": wedding_id, "channels": [realtime]}],
        quiet_hours=far_from_now(),
    )
    general = await site.resolve_users([person])
    about = await site.resolve_users([person], some_rules(wedding_id=wedding_id))
    assert general.outcomes("realtime") == {person.number: "suppressed:channel_off"}
    assert about.outcomes("realtime") == {person.number: "pending"}


async def test_quiet_hours_hold_alerts_and_not_the_inbox(site: Site) -> None:
    """In the window: silently in the inbox now, the alert held until the window ends."""
    person = await site.someone()
    hours = around_now()
    await site.edit(person, "quiet_hours", quiet_hours=hours)
    answer = await site.resolve_users([person])
    assert answer.outcomes("realtime") == {person.number: "held"}
    assert answer.outcomes("in_app") == {person.number: "pending"}
    [held] = [part for part in answer.slices if part.HasField("release_at")]
    released = held.release_at.ToDatetime(tzinfo=UTC)
    end = hours["end"]
    assert isinstance(end, TimeOfDay)
    assert (released.hour, released.minute, released.second) == (end.hours, end.minutes, 0)
    assert timedelta(0) < released - datetime.now(UTC) <= timedelta(hours=3)


async def test_quiet_hours_give_way_the_day_before_the_wedding(site: Site) -> None:
    """High, essential, and about a wedding within 24 hours: all three are needed."""
    person = await site.someone()
    await site.edit(person, "quiet_hours", quiet_hours=around_now())
    near = await site.wedding(person, time_zone="UTC", wedding_date=near_day())
    far = await site.wedding(person, wedding_date=Date(year=2099, month=6, day=5))

    async def realtime(wedding_id: str, **fields: object) -> str:
        rules = some_rules(wedding_id=wedding_id, **fields)
        return (await site.resolve_users([person], rules)).outcomes("realtime")[person.number]

    assert await realtime(near, priority=HIGH, essential=True) == "pending"
    assert await realtime(near, priority=HIGH) == "held"
    assert await realtime(near, essential=True) == "held"
    assert await realtime(far, priority=HIGH, essential=True) == "held"


async def test_access_says_who_and_where(site: Site) -> None:
    """Role and number of the user; each wedding once, in the order asked; what does not exist is said not to."""
    person = await site.someone(role="coordinator")
    mine = await site.wedding(person, couple_name="Mira & Noor")
    other = await site.wedding()
    request = audience_pb2.CheckWeddingAccessRequest(
        user_id=person.user_id, wedding_ids=[other, mine, ABSENT, mine]
    )
    access = await site.audience.CheckWeddingAccess(request, metadata=site.service("internal"))
    assert (access.known, access.number, access.role) == (True, person.number, "coordinator")
    assert [(each.wedding_id, each.exists, each.on_team, each.couple_name) for each in access.weddings] == [
        (other, True, False, "Amara & Jonas"),
        (mine, True, True, "Mira & Noor"),
        (ABSENT, False, False, ""),
    ]


async def test_access_on_all_teams_says_where_somebody_belongs(site: Site) -> None:
    """What was asked comes first; then every other wedding on whose team they are at that moment, and no other."""
    person, colleague = await site.someone(role="coordinator"), await site.someone()
    first, second = await site.wedding(person, colleague), await site.wedding(person)
    other = await site.wedding(colleague)

    async def weddings(*asked: str, user_id: str = person.user_id) -> list[tuple[str, bool]]:
        request = audience_pb2.CheckWeddingAccessRequest(user_id=user_id, wedding_ids=asked, all_teams=True)
        access = await site.audience.CheckWeddingAccess(request, metadata=site.service("internal"))
        return [(each.wedding_id, each.on_team) for each in access.weddings]

    assert await weddings() == sorted([(first, True), (second, True)])
    assert await weddings(other, second) == [(other, False), (second, True), (first, True)]
    await site.set_team(first, colleague)
    assert await weddings() == [(second, True)]
    assert await weddings(other, user_id=str(uuid4())) == [(other, False)]
    assert await weddings(user_id="") == []


async def test_size_of_a_team_is_that_of_its_audience(site: Site) -> None:
    """Whoever is told the one need not count the other, at any moment."""
    people = [await site.someone() for _ in range(3)]
    wedding_id = await site.wedding(*people)

    async def sizes() -> tuple[int, int]:
        request = audience_pb2.CheckWeddingAccessRequest(wedding_ids=[wedding_id, ABSENT])
        access = await site.audience.CheckWeddingAccess(request, metadata=site.service("internal"))
        assert access.weddings[1].team_size == 0
        return access.weddings[0].team_size, (await site.count(wedding_ids=[wedding_id])).targeted

    assert await sizes() == (3, 3)
    await site.set_team(wedding_id, people[0])
    assert await sizes() == (1, 1)


async def test_a_stranger_is_not_known(site: Site) -> None:
    """No number, no role, on no team."""
    wedding_id = await site.wedding(await site.someone())
    request = audience_pb2.CheckWeddingAccessRequest(user_id=str(uuid4()), wedding_ids=[wedding_id])
    access = await site.audience.CheckWeddingAccess(request, metadata=site.service("internal"))
    assert (access.known, access.number, access.role, access.weddings[0].on_team) == (False, 0, "", False)


async def test_a_lookup_by_number_says_who_somebody_is(site: Site) -> None:
    """With id, role and name; a number that nobody has is left out."""
    person, other = await site.someone(role="coordinator"), await site.someone()
    request = audience_pb2.LookupRecipientsRequest(
        user_ids=[other.user_id], numbers=[person.number, 2_000_000_000]
    )
    found = await site.audience.LookupRecipients(request, metadata=site.service("internal"))
    by_number, by_id = sorted(found.recipients, key=lambda each: each.number != person.number)
    assert (by_number.user_id, by_number.number, by_number.role) == (
        person.user_id,
        person.number,
        "coordinator",
    )
    assert by_number.display_name
    assert (by_id.user_id, by_id.number) == (other.user_id, other.number)


async def test_a_lookup_leaves_out_what_is_not_known(site: Site) -> None:
    """Known users with number and role, known weddings with team and version."""
    person = await site.someone()
    wedding_id = await site.wedding(person)
    request = audience_pb2.LookupRecipientsRequest(
        user_ids=[ABSENT, person.user_id], wedding_ids=[ABSENT, wedding_id]
    )
    found = await site.audience.LookupRecipients(request, metadata=site.service("internal"))
    assert [(each.user_id, each.number, each.role) for each in found.recipients] == [
        (person.user_id, person.number, "photographer")
    ]
    assert [
        (each.wedding_id, each.team_version, Audience.from_bytes(each.members).to_list())
        for each in found.teams
    ] == [(wedding_id, 1, [person.number])]


async def test_answers_are_never_older_than_what_was_accepted_before_them(site: Site) -> None:
    """Many writers and readers at once: each reader sees at least what was accepted before it asked."""
    role = a_word("role")

    async def write_and_look() -> bool:
        person = await site.someone(role=role)
        request = audience_pb2.LookupRecipientsRequest(user_ids=[person.user_id])
        found, answer = await asyncio.gather(
            site.audience.LookupRecipients(request, metadata=site.service("internal")),
            site.resolve(common_pb2.Targeting(roles=[role])),
        )
        return len(found.recipients) == 1 and person.number in answer.outcomes("in_app")

    assert all(await asyncio.gather(*(write_and_look() for _ in range(20))))
