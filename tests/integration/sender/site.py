"""A whole sender for tests: real Postgres and NATS, a real port, neighbours that a test commands."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import common_pb2, events_pb2, sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.sender.config import Settings
from services.sender.main import RunningSender, start
from shared import messaging, subjects
from shared.drain import drain
from shared.messaging import Messaging, MessagingSettings
from shared.pull_worker import Delivery, PullWorker
from shared.settings import Environment
from shared.streams import DISPATCHER_DUE
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from stack.tokens import AUDIENCE, ISSUER, TokenMint
from tests.integration.sender.neighbours import Neighbours, TestWedding

Metadata = tuple[tuple[str, str], ...]
SENDER = "wedsync.broadcast.v1.SenderService"


@dataclass(frozen=True, slots=True)
class Announcement:
    """A BroadcastDue as it came to a dispatcher."""

    subject: str
    broadcast_id: str
    epoch: int
    message_id: str
    at: float
    order: events_pb2.DueOrder | None


class Lanes:
    """What a dispatcher hears, under its own login, and its connection to say something."""

    def __init__(self, nats: Messaging) -> None:
        self.nats = nats
        self.heard: list[Announcement] = []
        self._workers = [
            PullWorker(nats, consumer, self._hear, bury=self._bury, batch=100)
            for consumer in DISPATCHER_DUE.values()
        ]
        self._running = [asyncio.create_task(worker.run()) for worker in self._workers]

    @classmethod
    async def open(cls, access: NatsAccess) -> "Lanes":
        """Hear from now on."""
        settings = MessagingSettings(
            access.url, "dispatcher", "dispatcher", access.passwords.get("dispatcher")
        )
        return cls(await messaging.connect(settings))

    def of(self, broadcast_id: str) -> list[Announcement]:
        """How often, and where, a broadcast was announced."""
        return [each for each in self.heard if each.broadcast_id == broadcast_id]

    async def close(self) -> None:
        """Hear no more."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        await asyncio.gather(*self._running)
        await self.nats.drain()

    async def _hear(self, delivery: Delivery) -> None:
        due = events_pb2.BroadcastDue.FromString(delivery.payload)
        self.heard.append(
            Announcement(
                delivery.subject,
                due.broadcast_id,
                due.epoch,
                delivery.message_id,
                time.perf_counter(),
                due.order if due.HasField("order") else None,
            )
        )

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        raise AssertionError(f"{delivery.message_id}: {reason}")


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers besides Postgres."""

    nats: NatsAccess
    redis_url: str


@dataclass(slots=True)
class Site:
    """A sender to call, and everything around it."""

    neighbours: Neighbours
    mint: TokenMint
    channel: grpc.aio.Channel
    database: SuiteDatabase
    admin: asyncpg.Connection
    lanes: "Lanes"
    environment: dict[str, str]

    @property
    def stub(self) -> SenderServiceStub:
        return SenderServiceStub(self.channel)

    def person(self, role: str) -> tuple[str, Metadata]:
        """A new person with a role: their id, and the metadata of their calls."""
        user_id = uuid4()
        self.neighbours.preferences.people[str(user_id)] = role
        return str(user_id), bearer(self.mint.mint_user_token(user_id))

    def as_person(self, user_id: str) -> Metadata:
        """The metadata of a person's calls."""
        return bearer(self.mint.mint_user_token(UUID(user_id)))

    def service(self, *scopes: str, name: str = "billing") -> Metadata:
        """The metadata of a service account's calls."""
        return bearer(self.mint.mint_service_token(name, scopes))

    def wedding(self, *team: str) -> str:
        """A new wedding with this team."""
        wedding_id = str(uuid4())
        self.neighbours.preferences.weddings[wedding_id] = TestWedding(set(team))
        return wedding_id

    async def send(
        self, metadata: Metadata, request: sender_pb2.SendBroadcastRequest | None = None
    ) -> sender_pb2.SendBroadcastResponse:
        """A send, of something that may be sent."""
        return await self.stub.SendBroadcast(request or a_send(), metadata=metadata)

    async def plan(self, broadcast_id: str) -> sender_pb2.DispatchOrder:
        """What a dispatcher asks."""
        request = sender_pb2.GetDispatchOrderRequest(
            broadcast_id=broadcast_id, purpose=sender_pb2.DISPATCH_PURPOSE_PLAN
        )
        answer = await self.stub.GetDispatchOrder(
            request, metadata=self.service("internal", name="dispatcher")
        )
        return answer.order

    async def report(self, broadcast_id: str, state: str, error: str = "", message_id: str = "") -> None:
        """What a dispatcher says."""
        event = events_pb2.BroadcastStateChanged(
            broadcast_id=broadcast_id,
            state=common_pb2.BroadcastState.Value(f"BROADCAST_STATE_{state.upper()}"),
            error=error,
        )
        event.time.GetCurrentTime()
        await self.lanes.nats.publish(
            subjects.broadcast_state(state), event.SerializeToString(), message_id or str(uuid4())
        )

    async def state(self, broadcast_id: str) -> str:
        """The state in the database."""
        query = "SELECT state::text FROM sender.broadcasts WHERE broadcast_id = $1"
        return str(await self.admin.fetchval(query, broadcast_id))

    async def outbox(self, broadcast_id: str) -> tuple[str, int]:
        """State and epoch of a broadcast's outbox row."""
        row = await self.admin.fetchrow("SELECT state, epoch FROM sender.outbox WHERE key = $1", broadcast_id)
        assert row is not None
        return str(row["state"]), int(row["epoch"])

    async def count(self, table: str) -> int:
        """How many rows a table of the sender has."""
        return int(await self.admin.fetchval(f"SELECT count(*) FROM sender.{table}"))  # noqa: S608 names of ours

    async def age_answer(self, request_id: str, by: timedelta) -> None:
        """Make the answer to a request_id that much older."""
        older = "UPDATE sender.requests SET at = at - $2::interval WHERE request_id = $1"
        assert await self.admin.execute(older, request_id, by) == "UPDATE 1"


@dataclass(slots=True)
class ServingSite(Site):
    """A site whose sender runs in the process of the test."""

    running: RunningSender

    async def restart(self, **changes: str) -> None:
        """End the sender and start another on the same data."""
        await end(self.running)
        self.running = await start(Settings.read(Environment(self.environment | changes)))
        await self.channel.close()
        self.channel = grpc.aio.insecure_channel(str(self.running.address))


def a_send(**fields: object) -> sender_pb2.SendBroadcastRequest:
    """A send that an admin may make, with some fields otherwise."""
    usual = {
        "type": "feature.released",
        "title": "New seating plans",
        "message": "Try them.",
        "targeting": {"everyone": True},
    }
    return sender_pb2.SendBroadcastRequest(**(usual | fields))  # type: ignore[arg-type]


def ahead(**units: float) -> Timestamp:
    """A time so far from now."""
    timestamp = Timestamp()
    timestamp.FromDatetime(datetime.now(UTC) + timedelta(**units))
    return timestamp


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def environment(
    folder: Path, mint: TokenMint, database: SuiteDatabase, servers: Servers, neighbours: str
) -> dict[str, str]:
    """Every variable that a sender is started with."""
    token = mint.write_service_token("sender", ["internal"], folder)
    return {
        **database.environment("sender"),
        "SENDER_LISTEN": "127.0.0.1:0",
        "SENDER_SERVICE_TOKEN_FILE": str(token),
        # What a test does not settle must not keep the next one waiting.
        "SENDER_RELAY_WINDOW": "100000",
        "SENDER_NATS_USER": "sender",
        "SENDER_NATS_PASSWORD": servers.nats.passwords.get("sender", ""),
        # Nobody delivers here, so what is sent waits for ever.
        "SENDER_BACKLOG_HIGH": "1000000",
        "SENDER_BACKLOG_NORMAL": "1000000",
        "SENDER_DRAIN_PAUSE_S": "0",
        "SENDER_DRAIN_FINISH_S": "1",
        "NATS_URL": servers.nats.url,
        "REDIS_URL": servers.redis_url,
        "AUTH_JWKS": str(mint.jwks),
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "PREFERENCES_ADDR": neighbours,
        "DISPATCHER_ADDR": neighbours,
        "INBOX_ADDR": neighbours,
    }


async def end(running: RunningSender) -> None:
    """Takes a sender down as a signal would."""
    await drain(running.steps)
    for task in running.background:
        task.cancel()
    await asyncio.gather(*running.background, return_exceptions=True)


@asynccontextmanager
async def serving_site(
    folder: Path, database: SuiteDatabase, servers: Servers, beside: Neighbours, **settings: str
) -> AsyncIterator[ServingSite]:
    """A sender that serves for the time of the block; `settings` are variables that are otherwise."""
    mint = TokenMint(folder)
    variables = environment(folder, mint, database, servers, beside.address) | settings
    running = await start(Settings.read(Environment(variables)))
    async with surroundings(database, servers.nats, str(running.address)) as (channel, admin, lanes):
        site = ServingSite(beside, mint, channel, database, admin, lanes, variables, running)
        try:
            yield site
        finally:
            await end(site.running)
            await site.channel.close()


@asynccontextmanager
async def surroundings(
    database: SuiteDatabase, access: NatsAccess, address: str
) -> AsyncIterator[tuple[grpc.aio.Channel, asyncpg.Connection, Lanes]]:
    """A channel to a sender, an administrator's connection, and a dispatcher's ears."""
    admin = await asyncpg.connect(database.admin_url)
    lanes = await Lanes.open(access)
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel, admin, lanes
    await lanes.close()
    await admin.close()
