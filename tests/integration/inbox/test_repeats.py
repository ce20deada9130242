"""What a person does is done once for a request_id, and answered as it was the first time."""

import asyncio
import json
from datetime import timedelta
from uuid import UUID, uuid4

import grpc
import pytest
from wedsync.broadcast.v1.inbox_pb2 import RecordReceiptsResponse

from services.inbox.domain import ReceiptAction
from services.inbox.work_store import ReceiptCall, Recorded, WorkStore
from shared import database
from shared.failpoints import armed
from shared.replays import KeptAnswers, Request
from stack.provision import SuiteDatabase
from tests.integration.inbox.aging import clean_up
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.site import Person, Site, error_of
from tests.integration.inbox.stores import Stores
from tests.integration.inbox.test_receipts import CRITICAL
from tests.integration.shared.insisting import all_at_once, until_answered

DAY = timedelta(hours=24)


async def refusal(call: "asyncio.Future[object] | object") -> str:
    """The reason for which a call was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return error_of(caught.value).reason_name


async def entries(site: Site, person: Person) -> int:
    """How often the log says that this person did something."""
    told = "SELECT convert_from(body, 'UTF8') FROM log WHERE kind IN ('receipts', 'all_read')"
    bodies = [json.loads(row[0]) for row in await site.admin.fetch(told)]
    people = [
        body["recipient"] if isinstance(body, dict) else receipt[0]
        for body in bodies
        for receipt in ([body] if isinstance(body, dict) else body)
    ]
    return people.count(person.number)


async def age(site: Site, request_id: str, by: timedelta) -> None:
    """Make an answer that much older."""
    done = await site.admin.execute(
        "UPDATE requests SET at = at - $2::interval WHERE request_id = $1", request_id, by
    )
    assert done == "UPDATE 1"


async def test_a_repeated_receipt_gets_the_first_answer(site: Site) -> None:
    """To the byte, whatever has arrived, was restored or was read meanwhile; and nothing is done again."""
    amara = site.person()
    first, second = await site.send([amara]), await site.send([amara])
    request_id = str(uuid4())
    answer = await site.record(amara, "DISMISSED", first, request_id=request_id)
    assert answer.unread_count == 1
    await site.send([amara])
    await site.record(amara, "RESTORED", first)
    await site.record(amara, "READ", second)
    before = await entries(site, amara)
    again = await site.record(amara, "DISMISSED", first, request_id=request_id)
    assert again.SerializeToString(deterministic=True) == answer.SerializeToString(deterministic=True)
    assert first in await site.ids(amara)
    assert await entries(site, amara) == before


async def test_items_that_were_unknown_stay_unknown_to_a_repetition(site: Site) -> None:
    """Also when they have arrived since: what was not done the first time is not done by its repetition."""
    amara, jonas = site.people(2)
    broadcast_id, request_id = await site.send([jonas]), str(uuid4())
    answer = await site.record(amara, "READ", broadcast_id, request_id=request_id)
    assert list(answer.unknown_broadcast_ids) == [broadcast_id]
    await site.deliver(broadcast_id, [amara])
    assert await site.record(amara, "READ", broadcast_id, request_id=request_id) == answer
    assert await site.unread(amara) == 1


async def test_all_read_again_leaves_what_has_come_since(site: Site) -> None:
    """The repetition says what the first call said, and reads nothing."""
    amara = site.person()
    await site.send([amara])
    request_id = str(uuid4())
    answer = await site.mark_all_read(amara, request_id)
    await site.send([amara])
    again = await site.mark_all_read(amara, request_id)
    assert again.SerializeToString() == answer.SerializeToString()
    assert await site.unread(amara) == 1


async def test_another_body_under_the_same_id_is_refused(site: Site) -> None:
    """And does nothing; the first answer stands."""
    amara = site.person()
    first, second = await site.send([amara]), await site.send([amara])
    request_id = str(uuid4())
    answer = await site.record(amara, "READ", first, request_id=request_id)
    for action, broadcast_id in (("READ", second), ("DISMISSED", first)):
        call = site.record(amara, action, broadcast_id, request_id=request_id)
        assert await refusal(call) == "REQUEST_ID_REUSED"
    assert await site.unread(amara) == 1
    assert await site.record(amara, "READ", first, request_id=request_id) == answer


async def test_ids_of_other_callers_and_other_methods_do_not_meet(site: Site) -> None:
    """Two people may happen upon one id, and one person use it for two methods."""
    amara, jonas = site.people(2)
    broadcast_id, request_id = await site.send([amara, jonas]), str(uuid4())
    await site.record(amara, "READ", broadcast_id, request_id=request_id)
    assert (await site.record(jonas, "READ", broadcast_id, request_id=request_id)).unread_count == 0
    await site.send([amara])
    assert (await site.mark_all_read(amara, request_id)).unread_count == 0
    assert await site.unread(jonas) == 0


async def test_what_was_refused_may_be_tried_again(site: Site) -> None:
    """The id of a call that broke a rule is free, and so is that of one that came too early."""
    amara = site.person()
    critical, request_id = await site.send([amara], **CRITICAL), str(uuid4())
    assert await refusal(site.record(amara, "CLICKED", critical, request_id=request_id)) == "INVALID_FIELD"
    assert await refusal(site.record(amara, "DISMISSED", critical, request_id=request_id)) == "ILLEGAL_STATE"
    assert await site.admin.fetchval("SELECT count(*) FROM requests WHERE request_id = $1", request_id) == 0
    await site.record(amara, "ACKNOWLEDGED", critical)
    assert len((await site.record(amara, "DISMISSED", critical, request_id=request_id)).receipts) == 1


async def test_fifty_calls_with_one_id_are_one(site: Site) -> None:
    """One does it, the others wait for its answer; the log is told once."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    answers = await all_at_once(
        lambda: site.record(amara, "DISMISSED", broadcast_id, request_id=request_id), 50
    )
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1
    assert await entries(site, amara) == 1
    await site.send([amara])
    marked = await all_at_once(lambda: site.mark_all_read(amara, request_id), 50)
    assert len({answer.SerializeToString() for answer in marked}) == 1
    assert await entries(site, amara) == 2


async def test_repetitions_do_not_touch_the_calls_beside_them(site: Site) -> None:
    """New, repeated, reused and refused ones, with and without an id, are committed together and answered each."""
    people = site.people(30)
    critical, normal = await site.send(people, **CRITICAL), await site.send(people)
    ids = [str(uuid4()) if place % 2 else "" for place in range(30)]
    repeated = people[1:30:6]
    first = {
        person.number: await site.record(person, "READ", normal, request_id=ids[place])
        for place, person in enumerate(people)
        if person in repeated
    }

    async def call(place: int) -> RecordReceiptsResponse:
        action, broadcast_id = ("DISMISSED", critical) if place % 5 == 0 else ("READ", normal)
        return await until_answered(
            lambda: site.record(people[place], action, broadcast_id, request_id=ids[place])
        )

    results = await asyncio.gather(*map(call, range(30)), return_exceptions=True)
    for place, (person, result) in enumerate(zip(people, results, strict=True)):
        if isinstance(result, grpc.aio.AioRpcError):
            reused = person in repeated
            wanted = "REQUEST_ID_REUSED" if reused else "ILLEGAL_STATE"
            assert (place % 5, error_of(result).reason_name) == (0, wanted)
        else:
            assert [receipt.broadcast_id for receipt in result.receipts] == [normal]
            assert place % 5 != 0
            assert person not in repeated or result == first[person.number]


@pytest.mark.parametrize(
    "step", ["inbox.receipts.after_commit", "inbox.answer.before_commit", "inbox.answer.after_commit"]
)
async def test_receipts_that_were_recorded_before_a_crash_are_not_recorded_again(
    site: Site, step: str
) -> None:
    """The caller is told that it failed; the repetition gets an answer and leaves alone what was undone meanwhile."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    with armed(f"{step}=error@1") as plan:
        with pytest.raises(grpc.aio.AioRpcError):
            await site.record(amara, "DISMISSED", broadcast_id, request_id=request_id)
        assert plan.hits[step] >= 1
    assert await site.ids(amara) == []
    await site.record(amara, "RESTORED", broadcast_id)
    answer = await site.record(amara, "DISMISSED", broadcast_id, request_id=request_id)
    assert [receipt.broadcast_id for receipt in answer.receipts] == [broadcast_id]
    assert await site.ids(amara) == [broadcast_id]
    await site.send([amara])
    assert await site.record(amara, "DISMISSED", broadcast_id, request_id=request_id) == answer


async def test_receipts_that_were_not_committed_are_recorded_by_the_repetition(site: Site) -> None:
    """A crash before the commit leaves nothing, the id included."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    with armed("inbox.receipts.before_commit=error@1"), pytest.raises(grpc.aio.AioRpcError):
        await site.record(amara, "DISMISSED", broadcast_id, request_id=request_id)
    assert await site.ids(amara) == [broadcast_id]
    await site.record(amara, "DISMISSED", broadcast_id, request_id=request_id)
    assert await site.ids(amara) == []


@pytest.mark.parametrize(
    ("step", "is_done"), [("inbox.all_read.before_commit", False), ("inbox.all_read.after_commit", True)]
)
async def test_all_read_is_done_once_whatever_crashes(site: Site, step: str, is_done: bool) -> None:
    """What came between the two tries is read only when the first did nothing."""
    amara = site.person()
    await site.send([amara])
    request_id = str(uuid4())
    with armed(f"{step}=error@1"), pytest.raises(grpc.aio.AioRpcError):
        await site.mark_all_read(amara, request_id)
    await site.send([amara])
    answer = await site.mark_all_read(amara, request_id)
    assert answer.unread_count == await site.unread(amara) == (1 if is_done else 0)
    assert await site.mark_all_read(amara, request_id) == answer


async def test_an_answer_holds_for_a_day(site: Site) -> None:
    """A moment before it is over the repetition gets it; then the id is free, for another body too."""
    amara = site.person()
    first, second = await site.send([amara]), await site.send([amara])
    request_id = str(uuid4())
    answer = await site.record(amara, "READ", first, request_id=request_id)
    await age(site, request_id, DAY - timedelta(minutes=1))
    assert await site.record(amara, "READ", first, request_id=request_id) == answer
    await age(site, request_id, timedelta(minutes=1))
    other = await site.record(amara, "READ", second, request_id=request_id)
    assert [receipt.broadcast_id for receipt in other.receipts] == [second]
    assert await refusal(site.record(amara, "READ", first, request_id=request_id)) == "REQUEST_ID_REUSED"


async def test_answers_go_when_they_hold_no_longer(stores: Stores) -> None:
    """With what retention removes; those of the last day stay."""
    old, new = (Request(str(uuid4()), "MarkAllRead", str(uuid4()), bytes(32)) for _ in range(2))
    number = stores.new_number()
    for request in (old, new):
        await stores.work.mark_all_read(number, request)
    await stores.admin.execute(
        "UPDATE requests SET at = at - $2::interval WHERE request_id = $1", old.request_id, DAY
    )
    await clean_up(stores)
    left = "SELECT array_agg(request_id::text) FROM requests WHERE request_id = ANY ($1)"
    assert await stores.admin.fetchval(left, [old.request_id, new.request_id]) == [new.request_id]


async def test_a_repetition_asks_no_other_service(site: Site) -> None:
    """It is answered by an inbox that has just started while the directory cannot be reached."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    answer = await site.record(amara, "READ", broadcast_id, request_id=request_id)
    await site.restart()
    del site.neighbours.directory.numbers[str(amara.user_id)]
    assert await site.record(amara, "READ", broadcast_id, request_id=request_id) == answer


async def test_two_nodes_record_one_call_once(stores: Stores, inbox_database: SuiteDatabase) -> None:
    """They meet at the request_id: one records, the other waits for it and then records nothing."""
    number, broadcast_id = stores.new_number(), uuid4()
    await stores.arrive(a_content(broadcast_id), [number])
    other = await database.connect(inbox_database.url("inbox", "worker"), application_name="test")
    request = Request(str(uuid4()), "RecordReceipts", str(uuid4()), bytes(32))
    call = ReceiptCall(number, (broadcast_id,), ReceiptAction.ACKNOWLEDGED, None, request)
    nodes = (stores.work, WorkStore(other))
    done = await asyncio.gather(*(nodes[place % 2].record_receipts([call]) for place in range(20)))
    results = [result for [result], _ in done if isinstance(result, list)]
    assert sum(each.newly_acknowledged for [each] in results) == 1
    assert len({each.receipt for [each] in results}) == 1
    assert [position is not None for _, position in done].count(True) == 1
    answers = [KeptAnswers(each, "inbox") for each in (stores.worked, other)]
    kept = await asyncio.gather(
        *(answers[place % 2].complete([(request, bytes([place]))]) for place in range(20))
    )
    assert len({standing for [standing] in kept}) == 1
    [repeated], _ = await stores.work.record_receipts([call])
    assert not isinstance(repeated, list)
    assert repeated.answer() == kept[0][0]
    await other.close()


async def test_calls_of_different_people_wait_for_each_other_in_one_order(
    stores: Stores, inbox_database: SuiteDatabase
) -> None:
    """Two nodes with the same people's calls in opposite orders both come to an end."""
    numbers = [stores.new_number() for _ in range(10)]
    broadcast_id = uuid4()
    await stores.arrive(a_content(broadcast_id), numbers)
    other = await database.connect(inbox_database.url("inbox", "worker"), application_name="test")
    calls = [
        ReceiptCall(
            number, (broadcast_id,), ReceiptAction.READ, None,
            Request(str(UUID(int=number)), "RecordReceipts", str(uuid4()), bytes(32)),
        )
        for number in numbers
    ]  # fmt: skip
    for _ in range(5):
        (one, _), (two, _) = await asyncio.gather(
            stores.work.record_receipts(calls), WorkStore(other).record_receipts(calls[::-1])
        )
        assert _receipts(one) == _receipts(two[::-1])
    await other.close()


def _receipts(results: list[list[Recorded] | object]) -> list[object]:
    return [each.receipt for result in results if isinstance(result, list) for each in result]
