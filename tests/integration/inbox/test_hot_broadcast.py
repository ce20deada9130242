"""Ten thousand people acknowledge one broadcast at once: each is counted, and nobody else waits for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from wedsync.broadcast.v1 import common_pb2

from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from tests.integration.inbox.crowd import acknowledging, answered
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.inbox.processes import Processes, open_processes
from tests.integration.inbox.site import Person, Site

_PEOPLE = 10_000


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


async def live_on(site: Site, person: Person, is_over: Callable[[], bool]) -> list[float]:
    """What somebody else does meanwhile, again and again, and how long it took each time, in seconds."""
    took = []
    while not is_over():
        began = time.monotonic()
        broadcast_id = await site.send([person])
        assert await answered(lambda: site.ids(person, page_size=1)) == [broadcast_id]
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
    tokens = [person.token for person in people]
    crowd = asyncio.create_task(acknowledging(site.environment["INBOX_LISTEN"], broadcast_id, tokens))
    took = await live_on(site, other, crowd.done)
    outcome = await crowd
    print(
        f"{_PEOPLE:,} in {outcome.seconds:.1f} s, refused {outcome.refused}; "
        f"meanwhile {len(took)} rounds, the slowest {max(took):.1f} s"
    )
    assert sorted(outcome.acknowledged) == list(range(_PEOPLE))
    # One round would be one that had waited for the end of it all.
    assert len(took) > 1
    counted = await site.engagement(broadcast_id)
    assert (counted.delivered, counted.read, counted.acknowledged) == (_PEOPLE,) * 3
    # Some of them again: the first time stands, and nobody is counted twice.
    await acknowledging(site.environment["INBOX_LISTEN"], broadcast_id, tokens[:500])
    assert await site.engagement(broadcast_id) == counted
