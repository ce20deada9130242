"""Ten thousand people acknowledge one broadcast at once: each is counted, and nobody else waits for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.inbox.processes import Processes, open_processes
from tests.integration.inbox.site import Person, Site, error_of

_PEOPLE = 10_000
_AT_ONCE = 400
_SOCKETS = 8
# A call that is lost would end the test.
_CALL_S = 30.0
_Answer = TypeVar("_Answer")


@pytest.fixture
async def site(
    tmp_path: Path,
    make_suite: Callable[..., Awaitable[SuiteDatabase]],
    streams: NatsAccess,
    valkey_server: str,
    beside: Neighbours,
) -> AsyncIterator[Processes]:
    """An inbox in a process of its own, so that its callers do not take its time."""
    suite = await make_suite("inbox")
    async with open_processes(tmp_path, suite, streams, valkey_server, beside) as processes:
        await processes.launch()
        yield processes


@asynccontextmanager
async def open_sockets(site: Processes) -> AsyncIterator[list[InboxServiceStub]]:
    """Connections of their own, as many callers have."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(site.environment["INBOX_LISTEN"], options) for _ in range(_SOCKETS)]
    yield [InboxServiceStub(channel) for channel in channels]
    for channel in channels:
        await channel.close()


async def answered(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """What a call is answered, made again after what its refusal says for as long as there is no room for it."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            refusal = error_of(error)
            assert refusal.reason_name == "TOO_MANY_CALLS"
            assert refusal.retry_after_s is not None
            await asyncio.sleep(refusal.retry_after_s)


async def acknowledge(
    stub: InboxServiceStub, waiting: Iterator[Person], broadcast_id: str, acknowledged: list[Person]
) -> None:
    """One after the other of those who are left, each in their own name."""
    request = inbox_pb2.RecordReceiptsRequest(
        broadcast_ids=[broadcast_id], action=common_pb2.RECEIPT_ACTION_ACKNOWLEDGED
    )
    for person in waiting:
        answer = await answered(
            lambda person=person: stub.RecordReceipts(request, metadata=person.metadata, timeout=_CALL_S)  # type: ignore[misc]
        )
        assert [each.HasField("acknowledged_at") for each in answer.receipts] == [True]
        acknowledged.append(person)


async def live_on(site: Site, person: Person, is_over: Callable[[], bool]) -> list[float]:
    """What somebody else does meanwhile, again and again, and how long it took each time, in seconds."""
    took = []
    while not is_over():
        began = time.monotonic()
        broadcast_id = await site.send([person])
        assert (await answered(lambda: site.ids(person, page_size=1))) == [broadcast_id]
        assert await answered(lambda: site.unread(person)) == 1
        answer = await answered(lambda read=broadcast_id: site.record(person, "READ", read))  # type: ignore[misc]
        assert answer.unread_count == 0
        took.append(time.monotonic() - began)
    return took


@pytest.mark.timeout(600)
async def test_ten_thousand_acknowledge_at_once(site: Processes) -> None:
    """None is lost or counted twice, and somebody else gets, lists and reads what comes for them in between."""
    people, other = site.people(_PEOPLE), site.person()
    broadcast_id = await site.send(
        people,
        type="wedding.emergency",
        category=common_pb2.CATEGORY_WEDDING,
        priority=common_pb2.PRIORITY_CRITICAL,
    )
    acknowledged: list[Person] = []
    waiting = iter(people)
    began = time.monotonic()
    async with open_sockets(site) as stubs:
        callers = [
            asyncio.create_task(acknowledge(stubs[place % _SOCKETS], waiting, broadcast_id, acknowledged))
            for place in range(_AT_ONCE)
        ]
        meanwhile = asyncio.create_task(live_on(site, other, lambda: all(each.done() for each in callers)))
        await asyncio.gather(*callers)
        seconds = time.monotonic() - began
        took = await meanwhile
        print(f"{_PEOPLE:,} in {seconds:.1f} s; meanwhile {len(took)} rounds, the slowest {max(took):.1f} s")
        assert {person.number for person in acknowledged} == {person.number for person in people}
        # One round would be one that had waited for the end of it all.
        assert len(took) > 1
        counted = await site.engagement(broadcast_id)
        assert (counted.delivered, counted.read, counted.acknowledged) == (_PEOPLE,) * 3
        # Some of them again: the first time stands, and nobody is counted twice.
        again = iter(people[:500])
        await asyncio.gather(*(acknowledge(stub, again, broadcast_id, acknowledged) for stub in stubs))
        assert await site.engagement(broadcast_id) == counted
