"""The outbox on real servers: what a committed transaction asked for is published, when it is due, whatever breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from shared.database import Database, connect
from shared.failpoints import FailpointError, armed
from shared.messaging import Messaging
from shared.outbox import Outbox, OutboxEntry, OutboxRelay, Settle
from tests.integration.shared.nats_site import NatsSite
from tests.integration.shared.outages import Relay
from tests.integration.shared.polling import until, until_equal
from tests.integration.shared.schemas import make_schema

Add = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsSite]:
    """A NATS server of this module's own."""
    site = NatsSite(tmp_path_factory.mktemp("outbox"))
    site.start()
    yield site
    site.stop()


@pytest.fixture
async def way(site: NatsSite) -> AsyncIterator[Relay]:
    """The way to NATS, which can be cut; an empty stream is at its end."""
    await site.provision()
    await site.delete_stream()
    await site.provision()
    way = await Relay.start(site.url)
    yield way
    await way.stop()


@pytest.fixture
async def messaging(site: NatsSite, way: Relay) -> AsyncIterator[Messaging]:
    """The connection to publish with."""
    messaging = await site.connect(way.url)
    yield messaging
    await messaging.drain()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on a database with an empty outbox in the schema `post`."""
    connection = await asyncpg.connect(database_url)
    await make_schema(connection, "post", "outbox_template.sql")
    await connection.close()
    database = await connect(database_url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
def outbox(database: Database) -> Outbox:
    """The owner's side."""
    return Outbox(database, "post")


@pytest.fixture
def add(database: Database, outbox: Outbox) -> Add:
    """Adds a row in a transaction of its own; due at once, of normal priority and done when JetStream has it."""

    async def add(
        key: str, *, rank: int = 2, due_in_s: float | None = None, settle: Settle = "ack", size: int = 1
    ) -> None:
        due_at = None if due_in_s is None else datetime.now(UTC) + timedelta(seconds=due_in_s)
        entry = OutboxEntry("test.fast", b"x" * size, rank, key=key, due_at=due_at, settle=settle)
        async with database.transaction() as transaction:
            await outbox.add(transaction, entry)

    return add


@pytest.fixture
async def start(database: Database, messaging: Messaging) -> AsyncIterator[Callable[..., OutboxRelay]]:
    """Starts a relay; those that were started are stopped in the end."""
    running: list[tuple[OutboxRelay, asyncio.Task[None]]] = []

    def start(lease_s: float = 30.0, poll_s: float = 0.05, batch: int = 100) -> OutboxRelay:
        relay = OutboxRelay(database, "post", messaging, lease_s=lease_s, poll_s=poll_s, batch=batch)
        running.append((relay, asyncio.create_task(relay.run())))
        return relay

    yield start
    for relay, task in running:
        relay.stop()
        await task


async def state_of(database: Database, key: str) -> tuple[str, int, int]:
    """State, epoch and attempts of a row."""
    row = await database.fetchrow("SELECT state, epoch, attempts FROM post.outbox WHERE key = $1", key)
    assert row is not None
    return tuple(row)


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


@pytest.mark.parametrize("point", ["after_claim", "before_mark"])
async def test_a_relay_that_dies_after_its_claim_is_made_up_for(
    site: NatsSite, database: Database, add: Add, messaging: Messaging, point: str
) -> None:
    """Published or not by the one that died, the row is published under the next epoch when its lease has ended."""
    dying = OutboxRelay(database, "post", messaging, lease_s=0.0)
    await add("a")
    with armed(f"post.relay.{point}=error@1") as plan:
        with pytest.raises(FailpointError):
            await dying.relay_due()
        assert await OutboxRelay(database, "post", messaging).relay_due() == 1
        assert plan.hits[f"post.relay.{point}"] == 2
    assert await site.ids() == {"after_claim": ["a:2"], "before_mark": ["a:1", "a:2"]}[point]
    assert await state_of(database, "a") == ("done", 2, 0)


@pytest.mark.parametrize("point", ["before_publish", "after_publish"])
async def test_a_publish_that_fails_is_tried_again(
    site: NatsSite,
    database: Database,
    messaging: Messaging,
    add: Add,
    start: Callable[..., OutboxRelay],
    point: str,
) -> None:
    """The row waits a moment and goes out under a new epoch; its neighbour is not kept back."""
    await add("a", rank=0)
    await add("b", rank=1)
    relay = OutboxRelay(database, "post", messaging)
    with armed(f"post.relay.{point}=error@1"):
        assert await relay.relay_due() == 2
        assert await state_of(database, "a") == ("pending", 1, 1)
        start()
        await until_equal(("done", 2, 0), lambda: state_of(database, "a"))
    assert await state_of(database, "b") == ("done", 1, 0)
    assert [message_id for message_id in await site.ids() if message_id != "a:1"] == ["b:1", "a:2"]


async def test_a_row_that_can_never_be_published_keeps_nobody_back(
    site: NatsSite, database: Database, add: Add, start: Callable[..., OutboxRelay]
) -> None:
    """A message larger than NATS takes stays pending, and everything after it is published."""
    await add("huge", rank=0, size=2 * 1024 * 1024)
    start()
    await until_equal(True, lambda: has_failed(database, "huge"))
    await add("small", rank=3)
    await until_equal(["small:1"], site.ids)


async def has_failed(database: Database, key: str) -> bool:
    """Whether publishing the row has failed at least once."""
    _, _, attempts = await state_of(database, key)
    return attempts > 0


async def test_an_outage_of_nats_leaves_rows_as_they_are(
    site: NatsSite,
    database: Database,
    add: Add,
    messaging: Messaging,
    way: Relay,
    start: Callable[..., OutboxRelay],
) -> None:
    """While NATS is away nothing is claimed; when it is back everything goes out at once."""
    await way.cut()
    await until(lambda: not messaging.is_connected)
    relay = start()
    for number in range(5):
        await add(f"row{number}")
        relay.wake()
    await way.mend()
    await until_equal(5, site.stored)
    for number in range(5):
        await until_equal(("done", 1, 0), lambda number=number: state_of(database, f"row{number}"))


async def test_an_outage_of_postgres_is_waited_out(
    site: NatsSite, database_url: str, database: Database, add: Add, messaging: Messaging
) -> None:
    """The relay goes on with what was added meanwhile."""
    way = await Relay.start(database_url)
    behind = await connect(way.url, application_name="test", acquire_timeout_s=0.2)
    relay = OutboxRelay(behind, "post", messaging, poll_s=0.05)
    running = asyncio.create_task(relay.run())
    await add("before")
    await until_equal(["before:1"], site.ids)
    await way.cut()
    await add("during")
    await way.mend()
    await until_equal(["before:1", "during:1"], site.ids)
    relay.stop()
    await running
    await behind.close()
    await way.stop()


async def test_any_number_of_relays_publish_everything_once(
    site: NatsSite, database: Database, outbox: Outbox, start: Callable[..., OutboxRelay]
) -> None:
    """Three relays and small batches: every row is claimed by one of them, once."""
    for _ in range(3):
        start(batch=4)
    async with database.transaction() as transaction:
        for number in range(45):
            await outbox.add(transaction, OutboxEntry("test.fast", b"", number % 4, key=f"row{number}"))
    await until_equal(45, site.stored)
    assert sorted(await site.ids()) == sorted(f"row{number}:1" for number in range(45))


async def test_a_relay_that_comes_too_late_changes_nothing(
    site: NatsSite, database: Database, add: Add, messaging: Messaging
) -> None:
    """Its lease has ended and another one has the row: what it says of its epoch is not taken for the other's."""
    await add("a", settle="report")
    slow = OutboxRelay(database, "post", messaging, lease_s=0.0)
    # The second to get there is the slow one: it would hand the row back.
    with armed("post.relay.before_publish=delay:0.3@1;post.relay.after_publish=error@2"):
        late = asyncio.create_task(slow.relay_due())
        await until_equal(1, lambda: epoch_of(database, "a"))
        assert await OutboxRelay(database, "post", messaging).relay_due() == 1
        assert await state_of(database, "a") == ("published", 2, 0)
        await late
    assert await state_of(database, "a") == ("published", 2, 0)
    assert await site.ids() == ["a:2", "a:1"]


async def epoch_of(database: Database, key: str) -> int:
    """How often the row was claimed."""
    _, epoch, _ = await state_of(database, key)
    return epoch


async def test_a_key_can_be_added_once(add: Add) -> None:
    """A second row about the same thing breaks a constraint that the owner knows by name."""
    await add("a")
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await add("a")
    assert raised.value.constraint_name == "outbox_key_once"


async def test_what_has_ended_is_pruned(
    database: Database, outbox: Outbox, add: Add, messaging: Messaging
) -> None:
    """Done and cancelled rows go, in parts; what is still to be done stays, however old."""
    for key in ("a", "b", "c"):
        await add(key)
    await OutboxRelay(database, "post", messaging).relay_due()
    await add("waiting")
    await add("cancelled")
    await outbox.cancel(database, "cancelled")
    assert await outbox.prune(datetime.now(UTC) - timedelta(hours=1)) == 0
    now = datetime.now(UTC) + timedelta(seconds=1)
    assert await outbox.prune(now, limit=3) == 3
    assert await outbox.prune(now) == 1
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
