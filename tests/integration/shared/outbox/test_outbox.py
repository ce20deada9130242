"""The outbox on real servers: what a committed transaction asked for is published, once and when it is due."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import asyncpg
import pytest

from shared.cleaning import Batch, Hasty
from shared.clock import SystemClock
from shared.database import Database
from shared.messaging import Messaging
from shared.outbox import Outbox, OutboxEntry, OutboxRelay
from tests.integration.shared.nats_site import NatsSite
from tests.integration.shared.outbox.rows import Add, state_of
from tests.integration.shared.polling import until_equal


async def test_what_is_due_is_published_and_done(
    site: NatsSite, database: Database, add: Add, messaging: Messaging
) -> None:
    """Subject and payload are the row's, the id is its key and epoch."""
    await add("a")
    assert await OutboxRelay(database, "post", messaging).relay_due() == 1
    assert await site.contents() == [("test.fast", b"x", "a:1")]
    assert await state_of(database, "a") == ("done", 1, 0)
    assert await OutboxRelay(database, "post", messaging).relay_due() == 0


async def test_a_row_without_a_key_goes_by_its_id(
    site: NatsSite, database: Database, outbox: Outbox, messaging: Messaging
) -> None:
    """What nobody needs to name still has an id of its own."""
    row_id = await outbox.add(database, OutboxEntry("test.slow", b"", rank=0))
    await OutboxRelay(database, "post", messaging).relay_due()
    assert await site.contents() == [("test.slow", b"", f"{row_id}:1")]


async def test_rows_that_are_added_together_are_as_those_added_one_by_one(
    site: NatsSite, database: Database, outbox: Outbox, messaging: Messaging
) -> None:
    """Each with its own subject, payload, key and time; one that is not due yet waits."""
    later = SystemClock().now() + timedelta(hours=1)
    entries = [
        OutboxEntry("test.fast", b"x", rank=0, key="a"),
        OutboxEntry("test.slow", b"y", rank=3, key="b", settle="report"),
        OutboxEntry("test.fast", b"z", rank=0, key="c", due_at=later),
    ]
    await outbox.add_many(database, entries)
    assert await OutboxRelay(database, "post", messaging).relay_due() == 2
    assert sorted(await site.contents()) == [("test.fast", b"x", "a:1"), ("test.slow", b"y", "b:1")]
    states = {key: (await state_of(database, key))[0] for key in ("a", "b", "c")}
    assert states == {"a": "done", "b": "published", "c": "pending"}


async def test_the_message_can_carry_its_epoch(
    site: NatsSite, database: Database, add: Add, messaging: Messaging
) -> None:
    """`encode` makes the message of the claimed row."""
    await add("a")
    relay = OutboxRelay(
        database, "post", messaging, encode=lambda entry: f"{entry.key}/{entry.epoch}".encode()
    )
    await relay.relay_due()
    assert await site.contents() == [("test.fast", b"a/1", "a:1")]


async def test_nothing_of_a_rolled_back_transaction_is_published(
    site: NatsSite, database: Database, outbox: Outbox, messaging: Messaging
) -> None:
    """The decision did not stand, so neither does the message."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the transaction is what is tested
        async with database.transaction() as transaction:
            await outbox.add(transaction, OutboxEntry("test.fast", b"", rank=0))
            _ = 1 / 0
    assert await OutboxRelay(database, "post", messaging).relay_due() == 0
    assert await site.stored() == 0


async def test_critical_goes_first_and_then_what_was_due_first(
    site: NatsSite, database: Database, add: Add, messaging: Messaging
) -> None:
    """Within a batch and across batches."""
    for key, rank, due_in_s in [
        ("low", 3, -9),
        ("late", 1, -1),
        ("early", 1, -5),
        ("critical", 0, 0),
        ("normal", 2, -8),
    ]:
        await add(key, rank=rank, due_in_s=due_in_s)
    relay = OutboxRelay(database, "post", messaging, batch=3)
    assert await relay.relay_due() == 3
    assert sorted(await site.ids()) == ["critical:1", "early:1", "late:1"]
    await relay.relay_due()
    assert await site.ids() == ["critical:1", "early:1", "late:1", "normal:1", "low:1"]


async def test_a_row_waits_until_it_is_due(
    site: NatsSite, database: Database, add: Add, start: Callable[..., OutboxRelay]
) -> None:
    """The outbox is the scheduler: not before its time, and at its time without anyone's hint or a poll."""
    await add("later", due_in_s=0.4)
    await add("tomorrow", due_in_s=86_400.0)
    relay = start(poll_s=60.0)
    relay.wake()
    await until_equal(["later:1"], site.ids)
    assert await database.fetchval("SELECT due_at <= now() FROM post.outbox WHERE key = 'later'")
    assert await state_of(database, "tomorrow") == ("pending", 0, 0)


async def test_a_wake_up_is_enough(site: NatsSite, add: Add, start: Callable[..., OutboxRelay]) -> None:
    """A commit wakes the relay, which would sleep for a minute."""
    relay = start(poll_s=60.0)
    await asyncio.sleep(0)
    for key in ("a", "b"):
        await add(key)
        relay.wake()
        await until_equal(True, lambda key=key: contains(site, f"{key}:1"))


async def contains(site: NatsSite, message_id: str) -> bool:
    """Whether the stream holds the message."""
    return message_id in await site.ids()


async def test_without_a_wake_up_it_polls(
    site: NatsSite, add: Add, start: Callable[..., OutboxRelay]
) -> None:
    """A lost hint is a delay and no more."""
    start(poll_s=0.05)
    await add("a")
    await until_equal(["a:1"], site.ids)


async def test_what_is_to_be_reported_is_published_until_it_is(
    site: NatsSite, database: Database, outbox: Outbox, add: Add, start: Callable[..., OutboxRelay]
) -> None:
    """Each lease that ends without a result gives a new epoch, so JetStream does not take it for a repetition."""
    await add("a", settle="report")
    start(lease_s=0.1)
    await until_equal(True, lambda: contains(site, "a:3"))
    assert await outbox.settle(database, "a")
    state, epoch, _ = await state_of(database, "a")
    assert state == "done"
    assert not await outbox.settle(database, "a")
    await add("b")
    await until_equal(True, lambda: contains(site, "b:1"))
    assert await site.ids() == [*(f"a:{number}" for number in range(1, epoch + 1)), "b:1"]


async def test_each_lease_is_twice_as_long_as_the_one_before(
    database: Database, add: Add, messaging: Messaging
) -> None:
    """Up to a ceiling; what JetStream has not taken was not said, and counts as none."""
    relay = OutboxRelay(database, "post", messaging, lease_s=10.0, lease_ceiling_s=60.0)
    await add("a", settle="report")
    leases = []
    for _ in range(5):
        assert await relay.relay_due() == 1
        leases.append(
            await database.fetchval("SELECT extract(epoch FROM lease_until - now())::float8 FROM post.outbox")
        )
        await database.execute("UPDATE post.outbox SET lease_until = now()")
    assert leases == pytest.approx([10, 20, 40, 60, 60], abs=5)
    await database.execute("UPDATE post.outbox SET attempts = epoch - 1")
    assert await relay.relay_due() == 1
    left = await database.fetchval("SELECT extract(epoch FROM lease_until - now())::float8 FROM post.outbox")
    assert left == pytest.approx(20, abs=5)


async def test_what_is_less_urgent_waits_while_much_is_under_way(
    site: NatsSite, database: Database, outbox: Outbox, add: Add, messaging: Messaging
) -> None:
    """The window is filled from the most urgent on, and has room again for each that is settled."""
    relay = OutboxRelay(database, "post", messaging, window=2)
    for key, rank in (("low", 3), ("critical-1", 0), ("critical-2", 0), ("critical-3", 0), ("high", 1)):
        await add(key, rank=rank, settle="report")
    assert await relay.relay_due() == 2
    assert await relay.relay_due() == 0
    assert await outbox.settle(database, "critical-1")
    assert await relay.relay_due() == 1
    for key in ("critical-2", "critical-3"):
        assert await outbox.settle(database, key)
        assert await relay.relay_due() == 1
    assert await site.ids() == ["critical-1:1", "critical-2:1", "critical-3:1", "high:1", "low:1"]


async def test_what_is_more_urgent_never_waits_for_what_is_less(
    site: NatsSite, add: Add, messaging: Messaging, database: Database
) -> None:
    """A window full of low ones has room for a critical one."""
    relay = OutboxRelay(database, "post", messaging, window=2)
    for key in ("low-1", "low-2", "low-3"):
        await add(key, rank=3, settle="report")
    assert await relay.relay_due() == 2
    await add("critical", rank=0, settle="report")
    assert await relay.relay_due() == 1
    assert await site.ids() == ["low-1:1", "low-2:1", "critical:1"]


async def test_what_nobody_settles_keeps_others_waiting_for_one_lease(
    database: Database, add: Add, messaging: Messaging
) -> None:
    """When it ends they go on, however often the one that is stuck is published again."""
    relay = OutboxRelay(database, "post", messaging, window=1)
    await add("stuck", rank=0, settle="report")
    await add("waiting", rank=3, settle="report")
    assert await relay.relay_due() == 1
    assert await relay.relay_due() == 0
    await database.execute("UPDATE post.outbox SET lease_until = now() WHERE key = 'stuck'")
    await relay.relay_due()
    assert await state_of(database, "stuck") == ("published", 2, 0)
    await relay.relay_due()
    assert await state_of(database, "waiting") == ("published", 1, 0)


async def test_a_cancelled_row_is_not_published(
    site: NatsSite, database: Database, outbox: Outbox, add: Add, messaging: Messaging
) -> None:
    """Before it was published it never is, afterwards not again; what has ended cannot be cancelled."""
    relay = OutboxRelay(database, "post", messaging, lease_s=0.0)
    await add("waiting")
    assert await outbox.cancel(database, "waiting")
    await add("going", settle="report")
    assert await relay.relay_due() == 1
    assert await outbox.cancel(database, "going")
    assert await relay.relay_due() == 0
    assert await site.ids() == ["going:1"]
    assert not await outbox.cancel(database, "going")
    assert not await outbox.cancel(database, "unknown")


async def test_a_key_can_be_added_once(add: Add) -> None:
    """A second row about the same thing breaks a constraint that the owner knows by name."""
    await add("a")
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await add("a")
    assert raised.value.constraint_name == "outbox_key_once"


async def test_what_has_ended_goes_after_a_week(
    database: Database, outbox: Outbox, add: Add, messaging: Messaging
) -> None:
    """Done and cancelled rows go, as many as are counted, in parts; what is still to be done stays, however old."""
    for key in ("a", "b", "c"):
        await add(key)
    await OutboxRelay(database, "post", messaging).relay_due()
    await add("waiting")
    await add("cancelled")
    await outbox.cancel(database, "cancelled")
    chore, hasty = outbox.retention(), Hasty(database, SystemClock())
    assert (await chore.count(), await chore.remove(hasty, 3)) == (0, Batch(0, is_last=True))
    await database.execute("UPDATE post.outbox SET created_at = created_at - interval '8 days'")
    assert await chore.count() == 4
    assert await chore.remove(hasty, 3) == Batch(3, is_last=False)
    assert await chore.remove(hasty, 3) == Batch(1, is_last=True)
    assert [row["key"] for row in await database.fetch("SELECT key FROM post.outbox")] == ["waiting"]


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("subject", "''"),
        ("rank", "4"),
        ("rank", "-1"),
        ("settle", "'maybe'"),
        ("state", "'lost'"),
        ("state", "'published'"),
        ("lease_until", "now()"),
        ("settle", "'report'"),
        ("epoch", "-1"),
        ("attempts", "-1"),
    ],
)
async def test_the_schema_keeps_its_invariants(database: Database, columns: str, values: str) -> None:
    """Empty subjects, unknown ranks and states, leases without publishing, reports without a key: all refused."""
    row = {
        "subject": "'a'",
        "payload": "''",
        "due_at": "now()",
        "rank": "0",
        "settle": "'ack'",
        columns: values,
    }
    with pytest.raises(asyncpg.CheckViolationError):
        await database.execute(
            f"INSERT INTO post.outbox ({', '.join(row)}) VALUES ({', '.join(row.values())})"  # noqa: S608
        )
