"""Segments through a real channel: saved, listed, changed, and removed only with open eyes."""

import asyncio

import grpc
import pytest
from wedsync.broadcast.v1 import directory_pb2

from tests.integration.preferences.segments import (
    CONFIRMED,
    SHIPPED,
    delete,
    get,
    members,
    names,
    refused_targeting,
    update,
)
from tests.integration.preferences.site import Site, a_segment, a_word
from tests.integration.shared.edge import refusal_of


async def test_four_segments_are_there_from_the_start(site: Site) -> None:
    """With the criteria of product.md, under ids that are the same everywhere."""
    couple, supplier = directory_pb2.USER_TYPE_COUPLE, directory_pb2.USER_TYPE_SUPPLIER
    expected = {
        "Wedding Coordinators": directory_pb2.SegmentCriteria(roles=["coordinator"], user_types=[supplier]),
        "Wedding Photographers": directory_pb2.SegmentCriteria(roles=["photographer"], user_types=[supplier]),
        "Active Couples": directory_pb2.SegmentCriteria(
            user_types=[couple],
            wedding_statuses=[directory_pb2.WEDDING_STATUS_PLANNING, CONFIRMED],
            wedding_within_days=365,
        ),
        "Premium Users": directory_pb2.SegmentCriteria(tiers=["professional", "enterprise"]),
    }
    found = [await get(site, segment_id) for segment_id in SHIPPED]
    assert {each.name: each.criteria for each in found} == expected
    assert all(each.is_active and each.description for each in found)


async def test_a_segment_is_what_it_was_made_of(site: Site) -> None:
    """With who meets it now, and the time of that."""
    person = await site.someone(role=a_word("role"), tier=a_word("tier"))
    wanted = a_segment(
        description="Those of\ttoday",
        criteria={
            "roles": [person.entry.role, "b"],
            "tiers": [person.entry.tier],
            "user_types": [directory_pb2.USER_TYPE_SUPPLIER],
        },
    )
    answer = await site.directory.CreateSegment(
        directory_pb2.CreateSegmentRequest(segment=wanted), metadata=site.service("directory.write")
    )
    made = answer.segment
    assert (made.name, made.description, made.is_active) == (wanted.name, wanted.description, True)
    assert set(made.criteria.roles) == set(wanted.criteria.roles)
    assert (made.user_count, made.criteria.user_types) == (1, wanted.criteria.user_types)
    assert made.user_count_time == made.create_time == made.update_time
    assert await members(site, made.segment_id) == {person.number}
    kept = await get(site, made.segment_id)
    kept.user_count_time.CopyFrom(made.user_count_time)
    assert kept == made


async def test_an_update_changes_what_is_named_and_counts_at_once(site: Site) -> None:
    """The rest stays; without a mask what is set is changed; what changes nothing is no new version."""
    person = await site.someone(role=a_word("role"))
    segment = await site.segment(description="Nobody")
    changed = await update(
        site,
        segment.segment_id,
        "criteria.roles",
        criteria={"roles": [person.entry.role], "tiers": ["ignored"]},
        name="ignored",
    )
    assert (changed.user_count, changed.name, changed.description) == (1, segment.name, "Nobody")
    assert changed.etag != segment.etag
    assert changed.update_time.ToNanoseconds() > segment.update_time.ToNanoseconds()
    unmasked = await update(site, segment.segment_id, description="One", is_active=False)
    assert (unmasked.description, unmasked.is_active, unmasked.criteria) == ("One", False, changed.criteria)
    again = await update(site, segment.segment_id, "description", description="One")
    assert again.etag == unmasked.etag


async def test_of_two_updates_from_one_version_one_is_refused(site: Site) -> None:
    """The other is told that it was too late, and has changed nothing."""
    segment = await site.segment()
    outcomes = await asyncio.gather(
        *(
            update(site, segment.segment_id, "description", description=text, etag=segment.etag)
            for text in ("one", "two")
        ),
        return_exceptions=True,
    )
    [refused] = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    [kept] = [each for each in outcomes if isinstance(each, directory_pb2.Segment)]
    assert refused.code() is grpc.StatusCode.ABORTED
    assert (await get(site, segment.segment_id)).description == kept.description


async def test_a_name_is_taken_once_whatever_its_case(site: Site) -> None:
    """By a new segment, and by one that is renamed; one's own name is free in another case."""
    first, second = await site.segment(), await site.segment()
    taken = first.name.upper()
    for call in (
        site.segment(name=taken),
        update(site, second.segment_id, "name", name=taken),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("segment.name",))
    assert (await update(site, first.segment_id, "name", name=taken)).name == taken


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"name": "", "criteria": {}}, {"segment.name", "segment.criteria"}),
        ({"name": "x" * 101}, {"segment.name"}),
        ({"name": "Two\nlines"}, {"segment.name"}),
        ({"description": "x" * 501}, {"segment.description"}),
        ({"criteria": {"roles": ["Wedding Planner"]}}, {"segment.criteria.roles[0]"}),
        ({"criteria": {"tiers": ["a", "a"]}}, {"segment.criteria.tiers"}),
        ({"criteria": {"user_types": [0]}}, {"segment.criteria.user_types[0]"}),
        ({"criteria": {"wedding_statuses": [77]}}, {"segment.criteria.wedding_statuses[0]"}),
        ({"criteria": {"wedding_within_days": -1}}, {"segment.criteria.wedding_within_days"}),
        ({"criteria": {"wedding_within_days": 3651}}, {"segment.criteria.wedding_within_days"}),
    ],
)
async def test_what_may_not_be_saved_is_refused_by_field(
    site: Site, fields: dict[str, object], broken: set[str]
) -> None:
    """Each with INVALID_ARGUMENT, all at once."""
    refusal = await refusal_of(site.segment(**fields))
    assert (refusal.code, set(refusal.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, broken)


async def test_a_list_is_by_name_and_in_pages(site: Site) -> None:
    """Each once, whatever is made and removed between two pages; a token that nobody gave is refused."""
    made = [await site.segment(name=f"{letter} {a_word('page')}") for letter in "bAcD"]
    first = await site.directory.ListSegments(
        directory_pb2.ListSegmentsRequest(page_size=1), metadata=site.service("directory.read")
    )
    await delete(site, first.segments[0].segment_id)
    second = await site.directory.ListSegments(
        directory_pb2.ListSegmentsRequest(page_size=1, page_token=first.next_page_token),
        metadata=site.service("directory.read"),
    )
    assert first.segments[0].name == made[1].name
    listed = await names(site, page_size=3)
    assert listed[0] == second.segments[0].name
    assert listed == sorted(listed, key=str.lower) == await names(site)
    assert {made[0].name, made[2].name, made[3].name} <= set(listed)
    refusal = await refusal_of(
        site.directory.ListSegments(
            directory_pb2.ListSegmentsRequest(page_token=first.next_page_token[:-2] + "xx"),
            metadata=site.service("directory.read"),
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


async def test_coordinators_read_and_admins_write(site: Site) -> None:
    """A coordinator may look; other people may not even that."""
    admin, coordinator, couple = [
        site.person((await site.someone(role=role)).user_id) for role in ("admin", "coordinator", "couple")
    ]
    answer = await site.directory.CreateSegment(
        directory_pb2.CreateSegmentRequest(segment=a_segment()), metadata=admin
    )
    assert answer.segment.name in await names(site, coordinator)
    delete_it = directory_pb2.DeleteSegmentRequest(segment_id=answer.segment.segment_id)
    for call in (
        names(site, couple),
        site.directory.CreateSegment(
            directory_pb2.CreateSegmentRequest(segment=a_segment()), metadata=coordinator
        ),
        site.directory.DeleteSegment(delete_it, metadata=coordinator),
        site.directory.DeleteSegment(delete_it, metadata=site.service("directory.read")),
    ):
        assert (await refusal_of(call)).code is grpc.StatusCode.PERMISSION_DENIED
    await site.directory.DeleteSegment(delete_it, metadata=admin)


async def test_a_removed_segment_is_gone(site: Site) -> None:
    """From lists, from audiences, and for whoever asks for it."""
    segment = await site.segment()
    assert (await delete(site, segment.segment_id)).failing_broadcasts == 0
    assert segment.name not in await names(site)
    assert (await refused_targeting(site, segment.segment_id)).code is grpc.StatusCode.NOT_FOUND
    for call in (
        get(site, segment.segment_id),
        delete(site, segment.segment_id),
        update(site, segment.segment_id, "name", name="Gone"),
    ):
        assert (await refusal_of(call)).code is grpc.StatusCode.NOT_FOUND


async def test_a_segment_in_use_is_removed_by_force_only(site: Site) -> None:
    """Without it one is told how many broadcasts will fail; with it too."""
    segment = await site.segment()
    site.inbox.sender.uses[segment.segment_id] = 3
    refusal = await refusal_of(delete(site, segment.segment_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert refusal.fields == ("force",)
    assert "3" in refusal.message
    assert (await get(site, segment.segment_id)).name == segment.name
    assert (await delete(site, segment.segment_id, force=True)).failing_broadcasts == 3
    assert (await refusal_of(get(site, segment.segment_id))).code is grpc.StatusCode.NOT_FOUND


async def test_nothing_is_removed_while_nobody_knows_what_uses_it(site: Site) -> None:
    """Without the sender neither with force nor without; everything else about segments goes on."""
    segment = await site.segment()
    site.inbox.sender.is_down = True
    for force in (False, True):
        refusal = await refusal_of(delete(site, segment.segment_id, force=force))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    await update(site, segment.segment_id, "description", description="Still here")
    site.inbox.sender.is_down = False
    await delete(site, segment.segment_id)


async def test_a_removal_can_be_of_one_version(site: Site) -> None:
    """What has changed since it was looked at stays."""
    segment = await site.segment()
    changed = await update(site, segment.segment_id, "description", description="Changed")
    refusal = await refusal_of(delete(site, segment.segment_id, etag=segment.etag))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    await delete(site, segment.segment_id, etag=changed.etag)


async def test_a_shipped_segment_is_like_any_other(site: Site) -> None:
    """It can be changed."""
    before = await get(site, SHIPPED[3])
    changed = await update(site, SHIPPED[3], "criteria.tiers", criteria={"tiers": ["enterprise"]})
    assert (changed.name, list(changed.criteria.tiers)) == (before.name, ["enterprise"])
    await update(site, SHIPPED[3], "criteria", criteria=before.criteria)
