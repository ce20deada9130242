"""The badge, with Redis that is there, empty, wrong, gone or asleep."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from services.inbox.changes import Changes
from services.inbox.domain import Badge, Filter, ReceiptAction, Team
from services.inbox.inboxes import Inboxes
from services.inbox.live import Tail
from services.inbox.memory import Memory
from services.inbox.store import SCHEMA
from services.inbox.waking import Waking
from services.inbox.work_store import ReceiptCall
from shared import messaging
from shared.audience import Audience
from shared.clock import SystemClock
from shared.messaging import MessagingSettings
from shared.metrics import REDIS_CALLS
from shared.ordered_log import OrderedLog
from stack.nats import NatsAccess
from stack.processes import RunningProgram
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.site import Site
from tests.integration.inbox.stores import Stores, is_waiting_for_the_log
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
    await stores.work.mark_all_read(number, None)
    assert [await _count(each, number) for each in (inboxes, stores.inboxes)] == [0, 0]
    await checkpoints.close()


async def test_a_badge_only_counts_what_lies_beyond_it(stores: Stores) -> None:
    """Given a badge that still holds, nothing before it is counted again: not even if the badge was a lie."""
    number = stores.new_number()
    merge = await stores.arrive(a_content(uuid4()), [number])
    lie = Badge(70, 70, merge.position, None)
    assert (await stores.store.count_items(number, lie)).unread_count == 70
    await stores.arrive(a_content(uuid4()), [number])
    assert (await stores.store.count_items(number, lie)).unread_count == 71


async def test_what_somebody_does_is_taken_off_the_badge(stores: Stores) -> None:
    """Reading takes one off what is unread, dismissing off both, restoring puts it back; nothing is counted for it."""
    number = stores.new_number()
    contents = [a_content(uuid4()) for _ in range(4)]
    for content in contents[:3]:
        merge = await stores.arrive(content, [number])
    lie = Badge(70, 90, merge.position, None)
    await stores.arrive(contents[3], [number])

    async def after(place: int, action: ReceiptAction) -> tuple[int, int]:
        call = ReceiptCall(number, (contents[place].broadcast_id,), action, None)
        await stores.work.record_receipts([call])
        badge = await stores.store.count_items(number, lie)
        return badge.unread_count, badge.total_count

    assert await after(0, ReceiptAction.READ) == (70, 91)
    assert await after(0, ReceiptAction.READ) == (70, 91)
    assert await after(0, ReceiptAction.DISMISSED) == (70, 90)
    assert await after(1, ReceiptAction.DISMISSED) == (69, 89)
    assert await after(0, ReceiptAction.RESTORED) == (69, 90)
    assert await after(3, ReceiptAction.ACKNOWLEDGED) == (68, 90)


async def test_what_was_read_just_before_it_expires_has_all_counted_anew(stores: Stores) -> None:
    """Nobody can tell whether the one or the other came first, so neither is taken off."""
    number = stores.new_number()
    content = a_content(uuid4(), expires_at=datetime.now(UTC) + timedelta(seconds=50))
    merge = await stores.arrive(content, [number])
    call = ReceiptCall(number, (content.broadcast_id,), ReceiptAction.READ, None)
    await stores.work.record_receipts([call])
    badge = await stores.store.count_items(number, Badge(70, 70, merge.position, None))
    assert (badge.unread_count, badge.total_count) == (0, 1)


async def test_what_is_restored_leaves_the_counts_when_it_expires(stores: Stores) -> None:
    """A count that was made while it was dismissed ends then, too."""
    number = stores.new_number()
    late = datetime.now(UTC) + timedelta(hours=1)
    content = a_content(uuid4(), expires_at=late)
    await stores.arrive(content, [number])
    call = ReceiptCall(number, (content.broadcast_id,), ReceiptAction.DISMISSED, None)
    await stores.work.record_receipts([call])
    badge = await stores.store.count_items(number, None)
    assert (badge.total_count, badge.valid_until) == (0, late)


async def test_what_was_taken_away_while_it_was_read_has_all_counted_anew(stores: Stores) -> None:
    """A retraction that commits while receipts wait for the log takes the item out of the counts before they do."""
    number = stores.new_number()
    content, other = a_content(uuid4()), a_content(uuid4())
    await stores.arrive(content, [number])
    await stores.arrive(other, [number])
    call = ReceiptCall(number, (content.broadcast_id,), ReceiptAction.READ, None)
    async with stores.admin.transaction():
        await stores.admin.execute("SELECT arrived FROM retract_broadcast($1, true)", content.broadcast_id)
        receipts = asyncio.create_task(stores.work.record_receipts([call]))
        await until_equal(True, lambda: is_waiting_for_the_log(stores.admin_url))
    await receipts
    badge = await stores.store.count_items(number, None)
    between = Badge(1, 1, badge.position - 1, None)
    assert (await stores.store.count_items(number, between)).unread_count == badge.unread_count == 1


@pytest.mark.parametrize("until_", [datetime(2020, 1, 1, tzinfo=UTC), None])
async def test_a_badge_that_does_not_hold_any_more_is_counted_anew(
    stores: Stores, until_: datetime | None
) -> None:
    """Because something in it has expired, or because it is from another log's future."""
    number = stores.new_number()
    merge = await stores.arrive(a_content(uuid4()), [number])
    lie = Badge(70, 70, merge.position if until_ else 2**60, until_)
    assert (await stores.store.count_items(number, lie)).unread_count == 1


async def test_a_badge_ends_with_the_first_expiry_in_it(stores: Stores) -> None:
    """The soonest of what is unread, and none when nothing expires."""
    number = stores.new_number()
    await stores.arrive(a_content(uuid4()), [number])
    assert (await stores.store.count_items(number, None)).valid_until is None
    soon, late = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, 2))
    await stores.arrive(a_content(uuid4(), expires_at=late), [number])
    badge = await stores.store.count_items(number, None)
    assert badge.valid_until == late
    await stores.arrive(a_content(uuid4(), expires_at=soon), [number])
    assert (await stores.store.count_items(number, badge)).valid_until == soon


@pytest.fixture
async def memory(stores: Stores, streams: NatsAccess) -> AsyncIterator[Memory]:
    """The memory of a node that follows the log, with the stores' checkpoints."""
    login = MessagingSettings(streams.url, "inbox", "inbox", streams.passwords.get("inbox"))
    nats = await messaging.connect(login)
    ordered_log, clock = OrderedLog(stores.worked, SCHEMA), SystemClock()
    tail = Tail(ordered_log, Changes(stores.work, stores.log_identity, clock), Waking(nats), poll_s=0.01)
    await tail.load()
    following = asyncio.create_task(tail.follow(lambda change: None))
    yield Memory(stores.inboxes, stores.checkpoints, tail, ordered_log, clock)
    following.cancel()
    await nats.drain()


async def test_a_badge_to_which_nothing_has_happened_is_not_counted(stores: Stores, memory: Memory) -> None:
    """Not even if it is a lie; what comes for somebody else changes nothing, what comes for its owner is added."""
    number, other = stores.new_number(), stores.new_number()
    merge = await stores.arrive(a_content(uuid4()), [number])
    stores.checkpoints.note(number, Badge(70, 70, merge.position, None), None)
    await memory._tail.reach(merge.position)
    assert await memory.count_unread(number) == 70
    merge = await stores.arrive(a_content(uuid4()), [other])
    await memory._tail.reach(merge.position)
    assert await memory.count_unread(number) == 70
    await stores.arrive(a_content(uuid4()), [number, other])
    assert await memory.count_unread(number) == 71


async def test_a_badge_of_which_something_expires_is_asked_of_the_database(
    stores: Stores, memory: Memory
) -> None:
    """Whose clock decides: close to the moment, ours is not trusted."""
    number = stores.new_number()
    soon = datetime.now(UTC) + timedelta(seconds=30)
    merge = await stores.arrive(a_content(uuid4(), expires_at=soon), [number])
    stores.checkpoints.note(number, Badge(70, 70, merge.position, soon - timedelta(minutes=1)), None)
    assert await memory.count_unread(number) == 1


async def test_a_page_to_which_nothing_has_happened_is_not_read_again(stores: Stores, memory: Memory) -> None:
    """The same bytes; read anew for another size, and once something has come for its owner."""
    number, other = stores.new_number(), stores.new_number()
    await stores.arrive(a_content(uuid4()), [number])
    first = await memory.list_items(number, Filter(), 0, "")
    merge = await stores.arrive(a_content(uuid4()), [other])
    await memory._tail.reach(merge.position)
    assert await memory.list_items(number, Filter(), 0, "") is first
    assert await memory.list_items(number, Filter(), 1, "") is not first
    await stores.arrive(a_content(uuid4()), [number])
    assert (await memory.list_items(number, Filter(), 1, "")).total_count == 2


async def test_pages_from_memory_take_no_more_than_their_room(
    stores: Stores, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has not asked for longest is forgotten, and has theirs read again."""
    numbers = [stores.new_number() for _ in range(3)]
    await stores.arrive(a_content(uuid4()), numbers)
    one = len((await stores.inboxes.list_items(numbers[0], Filter())).items)
    monkeypatch.setattr("services.inbox.memory._KEPT_BYTES", 2 * one)
    first, second, third = [await memory.list_items(number, Filter(), 0, "") for number in numbers]
    await memory._tail.reach(third.badge.position)
    assert await memory.list_items(numbers[1], Filter(), 0, "") is second
    assert await memory.list_items(numbers[0], Filter(), 0, "") is not first


async def test_memory_has_what_was_committed_before_it_was_asked(site: Site, stores: Stores) -> None:
    """By another node, which this one has not heard of: arrivals, receipts, a retraction, teams, "all read"."""
    amara = site.person()
    wedding = site.wedding(amara)
    first, second = a_content(uuid4()), a_content(uuid4())

    async def seen() -> tuple[int, int]:
        listed = await site.listed(amara)
        assert listed.unread_count == await site.unread(amara)
        assert listed.total_count == len(listed.items)
        return listed.unread_count, listed.total_count

    async def record(action: ReceiptAction) -> None:
        await stores.work.record_receipts([ReceiptCall(amara.number, (first.broadcast_id,), action, None)])

    await site.deliver(site.about(wedding), [amara])
    assert await seen() == (1, 1)
    await stores.arrive(first, [amara.number])
    assert await seen() == (2, 2)
    await stores.arrive(second, [amara.number])
    assert await seen() == (3, 3)
    await record(ReceiptAction.READ)
    assert await seen() == (2, 3)
    await record(ReceiptAction.DISMISSED)
    assert await seen() == (2, 2)
    await record(ReceiptAction.RESTORED)
    assert await seen() == (2, 3)
    await stores.work.retract(second.broadcast_id, hide=True)
    assert await seen() == (1, 2)
    await stores.work.apply_team(Team(UUID(wedding), 2, Audience()))
    assert await seen() == (0, 1)
    await stores.work.apply_team(Team(UUID(wedding), 3, Audience.of([amara.number])))
    assert await seen() == (1, 2)
    await stores.work.mark_all_read(amara.number, None)
    assert await seen() == (0, 2)


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
    for rubbish in (b"", b"x", b"1:2", b"1:2:3:4", b"\xff\xfe", b"9" * 400, b"1:2:3:4:5:" + b"9" * 30):
        await stores.checkpoints._redis._client.set(key, rubbish)
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


async def test_a_redis_that_hangs_costs_few_calls_a_moment(
    stores: Stores, own_valkey: tuple[str, RunningProgram]
) -> None:
    """The first calls wait 50 ms at most, those that follow not at all; when it is awake again it is used again."""
    url, running = own_valkey
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
