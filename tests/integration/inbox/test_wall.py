"""The inbox's own wall: whoever is off a team loses its items at once, and whoever is back has them again."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import common_pb2, events_pb2, inbox_pb2

from shared import messaging, subjects
from shared.audience import Audience
from shared.errors import NotFound
from shared.messaging import MessagingSettings
from stack.nats import NatsAccess
from tests.integration.inbox.site import ALERT, SILENT_ITEM, Person, Site, error_of
from tests.integration.inbox.watching import connecting, watching
from tests.integration.shared.polling import until_equal


async def walled(site: Site, *team: Person) -> tuple[str, str]:
    """A wedding with this team, and a broadcast about it in their inboxes."""
    wedding_id = site.wedding(*team)
    broadcast_id = site.about(wedding_id)
    await site.deliver(broadcast_id, team)
    return wedding_id, broadcast_id


async def test_someone_off_the_team_has_lost_its_items(site: Site) -> None:
    """In lists, counts and look-ups, and receipts find nothing; what is about no wedding stays."""
    amara, petra = site.people(2)
    open_to_all = await site.send([petra])
    wedding_id, broadcast_id = await walled(site, amara, petra)
    assert await site.ids(petra) == [broadcast_id, open_to_all]
    await site.set_team(wedding_id, amara)
    assert await site.ids(petra) == [open_to_all]
    assert await site.unread(petra) == 1
    request = inbox_pb2.GetInboxItemRequest(broadcast_id=broadcast_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.stub.GetInboxItem(request, metadata=petra.metadata)
    assert error_of(caught.value).reason_name == "NOT_FOUND"
    assert list((await site.record(petra, "READ", broadcast_id)).unknown_broadcast_ids) == [broadcast_id]
    assert await site.ids(amara) == [broadcast_id]


async def test_someone_put_back_has_them_again(site: Site) -> None:
    """As they were: what was read stays read."""
    amara, petra = site.people(2)
    wedding_id, broadcast_id = await walled(site, amara, petra)
    second = site.about(wedding_id)
    await site.deliver(second, [amara, petra])
    await site.record(petra, "READ", broadcast_id)
    await site.set_team(wedding_id, amara)
    await site.set_team(wedding_id, amara, petra)
    listed = await site.listed(petra)
    assert [item.broadcast_id for item in listed.items] == [second, broadcast_id]
    assert listed.unread_count == 1


async def test_what_arrives_while_someone_is_off_the_team_shows_when_they_are_back(site: Site) -> None:
    """A chunk merges for all whom it holds; who sees it is decided when it is looked at."""
    amara, petra = site.people(2)
    wedding_id = site.wedding(amara)
    broadcast_id = site.about(wedding_id)
    report = await site.deliver(broadcast_id, [amara, petra])
    assert report.size == 2
    assert await site.ids(petra) == []
    await site.set_team(wedding_id, amara, petra)
    assert await site.ids(petra) == [broadcast_id]


async def test_an_item_about_several_weddings_shows_while_on_any_of_the_teams(site: Site) -> None:
    """Only off the last one it is gone."""
    amara = site.person()
    first, second = site.wedding(amara), site.wedding(amara)
    broadcast_id = site.broadcast(
        type="timeline.changed", targeting=common_pb2.Targeting(wedding_ids=[first, second])
    )
    await site.deliver(broadcast_id, [amara])
    await site.set_team(first)
    assert await site.ids(amara) == [broadcast_id]
    await site.set_team(second)
    assert await site.ids(amara) == []


async def test_a_filter_by_a_wedding_of_others_finds_nothing(site: Site) -> None:
    """Not even what is about it too, so that nobody learns which weddings there are besides their own."""
    amara, petra = site.people(2)
    own, other = site.wedding(amara, petra), site.wedding(petra)
    broadcast_id = site.broadcast(
        type="timeline.changed", targeting=common_pb2.Targeting(wedding_ids=[own, other])
    )
    await site.deliver(broadcast_id, [amara, petra])
    for person, found in ((petra, [broadcast_id]), (amara, [])):
        listed = await site.listed(person, wedding_id=other)
        assert [item.broadcast_id for item in listed.items] == found
        assert listed.total_count == len(found)
    assert await site.ids(amara, wedding_id=own) == [broadcast_id]
    await site.set_team(own, petra)
    assert await site.ids(petra, wedding_id=own) == [broadcast_id]
    assert await site.ids(amara, wedding_id=own) == []


async def test_open_streams_lose_and_regain_items_at_once(site: Site) -> None:
    """Whoever is taken off a team, or put back, gets a snapshot that replaces all; the others hear nothing."""
    amara, petra = site.people(2)
    wedding_id, broadcast_id = await walled(site, amara, petra)
    async with watching(site, petra) as hers, watching(site, amara) as others:
        assert len((await hers.next("snapshot")).items) == 1
        await others.next("snapshot")
        await site.set_team(wedding_id, amara)
        snapshot = await hers.next("snapshot")
        assert (list(snapshot.items), snapshot.unread_count) == ([], 0)
        await site.deliver(site.about(wedding_id), [amara, petra])
        await others.next("added")
        await site.set_team(wedding_id, amara, petra)
        snapshot = await hers.next("snapshot")
        assert [item.broadcast_id for item in snapshot.items][1:] == [broadcast_id]
        assert hers.nothing()
        assert others.nothing()


async def test_who_leaves_between_two_chunks_hears_of_neither(site: Site) -> None:
    """The first one's item is taken off the screen; a second one, its alert and its end say nothing to them."""
    amara, petra = site.people(2)
    wedding_id, _ = await walled(site, amara, petra)
    first, second = site.about(wedding_id), site.about(wedding_id)
    async with watching(site, petra) as hers, watching(site, amara) as others:
        await hers.next("snapshot")
        await others.next("snapshot")
        await site.deliver(first, [petra])
        await hers.next("added")
        await site.set_team(wedding_id, amara)
        assert list((await hers.next("snapshot")).items) == []
        await site.deliver(first, [amara])
        for kind in (SILENT_ITEM, ALERT):
            await site.deliver(second, [amara, petra], kind)
        await site.retract(second, hide=True)
        for kind in ("added", "added", "alert", "retracted"):
            await others.next(kind)
        last = await site.send([petra])
        assert (await hers.next("added")).item.broadcast_id == last
        assert hers.nothing()
    assert await site.ids(petra) == [last]


async def test_shared_streams_lose_and_regain_items_at_once(site: Site) -> None:
    """The snapshot is for those handles only."""
    amara, petra = site.people(2)
    wedding_id, broadcast_id = await walled(site, amara, petra)
    async with connecting(site) as connection:
        for handle, person in enumerate((amara, petra)):
            await connection.subscribe(handle, person.token)
            await connection.next(handle, "subscribed")
            await connection.next(handle, "snapshot")
        await site.set_team(wedding_id, amara)
        assert list((await connection.next(1, "snapshot")).items) == []
        await site.set_team(wedding_id, amara, petra)
        assert (await connection.next(1, "snapshot")).items[0].broadcast_id == broadcast_id
        assert connection.heard(0) == []


async def test_a_stream_that_goes_on_across_a_team_change_starts_over(site: Site) -> None:
    """What it missed is of no use to it: it gets a snapshot."""
    amara, petra = site.people(2)
    wedding_id, _ = await walled(site, amara, petra)
    async with watching(site, petra) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    await site.deliver(site.about(wedding_id), [petra])
    await site.set_team(wedding_id, amara)
    open_to_all = await site.send([petra])
    async with watching(site, petra, cursor) as watcher:
        snapshot = await watcher.next("snapshot")
        assert [item.broadcast_id for item in snapshot.items] == [open_to_all]


async def test_an_older_team_never_replaces_a_newer_one(site: Site) -> None:
    """Whatever order they come in, the newest stands, and the answer says which."""
    amara, petra = site.people(2)
    wedding_id, broadcast_id = await walled(site, amara, petra)
    applied = []
    for version, team in ((9, [amara]), (8, [amara, petra]), (9, [amara, petra])):
        request = inbox_pb2.ApplyTeamChangeRequest(
            wedding_id=wedding_id,
            team_version=version,
            members=Audience.of(person.number for person in team).to_bytes(),
        )
        applied.append((await site.stub.ApplyTeamChange(request, metadata=site.internal)).team_version)
    assert applied == [9, 9, 9]
    assert await site.ids(petra) == []
    assert await site.ids(amara) == [broadcast_id]


async def test_many_changes_of_a_team_at_once_end_with_the_newest(site: Site) -> None:
    """In the lists and on the streams."""
    amara, petra = site.people(2)
    wedding_id, broadcast_id = await walled(site, amara, petra)

    async def apply(version: int) -> None:
        members = Audience.of([amara.number, *([petra.number] if version % 2 else [])])
        request = inbox_pb2.ApplyTeamChangeRequest(
            wedding_id=wedding_id, team_version=version, members=members.to_bytes()
        )
        await site.stub.ApplyTeamChange(request, metadata=site.internal)

    await asyncio.gather(*(apply(version) for version in range(2, 42)))
    assert await site.ids(petra) == [broadcast_id]


async def test_a_change_that_came_by_the_directorys_message_is_applied(
    site: Site, streams: NatsAccess
) -> None:
    """When its call did not come through; a message about a version that is applied already asks nobody."""
    amara, petra = site.people(2)
    wedding_id, broadcast_id = await walled(site, amara, petra)
    site.neighbours.directory.teams[wedding_id] = (2, Audience.of([amara.number]))
    login = MessagingSettings(streams.url, "preferences", "preferences", streams.passwords.get("preferences"))
    nats = await messaging.connect(login)
    for version in (2, 1, 2):
        change = events_pb2.DirectoryChanged(wedding_id=wedding_id, team_version=version)
        await nats.publish(
            subjects.DIRECTORY_CHANGED, change.SerializeToString(), f"{wedding_id}:{version}:{id(change)}"
        )
    await nats.publish(subjects.DIRECTORY_CHANGED, b"rubbish", f"{wedding_id}:rubbish")
    await until_equal([], lambda: site.ids(petra))
    await nats.drain()
    assert await site.ids(amara) == [broadcast_id]


async def test_a_team_that_is_no_bitmap_is_refused(site: Site) -> None:
    """And nothing is changed by it."""
    amara = site.person()
    wedding_id, broadcast_id = await walled(site, amara)
    request = inbox_pb2.ApplyTeamChangeRequest(wedding_id=wedding_id, team_version=7, members=b"rubbish")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await site.stub.ApplyTeamChange(request, metadata=site.internal)
    assert error_of(caught.value).violations[0].field == "members"
    assert await site.ids(amara) == [broadcast_id]


async def test_attempts_at_a_wall_reach_the_audit_log(site: Site) -> None:
    """Of somebody who asks for what is about a wedding that is not theirs; when the process ends, at the latest.

    Not of those who ask for what has expired, was meant for others, or never was: there is no wall before it.
    """
    amara, petra, stranger = site.people(3)
    wedding_id, broadcast_id = await walled(site, amara, petra)
    open_to_all, missing = await site.send([amara]), str(uuid4())
    expired = site.about(wedding_id, expires_at=Timestamp(seconds=1))
    await site.deliver(expired, [amara])
    await site.set_team(wedding_id, amara)
    tried = [
        (petra, broadcast_id),
        (stranger, broadcast_id),
        (stranger, broadcast_id),
        (stranger, open_to_all),
    ]
    for person, asked in (*tried, (amara, expired), (amara, missing)):
        request = inbox_pb2.GetInboxItemRequest(broadcast_id=asked)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await site.stub.GetInboxItem(request, metadata=person.metadata)
        error = error_of(caught.value)
        assert (error.reason_name, error.message) == ("NOT_FOUND", NotFound().message)
    await site.restart()
    refused = {
        (event.actor, event.method, event.attempts)
        for event in site.neighbours.sender.events.values()
        if event.actor in {str(person.user_id) for person in (amara, petra, stranger)}
    }
    assert refused == {
        (str(petra.user_id), "InboxService/GetInboxItem", 1),
        (str(stranger.user_id), "InboxService/GetInboxItem", 2),
    }
