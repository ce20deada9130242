"""Who has read and acknowledged a broadcast, person by person, as far as the caller may be told."""

from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.sender_pb2 import CheckBroadcastAccessResponse

from shared.errors import ServiceError
from tests.integration.inbox.aging import age, clean_up
from tests.integration.inbox.site import Metadata, Person, Site, error_of
from tests.integration.inbox.stores import Stores
from tests.integration.inbox.test_receipts import CRITICAL

EVERYBODY = CheckBroadcastAccessResponse(everybody=True)


def reader(site: Site, broadcast_id: str, access: CheckBroadcastAccessResponse = EVERYBODY) -> Person:
    """A coordinator whom the sender vouches for."""
    person = site.person()
    site.neighbours.directory.roles[str(person.user_id)] = "coordinator"
    site.neighbours.sender.access[broadcast_id, str(person.user_id)] = access
    return person


async def listed(
    site: Site, metadata: Metadata, broadcast_id: str, **fields: object
) -> inbox_pb2.ListReceiptsResponse:
    """A page."""
    request = inbox_pb2.ListReceiptsRequest(broadcast_id=broadcast_id, **fields)  # type: ignore[arg-type]
    return await site.stub.ListReceipts(request, metadata=metadata)


async def refused(site: Site, metadata: Metadata, broadcast_id: str, **fields: object) -> ServiceError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await listed(site, metadata, broadcast_id, **fields)
    return error_of(caught.value)


def users(answer: inbox_pb2.ListReceiptsResponse) -> list[str]:
    """Who is on a page."""
    return [receipt.user_id for receipt in answer.receipts]


async def test_a_coordinator_is_told_who_has_acknowledged_and_who_has_not(site: Site) -> None:
    """Everybody with name, role and times: by a receipt or by "all read", in a block or alone."""
    amara, jonas, petra, late = people = site.people(4)
    crowd = range(960_000, 960_020)
    broadcast_id = await site.send([*people, *crowd], **CRITICAL)
    acknowledged = (await site.record(amara, "ACKNOWLEDGED", broadcast_id)).receipts[0]
    marked = await site.mark_all_read(jonas)
    read = (await site.record(petra, "READ", broadcast_id)).receipts[0]
    answer = await listed(site, reader(site, broadcast_id).metadata, broadcast_id)
    assert (answer.total_count, answer.acknowledged_count, answer.next_page_token) == (24, 1, "")
    first, second, third, fourth = answer.receipts[:4]
    assert (first.user_id, first.display_name, first.role) == (
        str(amara.user_id),
        f"Person {amara.number}",
        "couple",
    )
    assert (first.read_at, first.acknowledged_at) == (acknowledged.read_at, acknowledged.acknowledged_at)
    assert (second.user_id, second.read_at) == (str(jonas.user_id), marked.read_time)
    assert (third.user_id, third.read_at) == (str(petra.user_id), read.read_at)
    assert fourth.user_id == str(late.user_id)
    assert [fourth.HasField(each) for each in ("read_at", "acknowledged_at")] == [False, False]
    assert not fourth.has_left
    assert all(each.HasField("delivered_at") for each in answer.receipts)
    waiting = await listed(site, reader(site, broadcast_id).metadata, broadcast_id, unacknowledged_only=True)
    assert users(waiting)[:3] == [str(each.user_id) for each in (jonas, petra, late)]
    assert (len(waiting.receipts), waiting.total_count, waiting.acknowledged_count) == (23, 24, 1)


async def test_pages_have_everybody_once(site: Site, stores: Stores) -> None:
    """Ten thousand of whom some have acknowledged, whatever the size of the pages; a token is for its query alone."""
    number = stores.new_number()
    everybody = range(number, number + 10_000)
    broadcast_id = await site.send(everybody)
    site.neighbours.directory.numbers |= {str(uuid4()): each for each in everybody}
    await site.admin.execute(
        "INSERT INTO receipts (recipient_number, broadcast_id, read_at, acknowledged_at) "
        "SELECT number, $1, now(), now() FROM generate_series($2::integer, $3::integer, 3) AS number",
        broadcast_id,
        number,
        number + 9_999,
    )
    caller = reader(site, broadcast_id)
    for only, expected in ((False, 10_000), (True, 6_666)):
        seen: list[str] = []
        token = ""
        while True:
            page = await listed(
                site, caller.metadata, broadcast_id, unacknowledged_only=only, page_size=999, page_token=token
            )
            assert (page.total_count, page.acknowledged_count) == (10_000, 3_334)
            assert len(page.receipts) == 999 or not page.next_page_token
            seen += users(page)
            token = page.next_page_token
            if not token:
                break
            other = not only
            error = await refused(
                site, caller.metadata, broadcast_id, unacknowledged_only=other, page_token=token
            )
            assert [each.field for each in error.violations] == ["page_token"]
        assert len(seen) == len(set(seen)) == expected


async def test_a_coordinator_of_one_team_is_told_of_that_team(site: Site) -> None:
    """Not of others whom it reached, nor of who has left; whoever may be told of all is told that they have."""
    amara, jonas, gone = site.people(3)
    wedding, other = site.wedding(amara, gone), site.wedding(jonas)
    broadcast_id = site.broadcast(type="journey.updated", targeting={"wedding_ids": [wedding, other]})
    await site.deliver(broadcast_id, [amara, jonas, gone])
    await site.record(gone, "ACKNOWLEDGED", broadcast_id)
    await site.set_team(wedding, amara)
    narrow = reader(site, broadcast_id, CheckBroadcastAccessResponse(wedding_ids=[wedding]))
    answer = await listed(site, narrow.metadata, broadcast_id)
    assert (users(answer), answer.total_count, answer.acknowledged_count) == ([str(amara.user_id)], 1, 0)
    whole = await listed(site, reader(site, broadcast_id).metadata, broadcast_id)
    assert [(each.user_id, each.has_left) for each in whole.receipts] == [
        (str(amara.user_id), False),
        (str(jonas.user_id), False),
        (str(gone.user_id), True),
    ]
    assert (whole.total_count, whole.acknowledged_count) == (3, 1)
    await site.set_team(other)
    waiting = await listed(site, reader(site, broadcast_id).metadata, broadcast_id, unacknowledged_only=True)
    assert users(waiting) == [str(amara.user_id)]


async def test_what_is_not_theirs_and_what_is_not_there_look_the_same(site: Site) -> None:
    """In the same words; and an outage of the sender is told as one."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    stranger = reader(site, str(uuid4()))
    errors = [await refused(site, stranger.metadata, each) for each in (broadcast_id, str(uuid4()))]
    assert [(error.reason_name, str(error)) for error in errors] == [("NOT_FOUND", str(errors[0]))] * 2
    assert (await refused(site, amara.metadata, broadcast_id)).reason_name == "PERMISSION_DENIED"
    site.neighbours.sender.is_down = True
    try:
        error = await refused(site, stranger.metadata, broadcast_id)
        assert error.reason_name == "DEPENDENCY_UNAVAILABLE"
    finally:
        site.neighbours.sender.is_down = False


async def test_a_service_that_reads_all_is_told_of_everybody(site: Site) -> None:
    """Also of somebody whom the directory does not know any more, without a name."""
    amara, erased = site.people(2)
    broadcast_id = await site.send([amara, erased])
    del site.neighbours.directory.numbers[str(erased.user_id)]
    site.neighbours.sender.access[broadcast_id, ""] = EVERYBODY
    answer = await listed(site, site.service("broadcast.read"), broadcast_id)
    assert users(answer) == [str(amara.user_id), ""]


async def test_one_that_has_reached_nobody_yet_has_no_receipts(site: Site) -> None:
    """It is there, and will be asked for again."""
    broadcast_id = str(uuid4())
    answer = await listed(site, reader(site, broadcast_id).metadata, broadcast_id)
    assert (list(answer.receipts), answer.total_count) == ([], 0)


async def test_of_a_critical_one_that_was_cleaned_those_who_did_something_are_known(
    site: Site, stores: Stores
) -> None:
    """For good, and it is said since when the others are not; of any other nobody is."""
    amara, jonas = site.people(2)
    critical, normal = await site.send([amara, jonas], **CRITICAL), await site.send([amara])
    for broadcast_id in (critical, normal):
        await site.record(amara, "ACKNOWLEDGED", broadcast_id)
    await age(stores.admin, 91, [critical, normal])
    await clean_up(stores)
    answer = await listed(site, reader(site, critical).metadata, critical)
    assert (users(answer), answer.acknowledged_count) == ([str(amara.user_id)], 1)
    assert answer.HasField("cleaned_time")
    assert not answer.receipts[0].HasField("delivered_at")
    nothing = await listed(site, reader(site, normal).metadata, normal)
    assert (nothing.total_count, nothing.HasField("cleaned_time")) == (0, True)
