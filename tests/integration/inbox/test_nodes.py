"""Several nodes, each of several processes on one port: wherever somebody's stream goes on, it is the same stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from stack.nats import NatsAccess
from stack.ports import Ports
from stack.processes import RunningProgram
from stack.provision import SuiteDatabase
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.inbox.processes import Processes, open_processes
from tests.integration.inbox.site import Person, a_chunk
from tests.integration.shared.polling import until

PEOPLE, BROADCASTS, REPLACED_EVERY = 8, 60, 20
RESEND_S = 2.0
_LOCAL = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(slots=True)
class Node:
    """An address behind which two processes serve."""

    address: str
    processes: list[RunningProgram] = field(default_factory=list)


class Nodes:
    """Two nodes whose processes come and go."""

    def __init__(self, site: Processes, random: Random) -> None:
        self.site = site
        self.random = random
        second = f"127.0.0.1:{Ports(site.folder / 'second.json').choose('inbox')}"
        self._nodes = [Node(site.environment["INBOX_LISTEN"]), Node(second)]
        self._killed = 0

    async def start(self) -> None:
        """Launch all of them."""
        for node in self._nodes:
            for _ in range(2):
                await self._launch(node)

    async def replace_one(self) -> None:
        """End a process, this time as a deployment does and the next time as a crash does, and launch another."""
        node = self.random.choice(self._nodes)
        process = node.processes.pop(0)
        self._killed += 1
        if self._killed % 2:
            process.kill()
        else:
            process.ask_to_stop()
        await process.exited()
        await self._launch(node)

    def channel(self) -> grpc.aio.Channel:
        """A new connection to one of the nodes, which gives it to one of its processes."""
        return grpc.aio.insecure_channel(self.random.choice(self._nodes).address, options=_LOCAL)

    async def _launch(self, node: Node) -> None:
        node.processes.append(await self.site.launch(INBOX_LISTEN=node.address, INBOX_REUSE_PORT="1"))


class Roamer:
    """Somebody whose stream breaks after every few events and goes on elsewhere, with the last cursor."""

    def __init__(self, nodes: Nodes, person: Person) -> None:
        self.person = person
        self.seen: list[str] = []
        self.read: list[str] = []
        self.unread = 0
        self.anew = 0
        self._nodes = nodes
        self._cursor = ""

    async def roam(self) -> None:
        """Until cancelled."""
        while True:
            async with self._nodes.channel() as channel:
                request = inbox_pb2.WatchInboxRequest(cursor=self._cursor)
                call = InboxServiceStub(channel).WatchInbox(request, metadata=self.person.metadata)
                try:
                    await self._watch(call, self._nodes.random.randint(1, 8))
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.05)  # as a client that backs off

    async def _watch(self, call: grpc.aio.UnaryStreamCall, most: int) -> None:
        async for answer in call:
            self._show(answer.event)
            most -= 1
            if not most:
                call.cancel()
                return

    def _show(self, event: inbox_pb2.InboxEvent) -> None:
        match event.WhichOneof("change"):
            case "snapshot":
                self.anew += 1
                self.unread = event.snapshot.unread_count
                self.seen = [item.broadcast_id for item in reversed(event.snapshot.items)]
            case "added":
                self.unread += 1
                self.seen.append(event.added.item.broadcast_id)
            case "updated":
                self.read += [each.broadcast_id for each in event.updated.receipts]
            case "unread_count":
                self.unread = event.unread_count.unread_count
        self._cursor = event.cursor


@pytest.fixture
async def nodes(
    tmp_path: Path,
    make_suite: Callable[..., Awaitable[SuiteDatabase]],
    streams: NatsAccess,
    valkey_server: str,
    beside: Neighbours,
) -> AsyncIterator[Nodes]:
    """Both, serving."""
    async with open_processes(tmp_path, await make_suite("inbox"), streams, valkey_server, beside) as site:
        nodes = Nodes(site, Random(7))
        await nodes.start()
        yield nodes


async def test_streams_that_roam_between_nodes_see_everything_once(nodes: Nodes) -> None:
    """Each item once and in order, what other devices read, and the badge, while processes end and crash."""
    roamers = [Roamer(nodes, person) for person in nodes.site.people(PEOPLE)]
    roaming = [asyncio.create_task(roamer.roam()) for roamer in roamers]
    await until(lambda: all(roamer.anew for roamer in roamers))  # from here on nothing is in a snapshot
    sent: dict[int, list[str]] = {roamer.person.number: [] for roamer in roamers}
    read: dict[int, list[str]] = {roamer.person.number: [] for roamer in roamers}
    for turn in range(BROADCASTS):
        members = nodes.random.sample(roamers, nodes.random.randint(1, PEOPLE))
        broadcast_id = await _send_surely(nodes.site, [roamer.person for roamer in members])
        for roamer in members:
            sent[roamer.person.number].append(broadcast_id)
        if turn % 3 == 0:
            reader = nodes.random.choice(members).person
            await _read_surely(nodes, reader, broadcast_id)
            read[reader.number].append(broadcast_id)
        if turn % REPLACED_EVERY == REPLACED_EVERY - 1:
            await nodes.replace_one()
    for roamer in roamers:
        number = roamer.person.number
        left = len(sent[number]) - len(read[number])
        await until(lambda: (roamer.seen, roamer.unread) == (sent[number], left))  # noqa: B023
        assert not any(task.done() for task in roaming)
        assert roamer.read == read[number]
        assert roamer.anew == 1
    for task in roaming:
        task.cancel()
    await asyncio.gather(*roaming, return_exceptions=True)


async def _send_surely(site: Processes, members: list[Person]) -> str:
    """As a dispatcher does: again, under another epoch, until somebody reports it."""
    broadcast_id, epoch = site.broadcast(), 0
    while True:
        epoch += 1
        await site.dispatcher.send(a_chunk(broadcast_id, members, epoch=epoch))
        try:
            async with asyncio.timeout(RESEND_S):
                while not any(site.dispatcher.of(broadcast_id, epoch=each) for each in range(1, epoch + 1)):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            continue
        return broadcast_id


async def _read_surely(nodes: Nodes, person: Person, broadcast_id: str) -> None:
    """Through whatever node, again while its process is going away: a receipt counts once."""
    request = inbox_pb2.RecordReceiptsRequest(
        broadcast_ids=[broadcast_id], action=common_pb2.RECEIPT_ACTION_READ
    )
    while True:
        async with nodes.channel() as channel:
            try:
                await InboxServiceStub(channel).RecordReceipts(request, metadata=person.metadata, timeout=5)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            else:
                return
