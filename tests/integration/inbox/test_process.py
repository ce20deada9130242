"""The inbox as processes of its own: health, several on one port, an orderly end, and what a crash may do."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from wedsync.broadcast.v1 import events_pb2, inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from stack.nats import NatsAccess
from stack.processes import Program, spawn
from stack.provision import SuiteDatabase
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.inbox.processes import NOT_SERVING, ROOT, SERVING, Processes, open_processes
from tests.integration.inbox.site import a_chunk
from tests.integration.inbox.watching import watching
from tests.integration.shared.polling import until, until_equal


@pytest.fixture
async def site(
    tmp_path: Path,
    make_suite: Callable[..., Awaitable[SuiteDatabase]],
    streams: NatsAccess,
    valkey_server: str,
    beside: Neighbours,
) -> AsyncIterator[Processes]:
    """An inbox that is not running yet."""
    async with open_processes(
        tmp_path, await make_suite("inbox"), streams, valkey_server, beside
    ) as processes:
        yield processes


async def test_health_tells_of_each_dependency(site: Processes) -> None:
    """Without Redis, sender and directory the inbox serves, and says which is missing."""
    await site.launch(REDIS_URL="redis://127.0.0.1:1/0", PREFERENCES_ADDR="127.0.0.1:1")
    for dependency, health in (("postgres", SERVING), ("nats", SERVING), ("sender", SERVING)):
        await until_equal(health, lambda: site.health(dependency))  # noqa: B023
    for dependency in ("redis", "preferences"):
        await until_equal(NOT_SERVING, lambda: site.health(dependency))  # noqa: B023
    assert await site.health("wedsync.broadcast.v1.InboxService") == SERVING


async def test_settings_that_cannot_be_served_with_are_told_in_one_line(site: Processes) -> None:
    """The process ends with the variable's name."""
    variables = {"PATH": os.environ["PATH"], **site.environment, "INBOX_HEARTBEAT_S": "never"}
    log = site.folder / "bad.log"
    process = spawn(Program("inbox", (sys.executable, "-m", "services.inbox.main"), variables, ROOT, log))
    assert await process.exited() == 78
    assert log.read_text().startswith("INBOX_HEARTBEAT_S must be seconds")


async def test_processes_share_a_port_and_every_stream(site: Processes) -> None:
    """Streams are spread over both; whatever process merges, every stream is told, and so is every other device."""
    for _ in range(2):
        await site.launch(INBOX_REUSE_PORT="1")
    amara = site.person()
    watchers = []
    for _ in range(12):
        channel = grpc.aio.insecure_channel(
            site.environment["INBOX_LISTEN"], options=[("grpc.use_local_subchannel_pool", 1)]
        )
        call = InboxServiceStub(channel).WatchInbox(inbox_pb2.WatchInboxRequest(), metadata=amara.metadata)
        assert (await call.read()).event.HasField("snapshot")
        watchers.append((channel, call))
    broadcast_id = await site.send([amara])
    for _, call in watchers:
        assert (await call.read()).event.added.item.broadcast_id == broadcast_id
    await site.record(amara, "READ", broadcast_id)
    for channel, call in watchers:
        assert (await call.read()).event.HasField("updated")
        assert (await call.read()).event.unread_count.unread_count == 0
        await channel.close()
    for number in range(2):
        log = site.folder / f"inbox-{number}.log"
        # The line of a stream is written when its process has seen its end.
        await until(lambda: "InboxService/WatchInbox" in log.read_text())  # noqa: B023


async def test_it_ends_when_asked_and_streams_go_on_elsewhere(site: Processes) -> None:
    """Exit code 0, the stream with a cursor, and nothing left undone."""
    process = await site.launch()
    amara = site.person()
    await site.send([amara])
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        process.ask_to_stop()
        error = await watcher.ended()
        assert error.metadata["cursor"] == watcher.cursor
    assert await process.exited() == 0
    await site.launch()
    second = await site.send([amara])
    async with watching(site, amara, error.metadata["cursor"]) as watcher:
        assert (await watcher.next("added")).item.broadcast_id == second


@pytest.mark.parametrize(
    "failpoint",
    [
        "inbox.merge.before_commit",
        "inbox.merge.after_commit",
        "inbox.report.before",
        "inbox.report.after",
        "inbox_delivery_high.worker.before_ack",
        "inbox_delivery_high.worker.after_ack",
    ],
)
async def test_a_crash_anywhere_in_a_merge_neither_loses_nor_repeats(site: Processes, failpoint: str) -> None:
    """The process dies there with several chunks under way; when it is back, each item is there once and reported.

    One has gone its whole way before: all that are under way together may be merged in one transaction.
    """
    fired = site.folder / "fired"
    process = await site.launch(
        BROADCAST_FAILPOINTS=f"{failpoint}=kill@2", BROADCAST_FAILPOINTS_LOG=str(fired)
    )
    people = site.people(12)
    ids = [site.broadcast() for _ in range(6)]
    await site.deliver(ids[0], people, chunk=0, epoch=1, lane="high")
    for broadcast_id in ids[1:]:
        await site.dispatcher.send(a_chunk(broadcast_id, people), lane="high")
    assert await process.exited() == -9
    assert failpoint in fired.read_text()
    await site.launch()
    for broadcast_id in ids:
        # What a dispatcher does when a lease has ended without a report.
        report = await site.deliver(broadcast_id, people, chunk=0, epoch=2, lane="high")
        assert report.outcome == events_pb2.REPORT_OUTCOME_MERGED
    for person in people[:3]:
        assert sorted(await site.ids(person)) == sorted(ids)
        assert await site.unread(person) == 6
    assert (await site.engagement(ids[0])).delivered == 12
    count = await site.admin.fetchrow("SELECT count(*) AS n, max(position) AS last FROM log")
    assert count is not None
    assert count["n"] == count["last"]


async def test_streams_survive_a_killed_process(site: Processes) -> None:
    """What happened while there was none comes after the cursor."""
    process = await site.launch()
    amara = site.person()
    first = await site.send([amara])
    async with watching(site, amara) as watcher:
        await watcher.next("snapshot")
        cursor = watcher.cursor
        process.kill()
    await site.launch()
    second = await site.send([amara])
    await site.record(amara, "READ", first)
    async with watching(site, amara, cursor) as watcher:
        assert (await watcher.next("added")).item.broadcast_id == second
        assert (await watcher.next("updated")).receipts[0].broadcast_id == first
        assert (await watcher.next("unread_count")).unread_count == 1


async def test_a_receipt_that_was_answered_is_kept(site: Processes) -> None:
    """However soon after the answer the process dies."""
    process = await site.launch()
    people = site.people(20)
    broadcast_id = await site.send(people)
    answered = []

    async def read(place: int) -> None:
        await site.record(people[place], "READ", broadcast_id)
        answered.append(place)
        if len(answered) == 10:
            process.kill()

    await asyncio.gather(*(read(place) for place in range(20)), return_exceptions=True)
    assert len(answered) >= 10
    await site.launch()
    for place in answered:
        assert await site.unread(people[place]) == 0
