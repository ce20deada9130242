"""Whoever is erased has no inbox from then on, on no node; what they did stays as a number's, and so counts stay."""

import asyncio
import json
from uuid import uuid4

import grpc
import pytest
from redis.asyncio import Redis
from wedsync.broadcast.v1 import common_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.inbox.checkpoints import Checkpoints
from services.inbox.config import Settings
from services.inbox.main import start
from shared.optional_redis import OptionalRedis
from shared.settings import Environment
from tests.integration.inbox.site import Person, Site, end, error_of
from tests.integration.inbox.watching import connecting, watching
from tests.integration.shared.polling import until_equal

Code = grpc.StatusCode


async def erase(site: Site, person: Person, *, at_directory: bool = True) -> None:
    """What the directory does about somebody whom it has erased."""
    if at_directory:
        site.neighbours.directory.numbers.pop(str(person.user_id), None)
    request = inbox_pb2.EraseInboxRequest(user_id=str(person.user_id), recipient_number=person.number)
    await site.stub.EraseInbox(request, metadata=site.internal)


async def rewrite(site: Site, broadcast_id: str, **fields: object) -> None:
    """What the sender does when a broadcast says something else by now."""
    order = site.neighbours.sender.orders[broadcast_id]
    order.ClearField("action")
    order.MergeFrom(sender_pb2.DispatchOrder(**fields))  # type: ignore[arg-type]
    request = inbox_pb2.RefreshContentsRequest(broadcast_ids=[broadcast_id])
    await site.stub.RefreshContents(request, metadata=site.internal)


async def _count(site: Site, statement: str, *arguments: object) -> int:
    return int(await site.admin.fetchval(statement, *arguments))


async def test_who_is_erased_has_no_inbox(site: Site) -> None:
    """Every call of theirs is refused as it is to somebody whom nobody knows."""
    person, stranger = site.person(), site.person()
    del site.neighbours.directory.numbers[str(stranger.user_id)]
    await site.send([person])
    assert await site.unread(person) == 1
    await erase(site, person)
    for who in (person, stranger):
        for call in (site.unread(who), site.listed(who), site.mark_all_read(who)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is Code.PERMISSION_DENIED
            assert error_of(refused.value).message == "This person has no inbox."


async def test_nothing_leads_from_the_user_to_the_number(site: Site) -> None:
    """The mapping and the remembered calls go, and what they followed."""
    person = site.person()
    broadcast_id = await site.send([person])
    await site.record(person, "CLICKED", broadcast_id, url="/for-me-alone", request_id=str(uuid4()))
    await erase(site, person)
    user_id = str(person.user_id)
    assert await _count(site, "SELECT count(*) FROM recipients WHERE user_id = $1", person.user_id) == 0
    assert await _count(site, "SELECT count(*) FROM requests WHERE caller = $1", user_id) == 0
    assert await _count(site, "SELECT count(*) FROM receipts WHERE clicked_url LIKE '%alone'") == 0


async def test_counts_stay(site: Site) -> None:
    """Who read, acknowledged and clicked was somebody, whoever that was."""
    person, other = site.people(2)
    broadcast_id = await site.send([person, other], priority=common_pb2.PRIORITY_CRITICAL)
    await site.record(person, "ACKNOWLEDGED", broadcast_id)
    await site.record(person, "CLICKED", broadcast_id, url="/seating")
    before = await site.engagement(broadcast_id)
    await erase(site, person)
    assert await site.engagement(broadcast_id) == before
    assert (before.delivered, before.read, before.acknowledged, before.clicked) == (2, 1, 1, 1)


async def test_open_streams_end(site: Site) -> None:
    """Of one's own and of one that others share, with the reason; the others hear what comes next."""
    person, other = site.people(2)
    async with watching(site, person) as own, connecting(site) as shared:
        await own.next("snapshot")
        for handle, who in enumerate((person, other), 1):
            await shared.subscribe(handle, who.token)
            await shared.next(handle, "subscribed")
            await shared.next(handle, "snapshot")
        await erase(site, person)
        assert (await own.ended()).message == "This person has no inbox."
        assert (await shared.next(1, "ended")).reason == "PERMISSION_DENIED"
        broadcast_id = await site.send([person, other])
        assert (await shared.next(2, "added")).item.broadcast_id == broadcast_id


async def test_every_node_forgets(site: Site) -> None:
    """Also one that knew the person and was not told by anybody."""
    person = site.person()
    await site.send([person])
    beside = await start(Settings.read(Environment(site.environment)))
    try:
        async with grpc.aio.insecure_channel(str(beside.address)) as channel:
            stub = InboxServiceStub(channel)
            unread = inbox_pb2.GetUnreadCountRequest()
            assert (await stub.GetUnreadCount(unread, metadata=person.metadata)).unread_count == 1
            await erase(site, person)

            async def code() -> Code:
                try:
                    await stub.GetUnreadCount(unread, metadata=person.metadata)
                except grpc.aio.AioRpcError as error:
                    return error.code()
                return Code.OK

            await until_equal(Code.PERMISSION_DENIED, code)
    finally:
        await end(beside)


async def test_redis_forgets(site: Site) -> None:
    """The badge that was remembered under the number goes."""
    person = site.person()
    await site.send([person])
    await site.unread(person)
    async with Redis.from_url(site.environment["REDIS_URL"]) as redis:
        pattern = f"inbox:unread:*:{person.number}"
        await until_equal(1, lambda: _keys(redis, pattern))
        await erase(site, person)
        await until_equal(0, lambda: _keys(redis, pattern))


async def _keys(redis: Redis, pattern: str) -> int:
    return len([key async for key in redis.scan_iter(match=pattern)])


async def test_redis_that_is_away_stops_no_erasure() -> None:
    """What is remembered there holds for nobody, and goes by itself."""
    checkpoints = Checkpoints(OptionalRedis.open("redis://127.0.0.1:1"), uuid4())
    await checkpoints.remove(1)
    await checkpoints.close()


async def test_what_was_being_written_goes_the_second_time(site: Site) -> None:
    """A call that had found the person before may keep them again; the directory asks twice for that."""
    person = site.person()
    await site.send([person])
    await erase(site, person, at_directory=False)
    # As a look-up that was under way would.
    assert await site.unread(person) == 1
    assert await _count(site, "SELECT count(*) FROM recipients WHERE user_id = $1", person.user_id) == 1
    await erase(site, person)
    assert await _count(site, "SELECT count(*) FROM recipients WHERE user_id = $1", person.user_id) == 0
    with pytest.raises(grpc.aio.AioRpcError, match="no inbox"):
        await site.unread(person)


async def test_receipts_that_race_with_an_erasure_leave_nothing_behind(site: Site) -> None:
    """Neither the user id nor what was followed, once it was asked for twice; no call is a defect."""
    person = site.person()
    ids = [await site.send([person]) for _ in range(6)]
    calls = [
        site.record(person, "CLICKED", each, url="/racing", request_id=str(uuid4()))
        for each in ids
        for _ in range(2)
    ]
    results = await asyncio.gather(*calls[:6], erase(site, person), *calls[6:], return_exceptions=True)
    refused = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
    assert {each.code() for each in refused} <= {Code.PERMISSION_DENIED}
    await erase(site, person)
    assert await _count(site, "SELECT count(*) FROM requests WHERE caller = $1", str(person.user_id)) == 0
    assert await _count(site, "SELECT count(*) FROM receipts WHERE clicked_url = '/racing'") == 0


async def test_what_a_broadcast_says_can_be_replaced(site: Site) -> None:
    """On the next page and in the next search, with or without an action; its receipts stay."""
    person = site.person()
    broadcast_id = await site.send(
        [person],
        title="Hochzeitstorte",
        action=common_pb2.Action(label="Open", url="/cake"),
    )
    await site.record(person, "READ", broadcast_id)
    assert (await site.listed(person)).items[0].title == "Hochzeitstorte"
    await rewrite(site, broadcast_id, title="Erased", message="Nothing")
    [item] = (await site.listed(person)).items
    assert (item.title, item.message, item.HasField("action")) == ("Erased", "Nothing", False)
    assert item.HasField("read_at")
    assert await site.ids(person, search="Hochzeitstorte") == []
    assert await site.ids(person, search="erased") == [broadcast_id]


async def test_an_older_text_that_is_under_way_is_not_kept(site: Site) -> None:
    """Replaced before its first chunk comes, a broadcast never says what it said."""
    person = site.person()
    broadcast_id = site.broadcast(title="Secret")
    await rewrite(site, broadcast_id, title="Erased")
    site.neighbours.sender.orders[broadcast_id].title = "Secret"
    await site.deliver(broadcast_id, [person])
    assert [item.title for item in (await site.listed(person)).items] == ["Erased"]


async def test_a_text_that_the_sender_does_not_have_is_an_error(site: Site) -> None:
    """And leaves the others as they were."""
    person = site.person()
    broadcast_id = await site.send([person], title="Before")
    site.neighbours.sender.orders[broadcast_id].title = "After"
    request = inbox_pb2.RefreshContentsRequest(broadcast_ids=[broadcast_id, str(uuid4())])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.stub.RefreshContents(request, metadata=site.internal)
    assert refused.value.code() is Code.NOT_FOUND
    assert [item.title for item in (await site.listed(person)).items] == ["Before"]


async def test_all_that_is_kept_is_exported_in_pages(site: Site) -> None:
    """Items with their texts, receipts, marks and calls, each once; more than a page of them."""
    person = site.person()
    ids = [await site.send([person], title=f"Story {number}") for number in range(5)]
    crowd = [await site.send([person]) for _ in range(100)]
    await site.record(person, "CLICKED", ids[0], url="/follow", request_id=str(uuid4()))
    await site.mark_all_read(person)
    records = await _exported(site, person)
    items = [each for kind, each in records if kind == "item"]
    assert [each["broadcast_id"] for each in items] == [*reversed(crowd), *reversed(ids)]
    assert (items[-1]["title"], items[-1]["shown"], items[-1]["priority"]) == ("Story 0", True, "normal")
    [receipt] = [each for kind, each in records if kind == "receipt"]
    assert (receipt["broadcast_id"], receipt["clicked_url"]) == (ids[0], "/follow")
    assert [kind for kind, _ in records if kind not in ("item", "receipt")] == ["all_read", "remembered_call"]


async def test_what_is_behind_a_wall_is_exported_without_its_text(site: Site) -> None:
    """Who is off a team is told that something had come, and no word of it; so with what was taken back."""
    person, other = site.people(2)
    wedding_id = site.wedding(person, other)
    walled = site.about(wedding_id, title="Not yours any more")
    await site.deliver(walled, [person, other])
    hidden = await site.send([person], title="Taken back")
    await site.set_team(wedding_id, other)
    await site.retract(hidden, hide=True)
    records = [each for _, each in await _exported(site, person)]
    assert {each["broadcast_id"]: (each["shown"], each["title"]) for each in records} == {
        walled: (False, None),
        hidden: (False, None),
    }


async def _exported(site: Site, person: Person) -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = []
    token = ""
    while True:
        request = inbox_pb2.ExportInboxRequest(
            user_id=str(person.user_id), recipient_number=person.number, page_token=token
        )
        page = await site.stub.ExportInbox(request, metadata=site.internal)
        assert len(page.records) <= 100
        found += [(each.kind, json.loads(each.json)) for each in page.records]
        token = page.next_page_token
        if not token:
            return found
