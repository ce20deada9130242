"""Cleaning up an inbox that serves: what people see of it in lists and on streams, and what services are told."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, events_pb2, inbox_pb2

from shared.failpoints import armed
from tests.integration.inbox.aging import age, rows_of
from tests.integration.inbox.site import Site
from tests.integration.inbox.watching import watching
from tests.integration.shared.polling import until_equal


async def clean_up(site: Site, *, dry_run: bool = False) -> dict[str, common_pb2.CleanedUp]:
    """What another service has the inbox do, once all of it could be done."""
    request = inbox_pb2.CleanUpInboxesRequest(dry_run=dry_run)
    counts: dict[str, common_pb2.CleanedUp] = {}

    async def is_done() -> bool:
        answer = await site.stub.CleanUpInboxes(request, metadata=site.internal)
        for each in answer.cleaned:
            each.count += counts[each.what].count if each.what in counts else 0
            counts[each.what] = each
        return not any(each.error for each in answer.cleaned)

    await until_equal(True, is_done)
    return counts


async def test_what_leaves_is_off_lists_and_badges_that_are_answered_from_memory(site: Site) -> None:
    """The node has just answered both, and nothing has happened to this person since but this."""
    person = site.person()
    old, young = await site.send([person]), await site.send([person])
    for _ in range(3):
        assert (await site.ids(person), await site.unread(person)) == ([young, old], 2)
    await age(site.admin, 91, [old])
    counted = await clean_up(site, dry_run=True)
    assert (await site.ids(person), await site.unread(person)) == ([young, old], 2)
    cleaned = await clean_up(site)
    assert (await site.ids(person), await site.unread(person)) == ([young], 1)
    request = inbox_pb2.GetInboxItemRequest(broadcast_id=old)
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await site.stub.GetInboxItem(request, metadata=person.metadata)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    assert (await site.record(person, "READ", old)).unknown_broadcast_ids == [old]
    assert {what: each.count for what, each in counted.items()} == {
        what: each.count for what, each in cleaned.items()
    }
    assert (cleaned["items"].count, cleaned["items"].kept_for.ToTimedelta().days) == (1, 90)
    assert cleaned["items"].HasField("longest_batch")
    assert not counted["items"].HasField("longest_batch")


async def test_open_streams_are_told_and_those_that_go_on_from_before(site: Site) -> None:
    """The item is taken off the screen at once, and off one that was away when nobody knows its members any more."""
    person, away = site.people(2)
    old = await site.send([person, away])
    async with watching(site, person) as here, watching(site, away) as later:
        assert (await here.next("snapshot")).unread_count == 1
        await later.next("snapshot")
        await later.stop()
        await age(site.admin, 91, [old])
        await clean_up(site)
        assert (await here.next("retracted")).broadcast_ids == [old]
        assert "direct" not in await rows_of(site.admin, old)
        await site.restart()
        async with watching(site, away, later.cursor) as resumed:
            assert (await resumed.next("retracted")).broadcast_ids == [old]
            assert (await resumed.next("unread_count")).unread_count == 0


@pytest.mark.parametrize("is_told_first", [True, False])
async def test_what_expires_is_off_every_screen_however_soon_it_is_cleaned_up(
    site: Site, is_told_first: bool
) -> None:
    """Old as it is, it could leave at once: before streams are told, or before one that was away comes back."""
    person, away = site.people(2)
    old = await site.send([person, away], expires_at=datetime.now(UTC) + timedelta(seconds=2))
    await age(site.admin, 31, [old])
    async with watching(site, person) as here, watching(site, away) as later:
        await here.next("snapshot")
        assert (await later.next("snapshot")).unread_count == 1
        await later.stop()
        with armed("inbox.time.before_commit=error") if not is_told_first else nullcontext():
            await until_equal([], lambda: site.ids(person))
            if not is_told_first:
                await clean_up(site)
                assert here.nothing()
        assert (await here.next("retracted")).broadcast_ids == [old]
        assert (await here.next("unread_count")).unread_count == 0
        await clean_up(site)
        await site.restart()
        async with watching(site, away, later.cursor) as resumed:
            assert (await resumed.next("retracted")).broadcast_ids == [old]
            assert (await resumed.next("unread_count")).unread_count == 0


async def test_who_is_off_the_team_hears_nothing_of_what_leaves(site: Site) -> None:
    """Not even its id: for them it had gone before."""
    member, former = site.people(2)
    wedding = site.wedding(member, former)
    old = site.about(wedding)
    await site.deliver(old, [member, former])
    await site.set_team(wedding, member)
    async with watching(site, member) as inside, watching(site, former) as outside:
        await inside.next("snapshot")
        await outside.next("snapshot")
        await age(site.admin, 91, [old])
        await clean_up(site)
        assert (await inside.next("retracted")).broadcast_ids == [old]
        await site.send([former])
        assert (await outside.next("added")).item.broadcast_id != old


async def test_other_services_are_told_what_is_shown_and_what_was_cleaned(site: Site) -> None:
    """The sender keeps what is shown, and takes no count that is gone for one of nobody."""
    person = site.person()
    old, young = await site.send([person]), await site.send([person])
    await age(site.admin, 91, [old])

    async def shown(*, after_clean_up: bool) -> list[str]:
        request = inbox_pb2.ListShownBroadcastsRequest(
            broadcast_ids=[old, young], after_clean_up=after_clean_up
        )
        return list((await site.stub.ListShownBroadcasts(request, metadata=site.internal)).broadcast_ids)

    assert set(await shown(after_clean_up=False)) == {old, young}
    assert await shown(after_clean_up=True) == [young]
    await clean_up(site)
    assert await shown(after_clean_up=False) == [young]
    assert (await site.engagement(old)).HasField("cleaned_time")
    assert not (await site.engagement(young)).HasField("cleaned_time")


async def test_a_chunk_that_comes_after_all_is_answered_for(site: Site) -> None:
    """It arrives nowhere, and whoever sent it need not send it again."""
    person = site.person()
    old = await site.send([person])
    await age(site.admin, 91, [old])
    await clean_up(site)
    report = await site.deliver(old, [person], chunk=0, epoch=2)
    assert report.outcome == events_pb2.REPORT_OUTCOME_STOPPED
    assert await site.ids(person) == []
