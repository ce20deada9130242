"""What leaves inboxes after its time, what stays for good, and that lists and counts are right all the while."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.inbox.domain import CRITICAL, Arrangement, Badge, Filter, ReceiptAction
from services.inbox.work_store import ReceiptCall
from shared.cleaning import Hasty
from shared.clock import SystemClock
from stack.provision import SuiteDatabase
from tests.integration.inbox.aging import age, clean_up, cleaner, expire, forgotten_log, leaving, rows_of
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.stores import Stores, open_stores

SOON = datetime.now(UTC) + timedelta(hours=1)
ALL = Filter(include_dismissed=True)


@pytest.fixture(scope="module")
async def stores(
    make_suite: Callable[..., Awaitable[SuiteDatabase]], valkey_server: str
) -> AsyncIterator[Stores]:
    """In a database of their own: to be rid of all that other tests leave would take longer than all of these."""
    async with open_stores(await make_suite("inbox"), valkey_server) as opened:
        yield opened


@pytest.fixture(autouse=True)
async def nothing_is_old(stores: Stores) -> None:
    """Each test finds nothing that is due from another, now or once the log forgets."""
    async with forgotten_log(stores.admin):
        await clean_up(stores)


async def listed(stores: Stores, number: int) -> list[UUID]:
    """What a recipient's inbox has."""
    page = await stores.store.list_items(number, ALL, None, 100, None)
    return [place.broadcast_id for place in page.places]


async def unread(stores: Stores, number: int, known: Badge | None = None) -> int:
    """The badge, by an earlier one or counted anew."""
    return (await stores.store.count_items(number, known)).unread_count


async def arrive(stores: Stores, *numbers: int, **fields: object) -> UUID:
    """A new broadcast in these inboxes."""
    content = a_content(uuid4(), **fields)
    await stores.arrive(content, numbers)
    return content.broadcast_id


async def record(stores: Stores, number: int, action: ReceiptAction, *ids: UUID) -> None:
    """What a recipient does with items."""
    url = "/there" if action is ReceiptAction.CLICKED else None
    await stores.work.record_receipts([ReceiptCall(number, ids, action, url)])


async def test_items_leave_after_ninety_days_and_no_earlier(stores: Stores) -> None:
    """By the time of arrival, whether read or not; nothing is left of those that go but the tombstone."""
    number = stores.new_number()
    old, young = await arrive(stores, number), await arrive(stores, number)
    crowd = await arrive(stores, *range(number, number + 20))
    await record(stores, number, ReceiptAction.READ, old, young)
    await age(stores.admin, 90.01, [old, crowd])
    await age(stores.admin, 89.99, [young])
    cleaned = await clean_up(stores)
    assert await listed(stores, number) == [young]
    assert (cleaned["broadcasts"].count, cleaned["items"].count) == (2, 21)
    assert await rows_of(stores.admin, old) == {"broadcasts": 1, "retractions": 1}
    assert await rows_of(stores.admin, crowd) == {"broadcasts": 1, "retractions": 1}
    assert await rows_of(stores.admin, young) == {"broadcasts": 1, "arrivals": 1, "direct": 1, "receipts": 1}


async def test_a_broadcast_stays_while_the_last_of_it_is_young(stores: Stores) -> None:
    """What arrived late, after an outage, is there for as long as anything else."""
    first, second = stores.new_number(), stores.new_number()
    content = a_content(uuid4())
    await stores.arrive(content, [first])
    await age(stores.admin, 100, [content.broadcast_id])
    await stores.arrive(content, [second])
    assert (await clean_up(stores))["broadcasts"].count == 0
    assert await listed(stores, first) == await listed(stores, second) == [content.broadcast_id]


async def test_an_expired_broadcast_leaves_after_thirty_days(stores: Stores) -> None:
    """Nobody has seen it since it expired; one that has not expired is shown on."""
    number = stores.new_number()
    expired, expiring, recent = [await arrive(stores, number, expires_at=SOON) for _ in range(3)]
    await age(stores.admin, 31, [expired, expiring])
    await age(stores.admin, 29, [recent])
    await expire(stores.admin, 1, [expired, recent])
    assert (await clean_up(stores))["broadcasts"].count == 1
    assert await rows_of(stores.admin, expired) == {"broadcasts": 1, "retractions": 1}
    assert "direct" in await rows_of(stores.admin, recent)
    assert await listed(stores, number) == [expiring]


async def test_texts_go_in_a_later_run(stores: Stores) -> None:
    """When no call that saw the item can still run; with what such a call has written. The tombstone stays."""
    number = stores.new_number()
    old = await arrive(stores, number)
    await age(stores.admin, 91, [old])
    assert (await clean_up(stores))["texts"].count == 0
    assert (await clean_up(stores))["texts"].count == 0
    await stores.admin.execute(
        "INSERT INTO receipts (recipient_number, broadcast_id, read_at) VALUES ($1, $2, now())", number, old
    )
    await stores.admin.execute(
        "UPDATE broadcasts SET left_at = left_at - interval '2 minutes',"
        " emptied_at = emptied_at - interval '2 minutes' WHERE broadcast_id = $1",
        old,
    )
    counted = await clean_up(stores, dry_run=True)
    cleaned = await clean_up(stores)
    assert counted["texts"].count == cleaned["texts"].count == 1
    assert await rows_of(stores.admin, old) == {"retractions": 1}


async def test_a_badge_that_was_counted_before_is_never_used_after(stores: Stores) -> None:
    """In the memory of any node and in Redis: what has left is off the badge at once, at every step of cleaning."""
    number = stores.new_number()
    old, young = await arrive(stores, number), await arrive(stores, number)
    known = await stores.store.count_items(number, None)
    assert (await stores.inboxes.count_unread(number)).unread_count == known.unread_count == 2
    other, checkpoints = stores.another_node()
    assert (await other.count_unread(number)).unread_count == 2
    await age(stores.admin, 91, [old])
    hasty = Hasty(stores.worked, SystemClock())
    seen = []
    for chore in cleaner(stores)._chores:
        while not (await chore.remove(hasty, 1)).is_last:
            counts = [await unread(stores, number, each) for each in (known, None)]
            remembered = [(await each.count_unread(number)).unread_count for each in (stores.inboxes, other)]
            seen.append({*counts, *remembered, len(await listed(stores, number))})
    await checkpoints.close()
    assert seen
    assert all(each == {1} for each in seen)
    assert await listed(stores, number) == [young]


async def test_what_was_read_and_has_expired_since_is_not_taken_off_twice(stores: Stores) -> None:
    """A badge from before all that: it knows of the reading, and nothing of the item that is gone."""
    number = stores.new_number()
    await arrive(stores, number)
    known = await stores.store.count_items(number, None)
    expired = await arrive(stores, number, expires_at=SOON)
    await record(stores, number, ReceiptAction.READ, expired)
    await age(stores.admin, 31, [expired])
    await expire(stores.admin, 1, [expired])
    await clean_up(stores)
    assert await unread(stores, number, known) == await unread(stores, number) == 1


async def test_a_page_token_goes_on_over_what_has_left(stores: Stores) -> None:
    """The next page starts below the place that it names, whether anything is there any more or not."""
    number = stores.new_number()
    ids = [await arrive(stores, number) for _ in range(6)]
    wanted = Filter()
    first = await stores.inboxes.list_items(number, wanted, 2)
    await age(stores.admin, 91, [ids[4], ids[3]])
    await clean_up(stores)
    second = await stores.inboxes.list_items(number, wanted, 2, first.next_page_token)
    third = await stores.inboxes.list_items(number, wanted, 2, second.next_page_token)
    assert [page.total_count for page in (first, second, third)] == [6, 4, 4]
    assert (second.items.count(ids[2].bytes), third.next_page_token) == (0, "")
    page = await stores.store.list_items(number, wanted, None, 10, None)
    assert [place.broadcast_id for place in page.places] == [ids[5], ids[2], ids[1], ids[0]]


async def test_all_read_goes_when_it_says_nothing_of_anything_that_is_there(stores: Stores) -> None:
    """Marks before every arrival; those that make something read stay, and so does their time."""
    number = stores.new_number()
    old = await arrive(stores, number)
    await stores.work.mark_all_read(number, None)
    young = await arrive(stores, number)
    await stores.work.mark_all_read(number, None)
    before = await stores.store.get_item(number, young)
    everything = await stores.admin.fetch("SELECT DISTINCT broadcast_id FROM arrivals")
    others = [row["broadcast_id"] for row in everything if row["broadcast_id"] != young]
    await age(stores.admin, 91, others)
    # With those that other tests have retracted.
    async with forgotten_log(stores.admin):
        counted, cleaned = await clean_up(stores, dry_run=True), await clean_up(stores)
    marks = "SELECT count(*) FROM watermarks WHERE recipient_number = $1"
    assert await stores.admin.fetchval(marks, number) == 1
    assert counted["all-read marks"].count == cleaned["all-read marks"].count > 0
    assert await stores.store.get_item(number, young) == before
    assert await listed(stores, number) == [young]
    assert await rows_of(stores.admin, old) == {"broadcasts": 1, "retractions": 1}
    assert await unread(stores, number) == 0
    _, position = await stores.work.mark_all_read(number, None)
    assert position is None


@pytest.mark.parametrize("size", [1, 3, 10_000])
async def test_what_anybody_did_with_critical_ones_stays_for_good(stores: Stores, size: int) -> None:
    """Its items go; text and receipts stay, with the reads that only "all read" knew of, whatever the batches."""
    number = stores.new_number()
    crowd = range(number, number + 12)
    content = a_content(uuid4(), priority=CRITICAL, type="security.alert")
    await stores.arrive(content, crowd)
    await stores.arrive(content, [number + 5_000])
    critical = content.broadcast_id
    for reader in (number + 1, number + 2, number + 5_000):
        await stores.work.mark_all_read(reader, None)
    await record(stores, number, ReceiptAction.ACKNOWLEDGED, critical)
    await record(stores, number + 1, ReceiptAction.ACKNOWLEDGED, critical)
    [counted] = await stores.work.count_engagement([critical])
    times = {each: await read_at(stores, each, critical) for each in (number, number + 1, number + 5_000)}
    await age(stores.admin, 91, [critical])
    await stores.admin.execute("UPDATE watermarks SET at = at - interval '91 days'")
    hasty = Hasty(stores.worked, SystemClock())
    texts, taking_out, items, *rest = cleaner(stores)._chores
    while not (await taking_out.remove(hasty, 1)).is_last:
        pass
    while not (await items.remove(hasty, size)).is_last:
        assert await stores.work.count_engagement([critical]) == [counted]
    for chore in (texts, *rest):
        await chore.remove(hasty, 10_000)
    assert (counted.delivered, counted.read, counted.acknowledged, counted.cleaned_at) == (13, 4, 2, None)
    assert await stores.work.count_engagement([critical]) == [counted]
    assert await rows_of(stores.admin, critical) == {"broadcasts": 1, "receipts": 4, "retractions": 1}
    kept = await stores.admin.fetch(
        "SELECT recipient_number, read_at FROM receipts WHERE broadcast_id = $1", critical
    )
    kept_times = {row["recipient_number"]: row["read_at"] for row in kept}
    assert {each: kept_times[each] + timedelta(days=91) for each in times} == times
    assert await stores.admin.fetchval("SELECT title FROM broadcasts WHERE broadcast_id = $1", critical)
    assert await listed(stores, number) == []


async def read_at(stores: Stores, number: int, broadcast_id: UUID) -> datetime | None:
    """When an item was read first, by whatever means."""
    item = await stores.store.get_item(number, broadcast_id)
    assert item is not None
    return item.receipt.read_at


async def test_counts_of_what_was_cleaned_say_so(stores: Stores) -> None:
    """From the moment that it leaves, so that nobody takes what is being removed for what there was."""
    number = stores.new_number()
    old, young = await arrive(stores, number, number + 1), await arrive(stores, number)
    await record(stores, number, ReceiptAction.READ, old)
    await age(stores.admin, 91, [old])
    hasty = Hasty(stores.worked, SystemClock())
    while not (await leaving(stores).remove(hasty, 1)).is_last:
        pass
    for _ in range(2):
        [gone, there, unknown] = await stores.work.count_engagement([old, young, uuid4()])
        assert gone.cleaned_at is not None
        assert (there.delivered, there.cleaned_at) == (1, None)
        assert (unknown.delivered, unknown.cleaned_at) == (0, None)
        await clean_up(stores)


async def test_a_late_chunk_of_what_was_cleaned_arrives_nowhere(stores: Stores) -> None:
    """Neither the one that had come before nor another, with its text or without: nothing comes twice."""
    number = stores.new_number()
    content = a_content(uuid4())
    await stores.arrive(content, [number])
    await age(stores.admin, 91, [content.broadcast_id])
    await clean_up(stores)
    stores.chunks[content.broadcast_id] = 0
    again, another = [await stores.arrive(content, [number]) for _ in range(2)]
    assert (again.is_merged, another.is_merged) == (False, False)
    assert await listed(stores, number) == []
    assert await rows_of(stores.admin, content.broadcast_id) == {"broadcasts": 1, "retractions": 1}


async def test_what_a_dry_run_counts_is_what_a_run_removes(stores: Stores) -> None:
    """Of every kind, with what a run that was broken off has left, and nothing is touched by the counting."""
    number = stores.new_number()
    await clean_up(stores)
    ids = [await arrive(stores, *range(number + place, number + place * place)) for place in range(2, 9)]
    left = await arrive(stores, number, number + 1)
    critical = await arrive(stores, *range(number, number + 30), priority=CRITICAL)
    for reader in range(number, number + 5):
        await stores.work.mark_all_read(reader, None)
    await age(stores.admin, 95, [left, critical, *ids[:5]])
    hasty = Hasty(stores.worked, SystemClock())
    await leaving(stores).remove(hasty, 1)
    counted = await clean_up(stores, dry_run=True)
    again = await clean_up(stores, dry_run=True)
    removed = await clean_up(stores)
    counts = {what: each.count for what, each in counted.items()}
    assert counts == {what: each.count for what, each in again.items()}
    assert counts == {what: each.count for what, each in removed.items()}
    assert (counts["broadcasts"], counts["items"]) == (6, sum(p * p - p for p in range(2, 7)) + 32)
    assert {
        what: each.count for what, each in (await clean_up(stores, dry_run=True)).items()
    } == dict.fromkeys(counts, 0)


async def test_what_is_still_shown_is_told(stores: Stores) -> None:
    """Neither what has left, expired or was retracted, nor, when asked ahead, what is to leave next."""
    number = stores.new_number()
    shown, old, expired, retracted, gone = [await arrive(stores, number, expires_at=SOON) for _ in range(5)]
    await age(stores.admin, 91, [gone])
    await clean_up(stores)
    await age(stores.admin, 91, [old])
    await expire(stores.admin, 1, [expired])
    await stores.work.retract(retracted, hide=True)
    asked = [shown, old, expired, retracted, gone, uuid4()]
    assert set(await leaving(stores).list_shown(asked, after_clean_up=False)) == {shown, old}
    assert await leaving(stores).list_shown(asked, after_clean_up=True) == [shown]


async def fill(stores: Stores, broadcast_id: UUID, count: int) -> None:
    """So many more items of a broadcast, each with a receipt."""
    first = stores.new_number() + 3_000_000
    people = "FROM generate_series($2::integer, $2::integer + $3::integer - 1) AS person (number)"
    for table, columns, values in (
        ("direct", "position, silent, arrived_at", "1, false, now()"),
        ("receipts", "read_at", "now()"),
    ):
        insert = f"INSERT INTO {table} (recipient_number, broadcast_id, {columns}) SELECT number, $1, {values} {people}"
        await stores.admin.execute(insert, broadcast_id, first, count)


@pytest.mark.parametrize("priority", [CRITICAL, 3])
async def test_where_people_kept_it_goes_with_an_item(stores: Stores, priority: int) -> None:
    """Snoozes and pins, of what is critical too; those of others stay."""
    number = stores.new_number()
    old, young = await arrive(stores, number, priority=priority), await arrive(stores, number)
    crowd = await arrive(stores, *range(number, number + 20), priority=priority)
    for broadcast_id in (old, young, crowd):
        await stores.arranging.arrange(number, broadcast_id, Arrangement.PINNED, None, None)
        await stores.arranging.arrange(number, broadcast_id, Arrangement.SNOOZED, SOON, None)
    await age(stores.admin, 91, [old, crowd])
    await clean_up(stores)
    left = await stores.admin.fetch(
        "SELECT broadcast_id FROM arrangements WHERE recipient_number = $1", number
    )
    assert [row["broadcast_id"] for row in left] == [young]


async def test_no_batch_removes_more_than_it_may(stores: Stores) -> None:
    """Items and receipts, of a large broadcast and of small ones: about as many rows as are asked for, and no more."""
    number = stores.new_number()
    ids = [await arrive(stores, number) for _ in range(10)]
    await fill(stores, ids[4], 500)
    await age(stores.admin, 91, ids)
    hasty = Hasty(stores.worked, SystemClock())
    _, taking_out, items, *_ = cleaner(stores)._chores
    while not (await taking_out.remove(hasty, 1)).is_last:
        pass
    query = "SELECT (SELECT count(*) FROM direct) + (SELECT count(*) FROM receipts)"
    before, is_last, batches = await stores.admin.fetchval(query), False, []
    while not is_last:
        is_last = (await items.remove(hasty, 64)).is_last
        after = await stores.admin.fetchval(query)
        batches.append(before - after)
        before = after
    assert sum(batches) == 1_010
    assert max(batches) <= 64


async def test_two_hundred_thousand_items_go_in_one_run(stores: Stores) -> None:
    """In batches that find their own size; the server breaks off what would hold its locks for too long."""
    large = await arrive(stores, stores.new_number())
    await fill(stores, large, 200_000)
    await age(stores.admin, 91, [large])
    assert (await clean_up(stores))["items"].count == 200_001
    assert await rows_of(stores.admin, large) == {"broadcasts": 1, "retractions": 1}
