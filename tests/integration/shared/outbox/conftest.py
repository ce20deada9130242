"""An outbox in a fresh schema, NATS to publish to and a way there that can be cut."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from shared.database import Database, connect
from shared.messaging import Messaging
from shared.outbox import Outbox, OutboxEntry, OutboxRelay, Settle
from tests.integration.shared.nats_site import NatsSite
from tests.integration.shared.outages import Relay
from tests.integration.shared.outbox.rows import Add
from tests.integration.shared.schemas import make_schema


@pytest.fixture
async def messaging(fresh: NatsSite, relay: Relay) -> AsyncIterator[Messaging]:
    """The connection to publish with, through the relay."""
    messaging = await fresh.connect(relay.url)
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
