"""Chunks on their way into inboxes: each arrives once, whatever is sent, lost or repeated."""

import asyncio
import random
from uuid import uuid4

from wedsync.broadcast.v1 import common_pb2, events_pb2

from shared.audience import Audience
from tests.integration.inbox.site import ALERT, SILENT_ITEM, Site, a_chunk
from tests.integration.shared.polling import until, until_equal

MERGED, STOPPED = events_pb2.REPORT_OUTCOME_MERGED, events_pb2.REPORT_OUTCOME_STOPPED


async def test_a_chunk_is_in_every_members_inbox_and_in_no_other(site: Site) -> None:
    """Members see the broadcast, and nobody else has it."""
    amara, jonas, outsider = site.people(3)
    broadcast_id = await site.send([amara, jonas], title="Hello", message="World")
    for person in (amara, jonas):
        listed = await site.listed(person)
        assert [(item.broadcast_id, item.title) for item in listed.items] == [(broadcast_id, "Hello")]
        assert (listed.unread_count, listed.total_count) == (1, 1)
    assert await site.ids(outsider) == []


async def test_an_item_carries_all_that_its_broadcast_says(site: Site) -> None:
    """Type, category, priority, texts, action, wedding, times and silence are as they were sent."""
    amara = site.person()
    wedding_id = site.wedding(amara)
    broadcast_id = site.broadcast(
        type="wedding.emergency",
        category=common_pb2.CATEGORY_WEDDING,
        priority=common_pb2.PRIORITY_CRITICAL,
        title="Rain",
        message="We move\tinside.\nNow.",
        action=common_pb2.Action(label="Plan B", url="https://example.com/b"),
        wedding=common_pb2.Wedding(
            wedding_id=wedding_id, couple_name="A & J", wedding_date={"year": 2027, "month": 6, "day": 5}
        ),
        targeting=common_pb2.Targeting(wedding_ids=[wedding_id]),
        expires_at={"seconds": 4_000_000_000},
    )
    report = await site.deliver(broadcast_id, [amara], SILENT_ITEM)
    item = (await site.listed(amara)).items[0]
    order = site.neighbours.sender.orders[broadcast_id]
    for field in (
        "broadcast_id",
        "type",
        "category",
        "priority",
        "title",
        "message",
        "action",
        "wedding",
        "expires_at",
    ):
        assert getattr(item, field) == getattr(order, field), field
    assert item.silent
    assert item.delivered_at == report.time
    assert not item.HasField("read_at")


async def test_a_report_says_size_position_and_time(site: Site) -> None:
    """Positions follow one another, and the size is that of the chunk as it was sent."""
    people = site.people(3)
    first = await site.deliver(site.broadcast(), people)
    second = await site.deliver(site.broadcast(), people[:2], epoch=7)
    assert (first.outcome, first.size, second.size, second.epoch) == (MERGED, 3, 2, 7)
    assert second.position == first.position + 1
    assert first.HasField("time")


async def test_a_chunk_that_comes_again_changes_nothing_and_is_reported_again(site: Site) -> None:
    """A second sending, at another epoch, finds the first: same position, one item, counted once."""
    amara = site.person()
    broadcast_id = site.broadcast()
    first = await site.deliver(broadcast_id, [amara], chunk=0)
    again = await site.deliver(broadcast_id, [amara], chunk=0, epoch=2)
    assert (again.outcome, again.position) == (MERGED, first.position)
    assert await site.ids(amara) == [broadcast_id]
    assert (await site.engagement(broadcast_id)).delivered == 1


async def test_many_copies_of_a_chunk_at_once_arrive_once(site: Site) -> None:
    """However many come at the same time, on whatever lane, one item is there and each is reported."""
    people = site.people(20)
    broadcast_id = site.broadcast()
    lanes = ("critical", "high", "normal", "low")
    reports = await asyncio.gather(
        *(
            site.deliver(broadcast_id, people, chunk=0, epoch=epoch, lane=lanes[epoch % 4])
            for epoch in range(1, 41)
        )
    )
    assert len({report.position for report in reports}) == 1
    assert await site.ids(people[7]) == [broadcast_id]
    assert (await site.engagement(broadcast_id)).delivered == 20


async def test_someone_who_is_moved_to_another_chunk_has_the_item_once(site: Site) -> None:
    """A chunk is cut anew after it had been merged: its rest comes as another chunk, and nobody gets it twice."""
    people = site.people(30)
    broadcast_id = site.broadcast()
    await site.deliver(broadcast_id, people, chunk=0)
    again = await site.deliver(broadcast_id, people[:20], chunk=0, epoch=2)
    rest = await site.deliver(broadcast_id, people[20:], SILENT_ITEM, chunk=1)
    assert (again.size, rest.size) == (20, 10)
    for person in (people[0], people[25]):
        assert await site.ids(person) == [broadcast_id]
    assert (await site.engagement(broadcast_id)).delivered == 30
    more = site.people(5)
    await site.deliver(broadcast_id, [*people[5:], *more], chunk=2)
    assert (await site.engagement(broadcast_id)).delivered == 35
    assert await site.ids(more[0]) == [broadcast_id]


async def test_an_alert_adds_no_item(site: Site) -> None:
    """It is reported like any chunk, and the inbox stays as it is."""
    amara = site.person()
    broadcast_id = site.broadcast()
    await site.deliver(broadcast_id, [amara], SILENT_ITEM)
    newer = await site.send([amara])
    report = await site.deliver(broadcast_id, [amara], ALERT)
    assert (report.outcome, report.size) == (MERGED, 1)
    assert await site.ids(amara) == [newer, broadcast_id]
    assert (await site.engagement(broadcast_id)).delivered == 1


async def test_what_was_retracted_before_it_came_is_stopped(site: Site) -> None:
    """The tombstone is there before the broadcast is known; the chunk is refused for good."""
    amara = site.person()
    broadcast_id = site.broadcast()
    retracted = await site.retract(broadcast_id, hide=False)
    assert (retracted.arrived, list(retracted.chunks)) == (0, [])
    report = await site.deliver(broadcast_id, [amara])
    assert (report.outcome, report.position, report.size) == (STOPPED, 0, 1)
    assert await site.ids(amara) == []


async def test_what_came_before_the_retraction_stays_true(site: Site) -> None:
    """The merged chunk is reported as merged even after; the next is stopped; the retraction says what had arrived."""
    amara, jonas = site.people(2)
    broadcast_id = site.broadcast()
    await site.deliver(broadcast_id, [amara], chunk=3)
    retracted = await site.retract(broadcast_id, hide=False)
    assert (retracted.arrived, list(retracted.chunks)) == (1, [3])
    assert (await site.deliver(broadcast_id, [amara], chunk=3, epoch=2)).outcome == MERGED
    assert (await site.deliver(broadcast_id, [jonas], chunk=4)).outcome == STOPPED
    assert await site.ids(amara) == [broadcast_id]
    assert await site.ids(jonas) == []


async def test_retractions_and_chunks_at_once_agree_on_who_has_it(site: Site) -> None:
    """What a retraction says had arrived is exactly what was merged, however they race."""
    for _ in range(10):
        people = site.people(8)
        broadcast_id = site.broadcast()
        deliveries = [
            asyncio.create_task(site.deliver(broadcast_id, [person], chunk=chunk))
            for chunk, person in enumerate(people)
        ]
        for _ in range(random.randrange(60)):
            await asyncio.sleep(0)
        retracted = await site.retract(broadcast_id, hide=False)
        reports = await asyncio.gather(*deliveries)
        merged = [report.chunk for report in reports if report.outcome == MERGED]
        assert sorted(merged) == list(retracted.chunks)
        assert retracted.arrived == len(merged)


async def test_hiding_takes_out_what_had_arrived_and_can_come_later(site: Site) -> None:
    """The item leaves lists, counts and look-ups; a second hide is the same answer."""
    amara = site.person()
    stays = await site.send([amara])
    broadcast_id = await site.send([amara])
    await site.retract(broadcast_id, hide=False)
    assert await site.unread(amara) == 2
    for _ in range(2):
        retracted = await site.retract(broadcast_id, hide=True)
        assert (retracted.arrived, list(retracted.chunks)) == (1, [0])
        assert await site.ids(amara) == [stays]
        assert await site.unread(amara) == 1


async def test_the_content_is_fetched_once_for_all_chunks(site: Site) -> None:
    """Sixteen chunks at once ask the sender one time."""
    people = site.people(16)
    broadcast_id = site.broadcast()
    await asyncio.gather(*(site.deliver(broadcast_id, [person], chunk=n) for n, person in enumerate(people)))
    assert site.neighbours.sender.asked.count(broadcast_id) == 1


async def test_a_chunk_waits_for_a_sender_that_cannot_be_reached(site: Site) -> None:
    """Nothing is listed without its content; once the sender is back the chunk arrives."""
    amara = site.person()
    broadcast_id = site.broadcast()
    site.neighbours.sender.is_down = True
    await site.dispatcher.send(a_chunk(broadcast_id, [amara]))
    await until(lambda: broadcast_id in site.neighbours.sender.asked)
    assert await site.ids(amara) == []
    site.neighbours.sender.is_down = False
    await site.dispatcher.report(broadcast_id)
    assert await site.ids(amara) == [broadcast_id]


async def test_a_chunk_arrives_even_if_its_content_was_removed_meanwhile(site: Site) -> None:
    """A node that believes the content to be kept finds that it is not, and fetches it again."""
    amara, jonas = site.people(2)
    broadcast_id = await site.send([amara])
    for table in ("arrivals", "blocks", "direct", "broadcasts"):
        await site.admin.execute(f"DELETE FROM {table} WHERE broadcast_id = $1", broadcast_id)  # noqa: S608 tables of ours
    await site.deliver(broadcast_id, [jonas], chunk=1)
    assert await site.ids(jonas) == [broadcast_id]


async def test_messages_that_are_no_chunks_do_not_hold_up_the_others(site: Site) -> None:
    """Rubbish, nobody, too many blocks or people, an unknown kind, and chunks that do not go together are let go."""
    amara = site.person()
    scattered = a_chunk(site.broadcast(), range(0, 17 * 4096, 4096))
    broken = a_chunk(str(uuid4()), [amara])
    broken.members = b"nonsense"
    unkind = a_chunk(str(uuid4()), [amara])
    unkind.kind = events_pb2.ARRIVAL_KIND_UNSPECIFIED
    crowd = a_chunk(site.broadcast(), range(65_537), ALERT)
    nobody, nameless = a_chunk(str(uuid4()), []), a_chunk("not-an-id", [amara])
    for each in (scattered, broken, unkind, crowd, nobody, nameless):
        await site.dispatcher.send(each)
    one = a_chunk(site.broadcast(), [amara])
    await site.dispatcher.send()
    await site.dispatcher.send(one, one)
    await site.dispatcher.send(one, a_chunk(site.broadcast(), [amara], chunk=1))
    await site.dispatcher.send(*(a_chunk(one.broadcast_id, [amara], chunk=number) for number in range(65)))
    broadcast_id = await site.send([amara])
    assert await site.ids(amara) == [broadcast_id]


async def test_chunks_that_came_together_arrive_and_are_reported_together(site: Site) -> None:
    """Each at a position of its own, with those that had come before; a second time nothing moves."""
    amara, jonas, lena = site.people(3)
    broadcast_id = site.broadcast()
    chunks = [
        a_chunk(broadcast_id, [amara]),
        a_chunk(broadcast_id, [jonas], SILENT_ITEM, chunk=1),
        a_chunk(broadcast_id, [lena], chunk=2),
    ]
    await site.dispatcher.send(chunks[1])
    first = await site.dispatcher.report(broadcast_id, 1)
    await site.dispatcher.send(*chunks)
    reports = [await site.dispatcher.report(broadcast_id, number) for number in range(3)]
    assert reports[1] == first
    assert len({report.position for report in reports}) == 3
    assert {report.outcome for report in reports} == {MERGED}
    for chunk in chunks:
        chunk.epoch = 2
    await site.dispatcher.send(*chunks)
    again = [await site.dispatcher.report(broadcast_id, number, epoch=2) for number in range(3)]
    assert [report.position for report in again] == [report.position for report in reports]
    for person in (amara, jonas, lena):
        assert await site.ids(person) == [broadcast_id]
    assert (await site.engagement(broadcast_id)).delivered == 3


async def test_an_alert_may_be_for_people_in_many_blocks(site: Site) -> None:
    """It fills none; only their number is bounded."""
    amara = site.person()
    broadcast_id = site.broadcast()
    await site.deliver(broadcast_id, [amara], SILENT_ITEM)
    people = [amara.number, *range(5_000_000, 5_000_000 + 40 * 4096, 4096)]
    report = await site.deliver(broadcast_id, people, ALERT)
    assert (report.outcome, report.size) == (MERGED, 41)


async def test_crowds_arrive_whole(site: Site) -> None:
    """16 full blocks, and 5,000 people scattered over a million numbers: in each inbox of theirs and in no other."""
    dense = Audience.of(range(2_000_000, 2_000_000 + 16 * 4096 - 3000))
    scattered = Audience.of(random.Random(7).sample(range(3_000_000, 4_000_000), 5_000))
    for audience in (dense, scattered):
        broadcast_id = site.broadcast()
        chunks = list(audience.chunks())
        await asyncio.gather(
            *(
                site.deliver(broadcast_id, chunk.to_list(), chunk=number)
                for number, chunk in enumerate(chunks)
            )
        )
        assert (await site.engagement(broadcast_id)).delivered == len(audience)
        inside = audience.sample(3) + audience.to_list()[-3:]
        for number in inside:
            assert await site.ids(site.person(number)) == [broadcast_id]
        for number in (each + 1 for each in inside if each + 1 not in audience):
            assert await site.ids(site.person(number)) == []


async def test_positions_have_no_gaps(site: Site) -> None:
    """Whatever was refused, repeated or rolled back, the log has an entry at every position since it was pruned."""
    count = await site.admin.fetchrow(
        "SELECT count(*) AS n, min(position) AS first, max(position) AS last FROM log"
    )
    assert count is not None
    assert count["n"] == count["last"] - count["first"] + 1 > 1


async def test_a_team_that_nobody_told_of_is_asked_for(site: Site) -> None:
    """A broadcast about a wedding whose team never came here shows to its team."""
    amara, outsider = site.people(2)
    broadcast_id = site.about(site.wedding(amara))
    await site.deliver(broadcast_id, [amara, outsider])
    await until_equal([broadcast_id], lambda: site.ids(amara))
    assert await site.ids(outsider) == []
