"""Streams that carry many people's inboxes, each admitted by their own token."""

from uuid import uuid4

from services.inbox.domain import write_cursor
from tests.integration.inbox.site import Person, Site, end
from tests.integration.inbox.watching import Connection, connecting, watching
from tests.integration.shared.polling import until


async def test_each_person_is_confirmed_and_starts_with_a_snapshot(site: Site) -> None:
    """`subscribed` comes first, then the inbox as it is; until that is there, there is nowhere to go on from."""
    amara, jonas = site.people(2)
    broadcast_id = await site.send([amara])
    async with connecting(site) as connection:
        await connection.subscribe(7, amara.token)
        await connection.subscribe(8, jonas.token)
        assert (await connection.next(7, "subscribed")).cursor == ""
        snapshot = await connection.next(7, "snapshot")
        assert [item.broadcast_id for item in snapshot.items] == [broadcast_id]
        await connection.next(8, "subscribed")
        assert (await connection.next(8, "snapshot")).unread_count == 0


async def test_an_event_is_sent_once_with_all_whom_it_is_for(site: Site) -> None:
    """One message with the handles of the members, and of nobody else."""
    people = site.people(50)
    async with connecting(site) as connection:
        await _subscribe_all(connection, people)
        broadcast_id = await site.send(people[:40])
        await until(lambda: bool(connection.heard(39)))
        (response,) = [each for each in connection.responses if each.event.HasField("added")]
        assert sorted(response.handles) == list(range(40))
        assert response.event.added.item.broadcast_id == broadcast_id
        assert connection.heard(45) == []


async def test_two_devices_of_a_person_are_two_handles(site: Site) -> None:
    """Both get what arrives, and what one of them did."""
    amara = site.person()
    broadcast_id = await site.send([amara])
    async with connecting(site) as connection:
        for handle in (1, 2):
            await connection.subscribe(handle, amara.token, skip_snapshot=True)
            await connection.next(handle, "subscribed")
            assert (await connection.next(handle, "unread_count")).unread_count == 1
        await site.record(amara, "READ", broadcast_id)
        for handle in (1, 2):
            assert (await connection.next(handle, "updated")).receipts[0].broadcast_id == broadcast_id
            assert (await connection.next(handle, "unread_count")).unread_count == 0


async def test_a_person_goes_on_from_their_cursor(site: Site) -> None:
    """On this stream from where they were on another."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    missed = await site.send([amara])
    async with connecting(site) as connection:
        await connection.subscribe(1, amara.token, cursor=cursor)
        assert (await connection.next(1, "subscribed")).cursor == cursor
        assert (await connection.next(1, "added")).item.broadcast_id == missed
        assert (await connection.next(1, "unread_count")).unread_count == 1


async def test_a_cursor_that_is_too_old_says_so(site: Site) -> None:
    """Its person begins with a snapshot, also one who would have gone without: it says that events were missed."""
    amara = site.person()
    await site.send([amara])
    lost = write_cursor(1, amara.user_id)
    async with connecting(site) as connection:
        await connection.subscribe(1, amara.token, cursor=lost, skip_snapshot=True)
        await connection.next(1, "subscribed")
        snapshot = await connection.next(1, "snapshot")
        assert (snapshot.recovered, len(snapshot.items)) == (False, 1)
        second = await site.send([amara])
        assert (await connection.next(1, "added")).item.broadcast_id == second


async def test_a_handle_that_ends_before_its_snapshot_is_given_one_elsewhere(site: Site) -> None:
    """At its start, and after a change of a team: the cursor of its end is from before what the snapshot is for."""
    amara, jonas = site.people(2)
    wedding = site.wedding(amara, jonas)
    seen = await site.send([amara], title="For everybody")
    about = site.about(wedding)
    await site.deliver(about, [amara, jonas])
    async with connecting(site) as connection:
        await _subscribe_all(connection, [amara])
        async with site.admin.transaction():
            await site.admin.execute("LOCK TABLE blocks, direct IN ACCESS EXCLUSIVE MODE")
            await connection.subscribe(1, amara.token)
            await connection.next(1, "subscribed")
            await connection.unsubscribe(1)
            first = await connection.next(1, "ended")
            await site.set_team(wedding, jonas)
            await connection.unsubscribe(0)
            second = await connection.next(0, "ended")
        for handle, ended in ((2, first), (3, second)):
            await connection.subscribe(handle, amara.token, cursor=ended.cursor)
            await connection.next(handle, "subscribed")
            snapshot = await connection.next(handle, "snapshot")
            assert [each.broadcast_id for each in snapshot.items] == [seen]


async def test_somebody_quiet_hears_where_they_are_beside_somebody_busy(site: Site) -> None:
    """By the clock: they would otherwise have to go on from hours ago."""
    quiet, busy = site.people(2)
    await site.restart(INBOX_HEARTBEAT_S="0.3")
    async with connecting(site) as connection:
        await _subscribe_all(connection, [quiet, busy])
        for _ in range(3):
            connection.responses.clear()
            while not any(each.event.HasField("heartbeat") for each in connection.responses):
                await site.send([busy])
            (beat, *_) = [each for each in connection.responses if each.event.HasField("heartbeat")]
            assert list(beat.handles) == [0, 1]
        missed = await site.send([quiet])
    async with connecting(site) as connection:
        await connection.subscribe(0, quiet.token, cursor=beat.event.cursor)
        await connection.next(0, "subscribed")
        assert (await connection.next(0, "added")).item.broadcast_id == missed
    await site.restart()


async def test_what_is_wrong_with_one_person_ends_them_alone(site: Site) -> None:
    """A bad token, a service's, a stranger's, a bad cursor: each ends its handle with the reason; others go on."""
    amara = site.person()
    stranger = site.mint.mint_user_token(uuid4())
    service = site.mint.mint_service_token("billing", ["internal"])
    async with connecting(site) as connection:
        await connection.subscribe(1, amara.token)
        await connection.subscribe(2, "rubbish")
        await connection.subscribe(3, service)
        await connection.subscribe(4, stranger)
        await connection.subscribe(5, amara.token, cursor="rubbish")
        await connection.subscribe(6, site.person(lifetime_s=-60).token, cursor="of before")
        ends = [await connection.next(handle, "ended") for handle in range(2, 7)]
        # Whoever comes again goes on from where they were, but not from nowhere.
        assert [end.cursor for end in ends] == ["", "", "", "", "of before"]
        assert [end.reason for end in ends] == [
            "UNAUTHENTICATED",
            "PERMISSION_DENIED",
            "PERMISSION_DENIED",
            "INVALID_CURSOR",
            "TOKEN_EXPIRED",
        ]
        await connection.next(1, "subscribed")
        await connection.next(1, "snapshot")
        await site.send([amara])
        await connection.next(1, "added")


async def test_a_handle_that_was_removed_hears_nothing_more_and_can_be_used_again(site: Site) -> None:
    """Its end is confirmed with a cursor and no reason."""
    amara, jonas = site.people(2)
    async with connecting(site) as connection:
        await _subscribe_all(connection, [amara])
        await connection.unsubscribe(0)
        await connection.unsubscribe(99)
        ended = await connection.next(0, "ended")
        assert ended.reason == ""
        missed = await site.send([amara])
        await connection.subscribe(0, jonas.token)
        await connection.next(0, "subscribed")
        await connection.next(0, "snapshot")
        await connection.subscribe(1, amara.token, cursor=ended.cursor)
        await connection.next(1, "subscribed")
        assert (await connection.next(1, "added")).item.broadcast_id == missed
        assert connection.heard(0) == []


async def test_a_handle_ends_when_its_token_does(site: Site) -> None:
    """With a cursor from which a new token can go on; the stream lives."""
    amara = site.person(lifetime_s=-28)
    async with connecting(site) as connection:
        await _subscribe_all(connection, [amara])
        ended = await connection.next(0, "ended")
        assert ended.reason == "TOKEN_EXPIRED"
        again = site.mint.mint_user_token(amara.user_id)
        await connection.subscribe(0, again, cursor=ended.cursor)
        await connection.next(0, "subscribed")
        assert (await connection.next(0, "unread_count")).unread_count == 0


async def test_a_handle_cannot_be_given_twice(site: Site) -> None:
    """That is the caller's mistake, and ends the stream."""
    amara = site.person()
    async with connecting(site) as connection:
        await connection.subscribe(1, amara.token)
        await connection.subscribe(1, amara.token)
        error = await connection.ended()
        assert (error.reason_name, error.violations[0].field) == ("INVALID_FIELD", "subscribe.handle")


async def test_only_who_may_hold_sockets_may_connect(site: Site) -> None:
    """A person, and a service without the scope, are refused."""
    for metadata in (site.person().metadata, site.internal):
        connection = Connection(site, metadata)
        assert (await connection.ended()).reason_name == "PERMISSION_DENIED"
        await connection.stop()


async def test_everybody_can_go_on_when_the_server_goes_down(site: Site) -> None:
    """The stream ends with UNAVAILABLE; on the next server each goes on from the last cursor they had."""
    people = site.people(5)
    async with connecting(site) as connection:
        await _subscribe_all(connection, people)
        await site.send(people)
        await until(lambda: bool(connection.heard(4)))
        cursor = connection.responses[-1].event.cursor
        await end(site.running)
        assert (await connection.ended()).reason_name == "DEPENDENCY_UNAVAILABLE"
    await site.restart()
    second = await site.send(people)
    async with connecting(site) as connection:
        for handle, person in enumerate(people):
            await connection.subscribe(handle, person.token, cursor=cursor)
        for handle in range(5):
            await connection.next(handle, "subscribed")
            assert (await connection.next(handle, "added")).item.broadcast_id == second


async def test_two_thousand_people_come_at_once(site: Site) -> None:
    """All are confirmed, and a broadcast to all is one message with all handles."""
    people = site.people(2_000)
    async with connecting(site) as connection:
        for handle, person in enumerate(people):
            await connection.subscribe(handle, person.token, skip_snapshot=True)
        await until(
            lambda: sum(each.event.HasField("unread_count") for each in connection.responses) == 2_000
        )
        await site.send(people)
        await until(lambda: any(each.event.HasField("added") for each in connection.responses))
        (response,) = [each for each in connection.responses if each.event.HasField("added")]
        assert sorted(response.handles) == list(range(2_000))


async def _subscribe_all(connection: Connection, people: list[Person]) -> None:
    """Everybody, by their place as their handle; returns once all are live."""
    for handle, person in enumerate(people):
        await connection.subscribe(handle, person.token)
    for handle in range(len(people)):
        await connection.next(handle, "subscribed")
        await connection.next(handle, "snapshot")
