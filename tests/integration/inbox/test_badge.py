"""The badge, with Redis that is there, empty, wrong, gone or asleep."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from services.inbox.checkpoints import REDIS_CALLS
from services.inbox.domain import Badge
from services.inbox.inboxes import Inboxes
from stack.credentials import Secrets
from stack.ports import Ports
from stack.processes import RunningProgram, start
from stack.servers import Place
from stack.valkey import ValkeyServer
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.site import Site
from tests.integration.inbox.stores import Stores
from tests.integration.shared.polling import until, until_equal


async def remembered(stores: Stores, number: int) -> Badge | None:
    """The badge that Redis has."""
    _, checkpoints = stores.another_node()
    found = await checkpoints.find(number)
    await checkpoints.close()
    return found


async def test_a_badge_is_remembered_and_used(stores: Stores) -> None:
    """What was counted is written to Redis; what came after it is added, by whichever node."""
    number = stores.new_number()
    await stores.arrive(a_content(uuid4()), [number])
    assert (await stores.inboxes.count_unread(number)).unread_count == 1
    await until_equal(True, lambda: _has_badge(stores, number))
    known = await remembered(stores, number)
    assert known is not None
    assert known.unread_count == 1
    await stores.arrive(a_content(uuid4()), [number])
    inboxes, checkpoints = stores.another_node()
    assert [await _count(each, number) for each in (inboxes, stores.inboxes)] == [2, 2]
    await stores.work.mark_all_read(number)
    assert [await _count(each, number) for each in (inboxes, stores.inboxes)] == [0, 0]
    await checkpoints.close()


async def test_a_badge_only_counts_what_lies_beyond_it(stores: Stores) -> None:
    """Given a badge that still holds, nothing before it is counted again: not even if the badge was a lie."""
    number = stores.new_number()
    merge = await stores.arrive(a_content(uuid4()), [number])
    lie = Badge(70, merge.position, None)
    assert (await stores.store.count_unread(number, lie)).unread_count == 70
    await stores.arrive(a_content(uuid4()), [number])
    assert (await stores.store.count_unread(number, lie)).unread_count == 71


@pytest.mark.parametrize("until_", [datetime(2020, 1, 1, tzinfo=UTC), None])
async def test_a_badge_that_does_not_hold_any_more_is_counted_anew(
    stores: Stores, until_: datetime | None
) -> None:
    """Because something in it has expired, or because it is from another log's future."""
    number = stores.new_number()
    merge = await stores.arrive(a_content(uuid4()), [number])
    lie = Badge(70, merge.position if until_ else 2**60, until_)
    assert (await stores.store.count_unread(number, lie)).unread_count == 1


async def test_a_badge_ends_with_the_first_expiry_in_it(stores: Stores) -> None:
    """The soonest of what is unread, and none when nothing expires."""
    number = stores.new_number()
    await stores.arrive(a_content(uuid4()), [number])
    assert (await stores.store.count_unread(number, None)).valid_until is None
    soon, late = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 2))
    await stores.arrive(a_content(uuid4(), expires_at=late), [number])
    badge = await stores.store.count_unread(number, None)
    assert badge.valid_until == late
    await stores.arrive(a_content(uuid4(), expires_at=soon), [number])
    assert (await stores.store.count_unread(number, badge)).valid_until == soon


async def test_an_item_that_expires_leaves_the_badge_by_itself(stores: Stores) -> None:
    """Nobody has to do anything."""
    number = stores.new_number()
    await stores.arrive(a_content(uuid4(), expires_at=datetime.now(UTC) + timedelta(seconds=1)), [number])
    assert (await stores.inboxes.count_unread(number)).unread_count == 1
    await until_equal(0, lambda: _count(stores.inboxes, number))


async def test_a_flushed_redis_changes_no_count(site: Site, valkey_server: str) -> None:
    """Everything is counted from Postgres then."""
    amara = site.person()
    for _ in range(3):
        await site.send([amara])
    assert await site.unread(amara) == 3
    async with Redis.from_url(valkey_server) as redis:
        await redis.flushall()
    assert await site.unread(amara) == 3
    await site.restart()
    assert await site.unread(amara) == 3


async def test_rubbish_in_redis_is_no_badge(stores: Stores) -> None:
    """Whatever somebody put there."""
    number = stores.new_number()
    await stores.arrive(a_content(uuid4()), [number])
    key = f"{stores.checkpoints._prefix}{number}"
    for rubbish in (b"", b"x", b"1:2", b"1:2:3:4", b"\xff\xfe", b"9" * 400, b"1:2:" + b"9" * 30):
        await stores.checkpoints._redis.set(key, rubbish)
        inboxes, checkpoints = stores.another_node()
        assert await _count(inboxes, number) == 1
        await checkpoints.close()


async def test_without_redis_counts_are_right_and_quick(stores: Stores) -> None:
    """A port where nobody listens costs a moment once, and then nothing for a while."""
    inboxes, lonely = stores.another_node("redis://127.0.0.1:1/0")
    numbers = [stores.new_number() for _ in range(3)]
    await stores.arrive(a_content(uuid4()), numbers)
    for number in numbers:
        assert await _count(inboxes, number) == 1
    assert lonely.is_resting
    await lonely.close()


@pytest.fixture
async def sleeper(place: Place, tmp_path: Path) -> AsyncIterator[tuple[str, RunningProgram]]:
    """A Valkey that a test can put to sleep."""
    server = ValkeyServer(
        tmp_path,
        tmp_path,
        Ports(tmp_path / "ports.json").choose("sleeper"),
        Secrets(tmp_path / "s.json").password("v"),
    )
    running = start(server)
    yield server.url, running
    os.kill(running.pid, signal.SIGCONT)
    running.stop()


async def test_a_redis_that_hangs_costs_few_calls_a_moment(
    stores: Stores, sleeper: tuple[str, RunningProgram]
) -> None:
    """The first calls wait 50 ms at most, those that follow not at all; when it is awake again it is used again."""
    url, running = sleeper
    inboxes, checkpoints = stores.another_node(url)
    first, *others = numbers = [stores.new_number() for _ in range(41)]
    await stores.arrive(a_content(uuid4()), numbers)
    assert await _count(inboxes, first) == 1
    await until_equal(True, lambda: _finds(stores, url, first))
    os.kill(running.pid, signal.SIGSTOP)
    assert await asyncio.gather(*(_count(inboxes, number) for number in others[:20])) == [1] * 20
    assert checkpoints.is_resting
    failed = REDIS_CALLS.labels("failed")._value.get()
    assert [await _count(inboxes, number) for number in others[20:]] == [1] * 20
    assert REDIS_CALLS.labels("failed")._value.get() <= failed + 1
    os.kill(running.pid, signal.SIGCONT)
    await until_equal(True, lambda: _finds(stores, url, first))
    await checkpoints.close()


async def test_counts_under_load_are_those_of_the_inbox(site: Site) -> None:
    """While items arrive, are read, retracted and walled off, every badge is one that was true at some moment."""
    amara = site.person()
    wedding_id = site.wedding(amara)
    ids: list[str] = []

    async def arrive() -> None:
        for number in range(20):
            broadcast_id = site.about(wedding_id) if number % 2 else site.broadcast()
            await site.deliver(broadcast_id, [amara])
            ids.append(broadcast_id)

    async def act() -> None:
        await site.set_team(wedding_id)
        await site.set_team(wedding_id, amara)
        await until(lambda: len(ids) > 4)
        await site.record(amara, "READ", *ids[:3])
        await site.retract(ids[4], hide=True)

    async def count() -> None:
        for _ in range(40):
            assert 0 <= await site.unread(amara) <= 20

    await asyncio.gather(arrive(), act(), count())
    listed = await site.listed(amara, unread_only=True)
    assert await site.unread(amara) == listed.unread_count == listed.total_count == len(listed.items) == 16


async def _count(inboxes: Inboxes, number: int) -> int:
    return (await inboxes.count_unread(number)).unread_count


async def _has_badge(stores: Stores, number: int) -> bool:
    return await remembered(stores, number) is not None


async def _finds(stores: Stores, url: str, number: int) -> bool:
    _, checkpoints = stores.another_node(url)
    found = await checkpoints.find(number)
    await checkpoints.close()
    return found is not None
