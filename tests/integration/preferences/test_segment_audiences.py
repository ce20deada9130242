"""Who is meant by a segment, through a real channel: as of now, whatever has changed, and counted by itself."""

from datetime import UTC, datetime, timedelta

import grpc
from google.type.date_pb2 import Date

from tests.integration.preferences.segments import (
    ABSENT,
    CANCELLED,
    CONFIRMED,
    SHIPPED,
    get,
    members,
    refused_targeting,
    update,
)
from tests.integration.preferences.site import Site, a_word
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal


def in_days(days: int) -> Date:
    """A day so many days from today in UTC."""
    day = datetime.now(UTC) + timedelta(days=days)
    return Date(year=day.year, month=day.month, day=day.day)


async def test_criteria_about_weddings_hold_for_one_wedding(site: Site) -> None:
    """On its team, with its status, from today to so many days ahead; another wedding cannot stand in for a part."""
    role = a_word("role")
    soon, late, past, mixed, nowhere = [await site.someone(role=role) for _ in range(5)]
    await site.wedding(soon, status=CONFIRMED, wedding_date=in_days(5))
    await site.wedding(late, status=CONFIRMED, wedding_date=in_days(60))
    await site.wedding(past, status=CONFIRMED, wedding_date=in_days(-5))
    await site.wedding(mixed, status=CANCELLED, wedding_date=in_days(5))
    await site.wedding(mixed, nowhere, status=CONFIRMED)
    criteria = {"roles": [role], "wedding_statuses": [CONFIRMED], "wedding_within_days": 30}
    segment = await site.segment(criteria=criteria)
    assert segment.user_count == 1
    assert await members(site, segment.segment_id) == {soon.number}
    any_day = await site.segment(criteria={"roles": [role], "wedding_statuses": [CONFIRMED]})
    everybody = {soon.number, late.number, past.number, mixed.number, nowhere.number}
    assert await members(site, any_day.segment_id) == everybody
    any_status = await site.segment(criteria={"roles": [role], "wedding_within_days": 30})
    assert await members(site, any_status.segment_id) == {soon.number, mixed.number}


async def test_segments_add_to_what_else_is_named_within_the_wall(site: Site) -> None:
    """Two segments, a user and a tier are a union; a wedding bounds all of it."""
    one, two, three, four = [await site.someone(role=a_word("role"), tier=a_word("tier")) for _ in range(4)]
    first, second = [await site.segment(criteria={"roles": [each.entry.role]}) for each in (one, two)]
    targeting = {
        "segment_ids": [first.segment_id, second.segment_id, first.segment_id],
        "user_ids": [three.user_id],
        "tiers": [four.entry.tier],
    }
    assert (await site.count(**targeting)).targeted == 4
    wedding_id = await site.wedding(two, four)
    assert (await site.count(**targeting, wedding_ids=[wedding_id])).targeted == 2


async def test_no_answer_is_older_than_the_last_accepted_change(site: Site) -> None:
    """Of the segment, of people, of teams, of weddings: each is in the next answer."""
    role = a_word("role")
    one, two = await site.someone(role=role), await site.someone(role=role)
    segment = await site.segment(criteria={"roles": [role], "wedding_statuses": [CONFIRMED]})
    segment_id = segment.segment_id
    assert await members(site, segment_id) == set()
    wedding_id = await site.wedding(one, status=CONFIRMED)
    assert await members(site, segment_id) == {one.number}
    await site.set_team(wedding_id, one, two)
    assert await members(site, segment_id) == {one.number, two.number}
    one.entry.role = "florist"
    await site.upsert(one.entry)
    assert await members(site, segment_id) == {two.number}
    await site.wedding(wedding_id=wedding_id, status=CANCELLED)
    assert await members(site, segment_id) == set()
    await update(site, segment_id, "criteria.wedding_statuses", criteria={"wedding_statuses": [CANCELLED]})
    assert await members(site, segment_id) == {two.number}
    await update(
        site, segment_id, "criteria", criteria={"roles": ["florist"], "wedding_statuses": [CANCELLED]}
    )
    assert await members(site, segment_id) == {one.number}


async def test_a_restart_answers_the_same(site: Site) -> None:
    """From the tables what was followed along the log before."""
    role = a_word("role")
    person = await site.someone(role=role)
    await site.wedding(person, status=CONFIRMED, wedding_date=in_days(3))
    segment = await site.segment(
        criteria={"roles": [role], "wedding_statuses": [CONFIRMED], "wedding_within_days": 3}
    )
    resting = await site.segment(is_active=False)
    await site.restart()
    assert await members(site, segment.segment_id) == {person.number}
    refusal = await refusal_of(site.count(segment_ids=[resting.segment_id]))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_counts_follow_by_themselves(site: Site) -> None:
    """Also of those that were there from the start; the etag stays, because nothing of the segment has changed."""
    role = a_word("role")
    segment = await site.segment(criteria={"roles": [role]})
    assert segment.user_count == 0
    await site.someone(role=role)

    async def counted() -> int:
        return (await get(site, segment.segment_id)).user_count

    await until_equal(1, counted)
    found = await get(site, segment.segment_id)
    assert found.user_count_time.ToNanoseconds() > segment.user_count_time.ToNanoseconds()
    assert (found.etag, found.update_time) == (segment.etag, segment.update_time)

    async def all_counted() -> bool:
        return all([(await get(site, each)).HasField("user_count_time") for each in SHIPPED])

    await until_equal(True, all_counted)


async def test_an_inactive_or_unknown_segment_is_refused(site: Site) -> None:
    """By its id; and heard again when it is active again."""
    fine, resting = await site.segment(), await site.segment(is_active=False)
    inactive = await refused_targeting(site, fine.segment_id, resting.segment_id)
    assert (inactive.code, inactive.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert inactive.fields == ("targeting.segment_ids",)
    unknown = await refused_targeting(site, fine.segment_id, ABSENT, resting.segment_id)
    assert (unknown.code, unknown.fields) == (grpc.StatusCode.NOT_FOUND, ("targeting.segment_ids",))
    await update(site, resting.segment_id, "is_active", is_active=True)
    assert await members(site, resting.segment_id) == set()
