"""One person's stream: what it starts with, what it shows, and how it goes on."""

import asyncio

from services.inbox.domain import write_cursor
from services.inbox.fanout import LIVE_STREAMS
from services.inbox.served_log import find_log_identity
from shared import database
from tests.integration.inbox.site import ALERT, SILENT_ITEM, Site, end
from tests.integration.inbox.watching import Watcher, watching
from tests.integration.shared.polling import until


async def test_a_stream_starts_with_the_inbox_as_it_is(site: Site) -> None:
    """The newest items and the badge, then what comes."""
    amara = site.person()
    first, second = await site.send([amara]), await site.send([amara])
    await site.record(amara, "READ", first)
    async with watching(site, amara) as watcher:
        snapshot = await watcher.next("snapshot")
        assert [item.broadcast_id for item in snapshot.items] == [second, first]
        assert snapshot.unread_count == 1
        third = await site.send([amara], title="Third")
        added = await watcher.next("added")
        assert (added.item.broadcast_id, added.item.title, added.silent) == (third, "Third", False)


async def test_a_snapshot_has_the_newest_fifty(site: Site) -> None:
    """More than that is listed, not streamed."""
    amara = site.person()
    ids = [await site.send([amara]) for _ in range(52)]
    async with watching(site, amara) as watcher:
        snapshot = await watcher.next("snapshot")
        assert [item.broadcast_id for item in snapshot.items] == ids[:1:-1]
        assert snapshot.unread_count == 52


async def test_nobody_sees_what_is_not_theirs(site: Site) -> None:
    """Only the streams of members are told."""
    amara, jonas = site.people(2)
    async with watching(site, amara) as hers, watching(site, jonas) as his:
        await hers.next("snapshot")
        await his.next("snapshot")
        await site.send([amara], title="For her")
        await site.send([jonas], title="For him")
        assert (await hers.next("added")).item.title == "For her"
        assert (await his.next("added")).item.title == "For him"
        assert hers.nothing()
        assert his.nothing()


async def test_silent_items_and_alerts(site: Site) -> None:
    """What came in the night says so, and rings when the night is over; the item does not move."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        broadcast_id = site.broadcast()
        arrival = await site.deliver(broadcast_id, [amara], SILENT_ITEM)
        added = await watcher.next("added")
        assert added.silent
        assert added.item.silent
        await site.send([amara])
        await watcher.next("added")
        await site.deliver(broadcast_id, [amara], ALERT)
        alert = await watcher.next("alert")
        assert alert.item.broadcast_id == broadcast_id
        assert alert.item.delivered_at == arrival.time


async def test_other_devices_are_told_what_was_done(site: Site) -> None:
    """Receipts show on every stream of the person, with the badge; nobody else hears of them."""
    amara, jonas = site.people(2)
    first, second = await site.send([amara, jonas]), await site.send([amara, jonas])
    async with watching(site, amara) as phone, watching(site, amara) as laptop, watching(site, jonas) as his:
        for each in (phone, laptop, his):
            await each.next("snapshot")
        answer = await site.record(amara, "ACKNOWLEDGED", first)
        for device in (phone, laptop):
            updated = await device.next("updated")
            assert list(updated.receipts) == list(answer.receipts)
            assert (await device.next("unread_count")).unread_count == 1
        marked = await site.mark_all_read(amara)
        for device in (phone, laptop):
            updated = await device.next("updated")
            assert updated.all_read_time == marked.read_time
            assert (await device.next("unread_count")).unread_count == 0
        assert his.nothing()
        assert second


async def test_the_badge_is_right_however_receipts_and_arrivals_mix(site: Site) -> None:
    """A client that adds one for each arrival, and takes the badge when it comes, ends with the truth."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        badge = (await watcher.next("snapshot")).unread_count
        ids = await asyncio.gather(*(site.send([amara]) for _ in range(10)))
        work = [site.record(amara, "READ", each) for each in ids[:6]] + [
            site.send([amara]) for _ in range(10)
        ]
        await asyncio.gather(*work)
        added: list[str] = []
        truth = await site.unread(amara)

        def settled() -> bool:
            nonlocal badge
            while watcher.events:
                event = watcher.events.pop(0)
                match event.WhichOneof("change"):
                    case "added":
                        badge += 1
                        added.append(event.added.item.broadcast_id)
                    case "unread_count":
                        badge = event.unread_count.unread_count
            return len(added) == 20 and badge == truth

        await until(settled)
        assert truth == 14


async def test_what_is_retracted_leaves_the_screen(site: Site) -> None:
    """Those who had it are told, and nobody else."""
    amara, jonas = site.people(2)
    broadcast_id = await site.send([amara, *range(900_000, 900_020)])
    async with watching(site, amara) as hers, watching(site, jonas) as his:
        await hers.next("snapshot")
        await his.next("snapshot")
        await site.retract(broadcast_id, hide=True)
        assert list((await hers.next("retracted")).broadcast_ids) == [broadcast_id]
        await site.send([jonas])
        await his.next("added")
        assert his.nothing()


async def test_a_cursor_misses_nothing_and_repeats_nothing(site: Site) -> None:
    """Whatever happened in between comes in order, then the badge; what was seen does not come again."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        seen = await site.send([amara])
        await watcher.next("added")
        cursor = watcher.cursor
    missed = [await site.send([amara]) for _ in range(3)]
    await site.record(amara, "READ", seen)
    await site.retract(missed[1], hide=True)
    async with watching(site, amara, cursor) as watcher:
        for broadcast_id in missed:
            assert (await watcher.next("added")).item.broadcast_id == broadcast_id
        assert (await watcher.next("updated")).receipts[0].broadcast_id == seen
        assert list((await watcher.next("retracted")).broadcast_ids) == [missed[1]]
        assert (await watcher.next("unread_count")).unread_count == 2
        live = await site.send([amara])
        assert (await watcher.next("added")).item.broadcast_id == live


async def test_streams_that_come_and_go_under_load_see_everything_once(site: Site) -> None:
    """A client that reconnects again and again, while broadcasts arrive, has each exactly once and in order."""
    amara = site.person()
    sending = asyncio.create_task(_send_many(site, amara, 60))
    seen: list[str] = []
    cursor = ""
    while not sending.done() or len(seen) < 60:
        async with watching(site, amara, cursor) as watcher:
            await until(lambda: bool(watcher.events) or watcher.error is not None)
            for event in list(watcher.events)[: 1 + len(seen) % 5]:
                change = event.WhichOneof("change")
                if change == "snapshot":
                    seen += [item.broadcast_id for item in reversed(event.snapshot.items)]
                if change == "added":
                    seen.append(event.added.item.broadcast_id)
                cursor = event.cursor
    assert seen == await sending


async def _send_many(site: Site, person: object, count: int) -> list[str]:
    return [await site.send([person]) for _ in range(count)]  # type: ignore[list-item]


async def test_rubbish_is_no_cursor(site: Site) -> None:
    """It is the client's mistake, and said to be."""
    amara = site.person()
    for cursor in ("rubbish", "AA"):
        async with watching(site, amara, cursor) as watcher:
            assert (await watcher.ended()).reason_name == "INVALID_CURSOR"


async def test_cursors_of_a_log_that_is_no_more_begin_anew(site: Site) -> None:
    """Another log's, and one from the future, as after the database was put back to an earlier state."""
    amara = site.person()
    await site.send([amara])
    worked = await database.connect(site.database.url("inbox", "worker"), application_name="test")
    identity = await find_log_identity(worked)
    await worked.close()
    for cursor in (write_cursor(1, amara.user_id), write_cursor(2**62, identity)):
        async with watching(site, amara, cursor) as watcher:
            snapshot = await watcher.next("snapshot")
            assert (snapshot.recovered, len(snapshot.items)) == (False, 1)


async def test_a_lost_wake_up_is_a_delay_and_no_gap(site: Site) -> None:
    """An entry that nobody told of is shown within a second or so."""
    amara = site.person()
    await site.send([amara])
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        body = f'{{"recipient": {amara.number}, "at": 1000000}}'.encode()
        await site.admin.execute("SELECT append_log('all_read', $1)", body)
        assert (await watcher.next("updated")).all_read_time.seconds == 1


async def test_a_quiet_stream_says_that_it_lives(site: Site) -> None:
    """Heartbeats come, and their cursor is as good as any."""
    amara = site.person()
    await site.restart(INBOX_HEARTBEAT_S="0.1")
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        await until(lambda: any(event.WhichOneof("change") == "heartbeat" for event in watcher.events))
        cursor = watcher.events[-1].cursor
    broadcast_id = await site.send([amara])
    async with watching(site, amara, cursor) as watcher:
        assert (await watcher.next("added")).item.broadcast_id == broadcast_id
    await site.restart()


async def test_a_stream_ends_with_a_cursor_when_the_server_goes_down(site: Site) -> None:
    """The next server goes on from there."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        await end(site.running)
        error = await watcher.ended()
        assert error.reason_name == "DEPENDENCY_UNAVAILABLE"
        assert error.metadata["cursor"] == watcher.cursor
    await site.restart()
    broadcast_id = await site.send([amara])
    async with watching(site, amara, error.metadata["cursor"]) as watcher:
        assert (await watcher.next("added")).item.broadcast_id == broadcast_id


async def test_a_person_has_only_so_many_streams(site: Site) -> None:
    """One more is refused, and told when to ask again; when one ends there is room."""
    amara = site.person()
    await site.restart(INBOX_STREAMS_PER_PERSON="2")
    async with watching(site, amara) as first, watching(site, amara) as second:
        await first.next("snapshot")
        await second.next("snapshot")
        async with watching(site, amara) as third:
            refusal = await third.ended()
            assert (refusal.reason_name, refusal.retry_after_s) == ("TOO_MANY_STREAMS", 10.0)
    async with watching(site, amara) as again:
        await again.next("snapshot")
    await site.restart()


async def test_a_stream_ends_when_its_token_does(site: Site) -> None:
    """A token that is past its leeway ends the stream with TOKEN_EXPIRED."""
    amara = site.person(lifetime_s=-28)
    watcher = Watcher(site, amara.metadata)
    await watcher.next("snapshot")
    assert (await watcher.ended()).reason_name == "TOKEN_EXPIRED"


async def test_a_reader_that_falls_behind_is_cut_off(site: Site) -> None:
    """Its stream ends with SLOW_READER and a cursor from which it can go on; others are not held up."""
    amara, jonas = site.people(2)
    async with watching(site, amara) as watcher, watching(site, jonas) as his:
        watcher.reading.clear()
        await watcher.next("snapshot")
        await his.next("snapshot")
        await asyncio.gather(*(site.send([amara], message="x" * 100_000) for _ in range(80)))
        await site.send([jonas])
        await his.next("added")
        watcher.reading.set()
        error = await watcher.ended()
        assert error.reason_name == "SLOW_READER"
        # What was merged together may be too much at once: then the snapshot is the last that was shown.
        last = watcher.events[-1].cursor if watcher.events else watcher.cursor
        assert error.metadata["cursor"] == last
        seen = [event.added.item.broadcast_id for event in watcher.events]
    async with watching(site, amara, error.metadata["cursor"]) as watcher:
        await until(lambda: len(seen) + len(watcher.events) == 81)
        seen += [event.added.item.broadcast_id for event in watcher.events[:-1]]
    assert len(set(seen)) == 80


async def test_a_reader_that_never_reads_its_end_is_let_go(site: Site) -> None:
    """Its stream does not stay open for ever because nobody takes the status."""
    amara = site.person()
    await site.restart(INBOX_UNREAD_END_S="0.2")
    async with watching(site, amara) as watcher:
        watcher.reading.clear()
        await watcher.next("snapshot")
        assert _open_streams() == 1
        await asyncio.gather(*(site.send([amara], message="x" * 100_000) for _ in range(80)))
        await until(lambda: _open_streams() == 0)
    await site.restart()


def _open_streams() -> float:
    """How many streams this process has open."""
    return LIVE_STREAMS.collect()[0].samples[0].value
