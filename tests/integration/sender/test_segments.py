"""What the sender knows of segments: it sends to them as the directory finds them, and counts what is to go out."""

from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import sender_pb2

from tests.integration.sender.site import Metadata, Site, a_send, ahead
from tests.integration.sender.waiting import alarm, cancel
from tests.integration.shared.edge import refusal_of


def a_segment(site: Site, *members: str) -> str:
    """A segment of these people; of nobody, it is not active."""
    segment_id = str(uuid4())
    site.neighbours.preferences.segments[segment_id] = set(members)
    return segment_id


async def uses(site: Site, segment_id: str) -> int:
    """What preferences is told when somebody wants to remove it."""
    answer = await site.stub.CountSegmentUses(
        sender_pb2.CountSegmentUsesRequest(segment_id=segment_id), metadata=site.service("internal")
    )
    return answer.broadcasts


async def later(site: Site, admin: Metadata, *segment_ids: str) -> str:
    """The id of a broadcast that is scheduled with segments."""
    request = a_send(targeting={"segment_ids": segment_ids}, scheduled_for=ahead(hours=1))
    return (await site.send(admin, request)).broadcast.broadcast_id


async def test_a_segment_is_sent_to_as_it_is_now(site: Site) -> None:
    """The estimate is of those in it, and the order names it."""
    user_id, admin = site.person("admin")
    segment_id = a_segment(site, user_id)
    answer = await site.send(admin, a_send(targeting={"segment_ids": [segment_id]}))
    assert answer.targeted_users == 1
    order = await site.plan(answer.broadcast.broadcast_id)
    assert list(order.targeting.segment_ids) == [segment_id]


@pytest.mark.parametrize(
    ("is_there", "code"),
    [(False, grpc.StatusCode.NOT_FOUND), (True, grpc.StatusCode.FAILED_PRECONDITION)],
)
async def test_a_segment_that_cannot_be_used_is_told_by_its_field(
    site: Site, is_there: bool, code: grpc.StatusCode
) -> None:
    """To an admin and a service: unknown, or there and not active. To a coordinator both are out of reach."""
    _, admin = site.person("admin")
    user_id, coordinator = site.person("coordinator")
    targeting = {"segment_ids": [a_segment(site) if is_there else str(uuid4())]}
    for caller in (admin, site.service("broadcast.send")):
        refusal = await refusal_of(site.send(caller, a_send(targeting=targeting)))
        assert (refusal.code, refusal.fields) == (code, ("targeting.segment_ids",))
    bounded = a_send(type="form.locked", targeting=targeting, wedding_id=site.wedding(user_id))
    refusal = await refusal_of(site.send(coordinator, bounded))
    assert (refusal.reason, refusal.fields) == ("OUTSIDE_REACH", ())


async def test_what_is_still_to_go_out_is_counted(site: Site) -> None:
    """Scheduled, and waiting for approval; not what is dispatched, cancelled, or for another segment."""
    user_id, admin = site.person("admin")
    one, two = a_segment(site, user_id), a_segment(site, user_id)
    assert await uses(site, one) == 0
    await later(site, admin, one)
    await later(site, admin, two, one)
    await site.send(admin, alarm(targeting={"segment_ids": [one]}))
    now = await site.send(admin, a_send(targeting={"segment_ids": [one]}))
    assert (await uses(site, one), await uses(site, two)) == (4, 1)
    await site.plan(now.broadcast.broadcast_id)
    assert await uses(site, one) == 3
    await cancel(site, admin, await later(site, admin, one))
    assert (await uses(site, one), await uses(site, one.upper()), await uses(site, str(uuid4()))) == (3, 3, 0)


async def test_only_the_suites_own_services_count(site: Site) -> None:
    """Not an admin, nor a service that may write segments; and what is no id is none of anything."""
    _, admin = site.person("admin")
    request = sender_pb2.CountSegmentUsesRequest(segment_id=str(uuid4()))
    for metadata in (admin, site.service("directory.write", "broadcast.read")):
        refusal = await refusal_of(site.stub.CountSegmentUses(request, metadata=metadata))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    refusal = await refusal_of(uses(site, "mine"))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("segment_id",))
