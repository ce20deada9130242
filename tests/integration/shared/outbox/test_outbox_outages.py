"""The outbox when something breaks: a relay that dies or comes late, a NATS or a Postgres that is away."""

import asyncio
from collections.abc import Callable

import pytest

from shared.database import Database, connect
from shared.failpoints import FailpointError, armed
from shared.messaging import Messaging
from shared.outbox import Outbox, OutboxEntry, OutboxRelay
from tests.integration.shared.nats_site import NatsSite
from tests.integration.shared.outages import Relay
from tests.integration.shared.outbox.rows import Add, epoch_of, has_failed, state_of
from tests.integration.shared.polling import until, until_equal


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


async def test_an_outage_of_nats_leaves_rows_as_they_are(
    site: NatsSite,
    database: Database,
    add: Add,
    messaging: Messaging,
    relay: Relay,
    start: Callable[..., OutboxRelay],
) -> None:
    """While NATS is away nothing is claimed; when it is back everything goes out at once."""
    await relay.cut()
    await until(lambda: not messaging.is_connected)
    publisher = start()
    for number in range(5):
        await add(f"row{number}")
        publisher.wake()
    await relay.mend()
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
    with armed("post.relay.before_publish=delay:1.0@1;post.relay.after_publish=error@2"):
        late = asyncio.create_task(slow.relay_due())
        await until_equal(1, lambda: epoch_of(database, "a"))
        assert await OutboxRelay(database, "post", messaging).relay_due() == 1
        assert await state_of(database, "a") == ("published", 2, 0)
        await late
    assert await state_of(database, "a") == ("published", 2, 0)
    assert await site.ids() == ["a:2", "a:1"]
