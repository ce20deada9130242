"""Streams that go on from far behind: further than a node remembers, than is worth it, than the log goes back."""

import pytest

from tests.integration.inbox.site import Site
from tests.integration.inbox.watching import watching
from tests.integration.shared.polling import until


async def test_a_stream_goes_on_from_further_back_than_a_node_remembers(site: Site) -> None:
    """What this node does not keep in memory is read from the log."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    missed = [await site.send([amara]) for _ in range(2)]
    await _fill_log(site, 2_500)
    async with watching(site, amara, cursor) as watcher:
        for broadcast_id in missed:
            assert (await watcher.next("added")).item.broadcast_id == broadcast_id
        assert (await watcher.next("unread_count")).unread_count == 2


async def test_whoever_is_too_far_behind_begins_anew(site: Site) -> None:
    """With a snapshot that says so: to look through so much for one would cost everybody else."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    await site.send([amara])
    await site.restart(INBOX_RESUME_ENTRIES="2048")
    await _fill_log(site, 2_500)
    async with watching(site, amara, cursor) as watcher:
        snapshot = await watcher.next("snapshot")
        assert (snapshot.recovered, snapshot.unread_count, len(snapshot.items)) == (False, 1, 1)
    await site.restart()


async def test_how_far_a_stream_has_come_is_told_on_the_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cut off in the middle goes on from there, and the silence is not taken for an end."""
    monkeypatch.setattr("services.inbox.syncing._PROGRESS_S", 0.0)
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    missed = await site.send([amara])
    await _fill_log(site, 5_000)
    async with watching(site, amara, cursor) as watcher:
        await until(lambda: any(each.HasField("unread_count") for each in watcher.events))
        kinds = [each.WhichOneof("change") for each in watcher.events]
        assert kinds[0] == "added"
        beats = [each.cursor for each in watcher.events if each.HasField("heartbeat")]
        assert len(set(beats)) == len(beats) > 5
    async with watching(site, amara, beats[2]) as watcher:
        assert (await watcher.next("unread_count")).unread_count == 1
        assert watcher.nothing()
    assert await site.ids(amara) == [missed]


async def test_a_cursor_from_before_the_logs_beginning_is_too_old(site: Site) -> None:
    """The stream starts with a snapshot that says so, and then goes on like any other."""
    amara = site.person()
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
    await site.send([amara])
    await _fill_log(site, 2_500)
    await site.admin.execute("DELETE FROM log WHERE position < (SELECT position FROM log_head) - 2200")
    async with watching(site, amara, cursor) as watcher:
        snapshot = await watcher.next("snapshot")
        assert (snapshot.recovered, snapshot.unread_count, len(snapshot.items)) == (False, 1, 1)
        second = await site.send([amara])
        assert (await watcher.next("added")).item.broadcast_id == second
        cursor = watcher.cursor
    third = await site.send([amara])
    async with watching(site, amara, cursor) as watcher:
        assert (await watcher.next("added")).item.broadcast_id == third


async def _fill_log(site: Site, count: int) -> None:
    """Entries that concern nobody here; returns once the inbox has read them."""
    body = b'{"recipient": 2000000000, "at": 0}'
    onlooker = site.person()
    async with watching(site, onlooker) as watcher:
        await watcher.next("snapshot")
        await site.admin.execute("SELECT append_log_many($1, $2)", ["all_read"] * count, [body] * count)
        await site.send([onlooker])
        await watcher.next("added")
