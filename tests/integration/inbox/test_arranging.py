"""Snoozes and pins: what they do to lists, badges and screens, and what they are not for."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import inbox_pb2

from services.inbox.domain import MOST_PINNED
from shared.errors import NotFound, ServiceError
from shared.failpoints import armed
from tests.integration.inbox.site import Person, Site, error_of
from tests.integration.inbox.stores import is_waiting_for_the_log
from tests.integration.inbox.test_receipts import CRITICAL
from tests.integration.inbox.watching import watching
from tests.integration.shared.polling import until, until_equal


async def refused(call: "asyncio.Future[object] | object") -> ServiceError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return error_of(caught.value)


async def test_a_snoozed_item_is_out_of_list_and_badge_until_its_time(site: Site) -> None:
    """Then it is back at the place of its arrival, unread as before, without anybody doing anything."""
    amara = site.person()
    first, second, third = [await site.send([amara]) for _ in range(3)]
    answer = await site.snooze(amara, second, 1.0)
    assert answer.unread_count == 2
    assert answer.receipt.HasField("snoozed_until")
    listed = await site.listed(amara)
    assert [item.broadcast_id for item in listed.items] == [third, first]
    assert (listed.unread_count, listed.total_count, await site.unread(amara)) == (2, 2, 2)
    assert await site.ids(amara, include_snoozed=True) == [third, second, first]
    request = inbox_pb2.GetInboxItemRequest(broadcast_id=second)
    item = (await site.stub.GetInboxItem(request, metadata=amara.metadata)).item
    assert item.snoozed_until == answer.receipt.snoozed_until
    await until_equal([third, second, first], lambda: site.ids(amara))
    assert await site.unread(amara) == 3
    item = (await site.stub.GetInboxItem(request, metadata=amara.metadata)).item
    assert not item.HasField("snoozed_until")


async def test_screens_follow_a_snooze_and_its_end(site: Site) -> None:
    """Other devices hide it, and are given it whole when it is back, each time with the badge."""
    amara = site.person()
    broadcast_id = await site.send([amara], title="Cake")
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        answer = await site.snooze(amara, broadcast_id, 1.0)
        assert list((await watcher.next("updated")).receipts) == [answer.receipt]
        assert (await watcher.next("unread_count")).unread_count == 0
        returned = await watcher.next("updated")
        assert [(item.broadcast_id, item.title) for item in returned.items] == [(broadcast_id, "Cake")]
        assert [each.HasField("snoozed_until") for each in returned.receipts] == [False]
        assert (await watcher.next("unread_count")).unread_count == 1


async def test_a_device_that_was_away_when_a_snooze_ended_is_given_the_item(site: Site) -> None:
    """It goes on from its cursor: the snooze, its end with the item, and the badge as it is."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    await site.snooze(amara, broadcast_id, 0.3)
    await until_equal([broadcast_id], lambda: site.ids(amara))
    await until_equal(0, lambda: _snoozes(site, broadcast_id))
    async with watching(site, amara, cursor) as watcher:
        assert (await watcher.next("updated")).receipts[0].HasField("snoozed_until")
        assert [each.broadcast_id for each in (await watcher.next("updated")).items] == [broadcast_id]
        assert (await watcher.next("unread_count")).unread_count == 1


async def test_what_is_snoozed_again_is_hidden_until_the_new_time(site: Site) -> None:
    """Later or sooner; without a time it is back at once, and a second time that changes nothing."""
    amara = site.person()
    broadcast_id, other = await site.send([amara]), await site.send([amara])
    await site.snooze(amara, broadcast_id, 0.3)
    later = await site.snooze(amara, broadcast_id, 3600)
    assert later.receipt.snoozed_until.ToDatetime(UTC) > datetime.now(UTC) + timedelta(minutes=50)
    await site.snooze(amara, other, 0.5)
    assert await site.ids(amara) == []
    await until_equal([other], lambda: site.ids(amara))
    for _ in range(2):
        back = await site.snooze(amara, broadcast_id, None)
        assert (back.unread_count, back.receipt.HasField("snoozed_until")) == (2, False)
    assert await site.ids(amara) == [other, broadcast_id]


async def test_what_is_read_or_dismissed_while_it_is_snoozed_counts_once(site: Site) -> None:
    """Read, it comes back read; dismissed, its snooze is over, and restored it is in the list."""
    amara = site.person()
    first, second, third = [await site.send([amara]) for _ in range(3)]
    for broadcast_id in (first, second):
        await site.snooze(amara, broadcast_id, 3600)
    assert (await site.record(amara, "READ", first)).unread_count == 1
    assert (await site.record(amara, "DISMISSED", second)).unread_count == 1
    assert await site.ids(amara) == [third]
    restored = await site.record(amara, "RESTORED", second)
    assert not restored.receipts[0].HasField("snoozed_until")
    assert await site.ids(amara) == [third, second]
    assert (await site.snooze(amara, first, None)).unread_count == 1
    assert (await site.listed(amara)).total_count == 3


async def test_a_restored_item_is_back_everywhere(site: Site) -> None:
    """In the list at its place, read as it was, and other devices are told."""
    amara = site.person()
    first, second = await site.send([amara]), await site.send([amara])
    await site.record(amara, "DISMISSED", first)
    async with watching(site, amara) as watcher:
        snapshot = await watcher.next("snapshot")
        assert [item.broadcast_id for item in snapshot.items] == [second]
        answer = await site.record(amara, "RESTORED", first)
        (receipt,) = (await watcher.next("updated")).receipts
        assert receipt == answer.receipts[0]
        assert (receipt.HasField("dismissed_at"), receipt.HasField("read_at")) == (False, True)
        assert (await watcher.next("unread_count")).unread_count == 1
    listed = await site.listed(amara)
    assert [item.broadcast_id for item in listed.items] == [second, first]
    assert (listed.unread_count, listed.total_count) == (1, 2)


async def test_a_critical_item_cannot_be_dismissed_before_it_is_acknowledged(site: Site) -> None:
    """The error names it, nothing of the call is done; snoozed it can be, and comes back."""
    amara = site.person()
    critical, other = await site.send([amara], **CRITICAL), await site.send([amara])
    error = await refused(site.record(amara, "DISMISSED", other, critical))
    assert (error.reason_name, error.metadata["broadcast_id"]) == ("ILLEGAL_STATE", critical)
    assert await site.ids(amara) == [other, critical]
    assert (await site.snooze(amara, critical, 3600)).unread_count == 1


async def test_pinned_items_are_on_top(site: Site) -> None:
    """Newest arrival first, in the list and in what a stream starts with; other devices are told; each can go back."""
    amara = site.person()
    ids = [await site.send([amara]) for _ in range(4)]
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        answer = await site.pin(amara, ids[0])
        assert list((await watcher.next("updated")).receipts) == [answer.receipt]
        assert answer.receipt.HasField("pinned_at")
    await site.pin(amara, ids[2])
    expected = [ids[2], ids[0], ids[3], ids[1]]
    assert await site.ids(amara) == expected
    async with watching(site, amara) as watcher:
        snapshot = await watcher.next("snapshot")
        assert [item.broadcast_id for item in snapshot.items] == expected
        assert [item.HasField("pinned_at") for item in snapshot.items] == [True, True, False, False]
    assert (await site.pin(amara, ids[0])).receipt == answer.receipt
    await site.pin(amara, ids[2], unpin=True)
    assert await site.ids(amara) == [ids[0], ids[3], ids[2], ids[1]]
    assert await site.unread(amara) == 4


async def test_twenty_items_can_be_pinned(site: Site) -> None:
    """One more is refused until one is taken down, dismissed or taken back."""
    amara = site.person()
    ids = [await site.send([amara]) for _ in range(MOST_PINNED + 3)]
    for broadcast_id in ids[:MOST_PINNED]:
        await site.pin(amara, broadcast_id)
    for makes_room in (
        lambda: site.pin(amara, ids[0], unpin=True),
        lambda: site.record(amara, "DISMISSED", ids[1]),
        lambda: site.retract(ids[2], hide=True),
    ):
        last = ids.pop()
        assert (await refused(site.pin(amara, last))).reason_name == "ILLEGAL_STATE"
        await makes_room()
        await site.pin(amara, last)


async def test_what_is_dismissed_is_neither_snoozed_nor_pinned(site: Site) -> None:
    """It is restored first; either may be ended."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    await site.record(amara, "DISMISSED", broadcast_id)
    for call in (site.snooze(amara, broadcast_id, 60), site.pin(amara, broadcast_id)):
        error = await refused(call)
        assert (error.reason_name, error.metadata["broadcast_id"]) == ("ILLEGAL_STATE", broadcast_id)
    await site.snooze(amara, broadcast_id, None)
    await site.pin(amara, broadcast_id, unpin=True)


async def test_what_is_not_in_the_inbox_cannot_be_kept_anywhere(site: Site) -> None:
    """Somebody else's, behind a wall, taken back, expired, and what never was are not found in the same words."""
    amara, jonas = site.people(2)
    wedding = site.wedding(amara)
    walled = site.about(wedding)
    await site.deliver(walled, [amara])
    await site.set_team(wedding)
    gone = await site.send([amara])
    await site.retract(gone, hide=True)
    expired = await site.send([amara], expires_at={"seconds": 1_000_000_000})
    for broadcast_id in (await site.send([jonas]), walled, gone, expired, str(uuid4())):
        for call in (site.snooze(amara, broadcast_id, 60), site.pin(amara, broadcast_id)):
            error = await refused(call)
            assert (error.reason_name, str(error)) == ("NOT_FOUND", str(NotFound()))


@pytest.mark.parametrize("seconds", [-60.0, 0.0, 367 * 86_400.0])
async def test_a_snooze_ends_within_the_next_year(site: Site, seconds: float) -> None:
    """A time that is past or too far away is refused, and the field is named."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    error = await refused(site.snooze(amara, broadcast_id, seconds))
    assert [violation.field for violation in error.violations] == ["snooze_until"]
    assert (await site.snooze(amara, broadcast_id, 365 * 86_400.0)).unread_count == 0


async def test_a_repeated_call_gets_the_first_answer_and_does_nothing(site: Site) -> None:
    """Whatever was undone meanwhile, and though the time of the snooze is over; another body is refused."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    request = inbox_pb2.SnoozeItemRequest(broadcast_id=broadcast_id, request_id=request_id)
    request.snooze_until.FromDatetime(datetime.now(UTC) + timedelta(seconds=0.4))
    answer = await site.stub.SnoozeItem(request, metadata=amara.metadata)
    await until_equal([broadcast_id], lambda: site.ids(amara))
    again = await site.stub.SnoozeItem(request, metadata=amara.metadata)
    assert again == answer
    assert await site.ids(amara) == [broadcast_id]
    assert (
        await refused(site.snooze(amara, broadcast_id, None, request_id))
    ).reason_name == "REQUEST_ID_REUSED"
    pinned = await site.pin(amara, broadcast_id, request_id=request_id)
    await site.pin(amara, broadcast_id, unpin=True)
    assert await site.pin(amara, broadcast_id, request_id=request_id) == pinned
    assert not (await site.listed(amara)).items[0].HasField("pinned_at")
    reused = site.pin(amara, broadcast_id, unpin=True, request_id=request_id)
    assert (await refused(reused)).reason_name == "REQUEST_ID_REUSED"


async def test_a_call_that_was_refused_may_be_tried_again(site: Site) -> None:
    """Its id is free."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    await site.record(amara, "DISMISSED", broadcast_id)
    assert (
        await refused(site.pin(amara, broadcast_id, request_id=request_id))
    ).reason_name == "ILLEGAL_STATE"
    await site.record(amara, "RESTORED", broadcast_id)
    assert (await site.pin(amara, broadcast_id, request_id=request_id)).receipt.HasField("pinned_at")


@pytest.mark.parametrize(
    ("step", "is_done"),
    [
        ("inbox.arrange.before_commit", False),
        ("inbox.arrange.after_commit", True),
        ("inbox.answer.before_commit", True),
    ],
)
async def test_a_pin_is_once_whatever_crashes(site: Site, step: str, is_done: bool) -> None:
    """What was undone between the two tries stays so when the first had done it."""
    amara = site.person()
    broadcast_id, request_id = await site.send([amara]), str(uuid4())
    with armed(f"{step}=error@1") as plan:
        await refused(site.pin(amara, broadcast_id, request_id=request_id))
        assert plan.hits[step] >= 1
    await site.pin(amara, broadcast_id, unpin=True)
    answer = await site.pin(amara, broadcast_id, request_id=request_id)
    assert answer.receipt.HasField("pinned_at") is not is_done
    assert await site.pin(amara, broadcast_id, request_id=request_id) == answer


async def test_a_snooze_ends_though_the_database_was_away(site: Site) -> None:
    """Nobody is told of it while nothing can be said; then they are."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        with armed("inbox.time.before_commit=error") as plan:
            await site.snooze(amara, broadcast_id, 0.2)
            await watcher.next("updated")
            await watcher.next("unread_count")
            await until_equal([broadcast_id], lambda: site.ids(amara))
            await until(lambda: plan.hits["inbox.time.before_commit"] >= 2)
            assert watcher.nothing()
        returned = await watcher.next("updated")
        assert [item.broadcast_id for item in returned.items] == [broadcast_id]


async def test_a_broadcast_that_expires_leaves_screens_and_their_badges(site: Site) -> None:
    """Those who have it are told, at once, and what their badge is by then."""
    amara = site.person()
    other = await site.send([amara])
    soon = datetime.now(UTC) + timedelta(seconds=1)
    broadcast_id = await site.send([amara], expires_at=soon)
    async with watching(site, amara) as watcher:
        assert (await watcher.next("snapshot")).unread_count == 2
        assert list((await watcher.next("retracted")).broadcast_ids) == [broadcast_id]
        assert (await watcher.next("unread_count")).unread_count == 1
    assert await site.ids(amara) == [other]


async def test_what_is_snoozed_and_dismissed_at_the_same_moment_is_back_when_it_is_restored(
    site: Site,
) -> None:
    """The snooze commits while the dismissal waits for its place in the log: it is over then, like any other."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    answer = await _while_it_is_arranged(site, amara, broadcast_id, "snoozed", "DISMISSED")
    assert not answer.receipts[0].HasField("snoozed_until")
    assert answer.unread_count == 0
    await site.record(amara, "RESTORED", broadcast_id)
    listed = await site.listed(amara)
    assert [(item.broadcast_id, item.HasField("snoozed_until")) for item in listed.items] == [
        (broadcast_id, False)
    ]
    assert listed.total_count == 1


@pytest.mark.parametrize(("change", "name"), [("snoozed", "snoozed_until"), ("pinned", "pinned_at")])
async def test_what_is_read_at_the_moment_that_it_is_arranged_stays_so_on_screens(
    site: Site, change: str, name: str
) -> None:
    """The last that other devices hear of the item is what stands: read, and where it is kept."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        answer = await _while_it_is_arranged(site, amara, broadcast_id, change, "READ")
        assert answer.receipts[0].HasField(name)
        await until(
            lambda: (
                [each.updated.receipts for each in watcher.events if each.HasField("updated")][-1:]
                == [answer.receipts]
            )
        )
    assert (await site.listed(amara, unread_only=True, include_snoozed=True)).total_count == 0


async def _while_it_is_arranged(
    site: Site, person: Person, broadcast_id: str, change: str, action: str
) -> inbox_pb2.RecordReceiptsResponse:
    """Record something of an item while somebody arranges it who is before this in the log."""
    async with site.admin.transaction():
        arranged = "SELECT outcome FROM arrange_item($1, $2, $3, now() + interval '1 hour', 20)"
        assert await site.admin.fetchval(arranged, person.number, broadcast_id, change) == "arranged"
        recording = asyncio.create_task(site.record(person, action, broadcast_id))
        await until_equal(True, lambda: is_waiting_for_the_log(site.database.admin_url))
    return await recording


async def _snoozes(site: Site, broadcast_id: str) -> int:
    query = "SELECT count(snoozed_until) FROM arrangements WHERE broadcast_id = $1"
    return int(await site.admin.fetchval(query, broadcast_id))
