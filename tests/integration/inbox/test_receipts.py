"""What people do with their items."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, inbox_pb2

from shared.audience import CHUNK_MEMBERS, Audience
from shared.errors import ServiceError
from tests.integration.inbox.site import ALERT, Person, Site, error_of

CRITICAL = {"priority": common_pb2.PRIORITY_CRITICAL, "type": "security.alert"}


async def refused(site: Site, person: Person, action: str, *ids: str, url: str = "") -> ServiceError:
    """The error that a receipt ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.record(person, action, *ids, url=url)
    return error_of(caught.value)


async def test_every_action_implies_read(site: Site) -> None:
    """Acknowledged, dismissed and clicked items are read at the same time."""
    amara = site.person()
    for action, field in (
        ("ACKNOWLEDGED", "acknowledged_at"),
        ("DISMISSED", "dismissed_at"),
        ("CLICKED", "clicked_at"),
    ):
        broadcast_id = await site.send([amara])
        answer = await site.record(amara, action, broadcast_id, url="/x" if action == "CLICKED" else "")
        (receipt,) = answer.receipts
        assert receipt.HasField("read_at")
        assert getattr(receipt, field) == receipt.read_at
        assert answer.unread_count == 0


async def test_the_first_time_wins(site: Site) -> None:
    """Doing it again answers with the first times; each action has its own."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    read = (await site.record(amara, "READ", broadcast_id)).receipts[0]
    clicked = (await site.record(amara, "CLICKED", broadcast_id, url="/one")).receipts[0]
    again = (await site.record(amara, "CLICKED", broadcast_id, url="/two")).receipts[0]
    assert clicked.read_at == again.read_at == read.read_at
    assert clicked.clicked_at == again.clicked_at
    row = await site.admin.fetchrow("SELECT clicked_url FROM receipts WHERE broadcast_id = $1", broadcast_id)
    assert row is not None
    assert row["clicked_url"] == "/one"


async def test_a_repeated_receipt_costs_nothing(site: Site) -> None:
    """It takes no position and tells nobody."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    await site.record(amara, "READ", broadcast_id)
    told = "SELECT count(*) FROM log WHERE kind = 'receipts'"
    before = await site.admin.fetchval(told)
    await asyncio.gather(*(site.record(amara, "READ", broadcast_id) for _ in range(20)))
    assert await site.admin.fetchval(told) == before


async def test_a_dismissed_item_leaves_the_list_and_can_be_brought_back(site: Site) -> None:
    """It is listed when asked for; restored it is there again, still read, and can be dismissed anew."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    first = (await site.record(amara, "DISMISSED", broadcast_id)).receipts[0]
    assert await site.ids(amara) == []
    assert await site.ids(amara, include_dismissed=True) == [broadcast_id]
    restored = (await site.record(amara, "RESTORED", broadcast_id)).receipts[0]
    assert not restored.HasField("dismissed_at")
    assert restored.read_at == first.read_at
    assert await site.ids(amara) == [broadcast_id]
    assert await site.ids(amara, unread_only=True) == []
    second = (await site.record(amara, "DISMISSED", broadcast_id)).receipts[0]
    assert second.dismissed_at.ToNanoseconds() > first.dismissed_at.ToNanoseconds()


async def test_restoring_what_was_not_dismissed_changes_nothing(site: Site) -> None:
    """Not even that it is unread."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    answer = await site.record(amara, "RESTORED", broadcast_id)
    assert not answer.receipts[0].HasField("read_at")
    assert answer.unread_count == 1


async def test_a_critical_item_must_be_acknowledged_before_it_is_dismissed(site: Site) -> None:
    """Nothing of such a call is recorded, and the item is named; after the acknowledgement it can go."""
    amara = site.person()
    critical, normal = await site.send([amara], **CRITICAL), await site.send([amara])
    error = await refused(site, amara, "DISMISSED", normal, critical)
    assert (error.status, error.reason_name) == (9, "ILLEGAL_STATE")
    assert error.metadata["broadcast_id"] == critical
    assert await site.unread(amara) == 2
    await site.record(amara, "ACKNOWLEDGED", critical)
    await site.record(amara, "DISMISSED", normal, critical)
    assert await site.ids(amara) == []


async def test_reading_a_critical_item_is_not_acknowledging_it(site: Site) -> None:
    """Neither is marking everything as read."""
    amara = site.person()
    critical = await site.send([amara], **CRITICAL)
    await site.record(amara, "READ", critical)
    await site.mark_all_read(amara)
    assert (await refused(site, amara, "DISMISSED", critical)).reason_name == "ILLEGAL_STATE"


async def test_one_refused_call_does_not_touch_the_calls_beside_it(site: Site) -> None:
    """Calls of many people are committed together, and each is answered for itself."""
    people = site.people(30)
    critical, normal = await site.send(people, **CRITICAL), await site.send(people)
    results = await asyncio.gather(
        *(
            site.record(person, "DISMISSED", critical if place % 3 == 0 else normal)
            for place, person in enumerate(people)
        ),
        return_exceptions=True,
    )
    for place, (person, result) in enumerate(zip(people, results, strict=True)):
        assert isinstance(result, grpc.aio.AioRpcError) == (place % 3 == 0)
        assert await site.unread(person) == (2 if place % 3 == 0 else 1)


async def test_unknown_items_are_named_and_the_others_recorded(site: Site) -> None:
    """Somebody else's, retracted and invented ids are unknown alike; ids come back in order and once."""
    amara, jonas = site.people(2)
    first, second = await site.send([amara]), await site.send([amara])
    foreign, gone, invented = await site.send([jonas]), await site.send([amara]), str(uuid4())
    await site.retract(gone, hide=True)
    answer = await site.record(amara, "READ", second, foreign, first, second.upper(), gone, invented)
    assert [receipt.broadcast_id for receipt in answer.receipts] == [second, first]
    assert list(answer.unknown_broadcast_ids) == [foreign, gone, invented]
    assert (await site.engagement(foreign)).read == 0


async def test_what_one_person_does_in_many_calls_at_once_adds_up(site: Site) -> None:
    """Each item ends with all that was done to it."""
    amara = site.person()
    ids = [await site.send([amara]) for _ in range(5)]
    actions = ("READ", "ACKNOWLEDGED", "CLICKED", "DISMISSED")
    await asyncio.gather(
        *(
            site.record(amara, action, each, url="/x" if action == "CLICKED" else "")
            for each in ids
            for action in actions
        )
    )
    items = (await site.listed(amara, include_dismissed=True)).items
    assert all(
        item.HasField(field)
        for item in items
        for field in ("read_at", "acknowledged_at", "clicked_at", "dismissed_at")
    )


async def test_marking_all_read_is_one_row_however_much_there_is(site: Site) -> None:
    """Everything before it is read at that time, unless it was before; what comes later is not."""
    amara = site.person()
    ids = [await site.send([amara]) for _ in range(5)]
    read = (await site.record(amara, "READ", ids[0])).receipts[0]
    marked = await site.mark_all_read(amara)
    assert marked.unread_count == 0
    later = await site.send([amara])
    items = {item.broadcast_id: item for item in (await site.listed(amara)).items}
    assert items[ids[0]].read_at == read.read_at
    assert all(items[each].read_at == marked.read_time for each in ids[1:])
    assert not items[later].HasField("read_at")
    assert (
        await site.admin.fetchval("SELECT count(*) FROM watermarks WHERE recipient_number = $1", amara.number)
        == 1
    )


async def test_marking_all_read_again_changes_nothing(site: Site) -> None:
    """The first time stands until something arrives."""
    amara = site.person()
    await site.send([amara])
    first = await site.mark_all_read(amara)
    assert await site.mark_all_read(amara) == first
    await site.send([amara])
    assert (await site.mark_all_read(amara)).read_time.ToNanoseconds() > first.read_time.ToNanoseconds()


async def test_bad_receipts_are_refused(site: Site) -> None:
    """No ids, too many, no ids at all, no action, an url without a click and a click without one."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    assert (await refused(site, amara, "READ")).violations[0].field == "broadcast_ids"
    assert (await refused(site, amara, "READ", *[str(uuid4())] * 101)).reason_name == "TOO_LARGE"
    assert (await refused(site, amara, "READ", "x")).violations[0].field == "broadcast_ids[0]"
    assert (await refused(site, amara, "UNSPECIFIED", broadcast_id)).violations[0].field == "action"
    assert (await refused(site, amara, "READ", broadcast_id, url="/x")).reason_name == "INVALID_FIELD"
    assert (await refused(site, amara, "CLICKED", broadcast_id)).reason_name == "INVALID_FIELD"
    assert await site.unread(amara) == 1


async def test_an_acknowledged_critical_broadcast_is_told_to_auditors_once(site: Site) -> None:
    """Nothing is told of others, or of a repetition."""
    amara = site.person()
    critical, normal = await site.send([amara], **CRITICAL), await site.send([amara])
    with capture_logs() as lines:
        await site.record(amara, "ACKNOWLEDGED", critical, normal)
        await site.record(amara, "ACKNOWLEDGED", critical)
    told = [line for line in lines if line["event"] == "critical_broadcast_acknowledged"]
    assert [(line["broadcast_id"], line["recipient_number"]) for line in told] == [(critical, amara.number)]


async def test_engagement_counts_people(site: Site) -> None:
    """Whoever read by receipt or by "all read", once each; alerts and repetitions count nobody."""
    people = site.people(30)
    broadcast_id = await site.send(people, **CRITICAL)
    await site.deliver(broadcast_id, people, ALERT)
    await site.record(people[0], "READ", broadcast_id)
    await site.record(people[1], "ACKNOWLEDGED", broadcast_id)
    await site.record(people[1], "DISMISSED", broadcast_id)
    await site.record(people[2], "CLICKED", broadcast_id, url="/x")
    for person in (people[0], people[3], people[4]):
        await site.mark_all_read(person)
    counted = await site.engagement(broadcast_id)
    assert (counted.delivered, counted.read, counted.acknowledged, counted.dismissed, counted.clicked) == (
        30,
        5,
        1,
        1,
        1,
    )
    assert await site.engagement(str(uuid4())) == common_pb2.Engagement()


async def test_all_read_before_an_arrival_does_not_read_it(site: Site) -> None:
    """For dense blocks and single rows alike."""
    people = site.people(12)
    await site.send(people)
    for person in people:
        await site.mark_all_read(person)
    for to in (people, people[:1]):
        assert (await site.engagement(await site.send(to))).read == 0


async def test_readers_are_those_of_the_asked_who_have_read(site: Site) -> None:
    """By receipt or "all read", in a crowd or alone, and nobody who was not asked about."""
    people = site.people(20)
    crowd, alone = await site.send(people), await site.send(people[:1])
    await site.record(people[0], "READ", crowd)
    await site.mark_all_read(people[1])
    await site.record(people[2], "ACKNOWLEDGED", crowd)
    asked = [people[0], people[1], people[5]]
    assert await _readers(site, crowd, asked) == {people[0].number, people[1].number}
    assert await _readers(site, alone, asked) == set()
    await site.mark_all_read(people[0])
    assert await _readers(site, alone, asked) == {people[0].number}
    assert await _readers(site, str(uuid4()), asked) == set()


async def test_asking_for_readers_with_rubbish_is_refused(site: Site) -> None:
    """Bytes that are no bitmap, and more people than an alert is for."""
    for members in (b"rubbish", Audience.of(range(1, CHUNK_MEMBERS + 2)).to_bytes()):
        request = inbox_pb2.ListReadersRequest(broadcast_id=str(uuid4()), members=members)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.stub.ListReaders(request, metadata=site.internal)
        assert error_of(caught.value).violations[0].field == "members"


async def _readers(site: Site, broadcast_id: str, people: list[Person]) -> set[int]:
    members = Audience.of(person.number for person in people).to_bytes()
    request = inbox_pb2.ListReadersRequest(broadcast_id=broadcast_id, members=members)
    answer = await site.stub.ListReaders(request, metadata=site.internal)
    return set(Audience.from_bytes(answer.readers).to_list())


async def test_calls_with_many_items_at_once_are_all_recorded(site: Site) -> None:
    """More than one transaction takes, by several people at the same time."""
    people = site.people(5)
    ids = list(await asyncio.gather(*(site.send(people) for _ in range(60))))
    answers = await asyncio.gather(*(site.record(person, "READ", *ids) for person in people))
    assert [[receipt.broadcast_id for receipt in answer.receipts] for answer in answers] == [ids] * 5
    assert [answer.unread_count for answer in answers] == [0] * 5
