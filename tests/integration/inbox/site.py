"""A whole inbox for tests: real Postgres, NATS and Valkey, a real port, and a dispatcher that a test commands."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import grpc
from google.rpc import status_pb2
from wedsync.broadcast.v1 import common_pb2, events_pb2, inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.inbox.config import Settings
from services.inbox.main import Inbox, start
from shared import messaging, subjects
from shared.audience import Audience
from shared.drain import drain
from shared.errors import ServiceError, from_rich_status
from shared.messaging import Messaging, MessagingSettings
from shared.pull_worker import Delivery, PullWorker
from shared.settings import Environment
from shared.streams import DISPATCHER_REPORT
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from stack.tokens import AUDIENCE, ISSUER, TokenMint
from tests.integration.inbox.neighbours import Neighbours
from tests.integration.shared.polling import until

Metadata = tuple[tuple[str, str], ...]
ITEM = events_pb2.ARRIVAL_KIND_ITEM
SILENT_ITEM = events_pb2.ARRIVAL_KIND_SILENT_ITEM
ALERT = events_pb2.ARRIVAL_KIND_ALERT
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an inbox, and the metadata of their calls."""

    user_id: UUID
    number: int
    token: str

    @property
    def metadata(self) -> Metadata:
        return bearer(self.token)


class Dispatcher:
    """Sends chunks and hears what became of them, under its own login."""

    def __init__(self, nats: Messaging) -> None:
        self.nats = nats
        self.reports: list[events_pb2.DeliveryReport] = []
        self._worker = PullWorker(nats, DISPATCHER_REPORT, self._hear, bury=self._bury, batch=100)
        self._running = asyncio.create_task(self._worker.run())

    @classmethod
    async def open(cls, access: NatsAccess) -> "Dispatcher":
        login = MessagingSettings(access.url, "dispatcher", "dispatcher", access.passwords.get("dispatcher"))
        return cls(await messaging.connect(login))

    async def send(self, *deliveries: events_pb2.InboxDelivery, lane: str = "normal") -> None:
        """Put chunks on their way, in one message."""
        payload = events_pb2.InboxDeliveries(deliveries=deliveries).SerializeToString()
        await self.nats.publish(subjects.delivery_inbox(lane), payload, f"test:{uuid4()}")

    def of(self, broadcast_id: str, chunk: int = 0, epoch: int = 1) -> list[events_pb2.DeliveryReport]:
        """What was reported of one sending of a chunk."""
        wanted = (broadcast_id, chunk, epoch)
        return [each for each in self.reports if (each.broadcast_id, each.chunk, each.epoch) == wanted]

    async def report(self, broadcast_id: str, chunk: int = 0, epoch: int = 1) -> events_pb2.DeliveryReport:
        """What was reported, once it is."""
        await until(lambda: bool(self.of(broadcast_id, chunk, epoch)))
        return self.of(broadcast_id, chunk, epoch)[0]

    async def close(self) -> None:
        await self._worker.stop()
        await self._running
        await self.nats.drain()

    async def _hear(self, delivery: Delivery) -> None:
        self.reports += events_pb2.DeliveryReports.FromString(delivery.payload).reports

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        raise AssertionError(f"{delivery.message_id}: {reason}")


@dataclass(slots=True)
class Site:
    """An inbox to call, and everything around it."""

    neighbours: Neighbours
    mint: TokenMint
    channel: grpc.aio.Channel
    database: SuiteDatabase
    admin: asyncpg.Connection
    dispatcher: Dispatcher
    environment: dict[str, str]
    running: Inbox
    chunks: dict[str, int] = field(default_factory=dict)

    @property
    def stub(self) -> InboxServiceStub:
        return InboxServiceStub(self.channel)

    @property
    def internal(self) -> Metadata:
        """The metadata of another service of the suite."""
        return self.service("internal")

    def service(self, *scopes: str, name: str = "sender") -> Metadata:
        return bearer(self.mint.mint_service_token(name, scopes))

    def person(self, number: int | None = None, lifetime_s: int = 3600) -> Person:
        """Somebody new whom the directory knows."""
        user_id, number = uuid4(), next(_numbers) if number is None else number
        self.neighbours.directory.numbers[str(user_id)] = number
        return Person(user_id, number, self.mint.mint_user_token(user_id, lifetime_s))

    def people(self, count: int) -> list[Person]:
        return [self.person() for _ in range(count)]

    def broadcast(self, **fields: object) -> str:
        return self.neighbours.broadcast(**fields)

    def wedding(self, *team: Person) -> str:
        """A wedding with this team, which the directory knows and the inbox was not told of."""
        wedding_id = str(uuid4())
        self.neighbours.directory.teams[wedding_id] = (1, Audience.of(each.number for each in team))
        return wedding_id

    async def set_team(self, wedding_id: str, *team: Person) -> None:
        """What the directory does when a team changes."""
        version = self.neighbours.directory.teams[wedding_id][0] + 1
        members = Audience.of(each.number for each in team)
        self.neighbours.directory.teams[wedding_id] = (version, members)
        request = inbox_pb2.ApplyTeamChangeRequest(
            wedding_id=wedding_id, team_version=version, members=members.to_bytes()
        )
        answer = await self.stub.ApplyTeamChange(request, metadata=self.internal)
        assert answer.team_version == version

    def about(self, wedding_id: str, **fields: object) -> str:
        """A broadcast about a wedding."""
        return self.broadcast(
            type="timeline.changed",
            category=common_pb2.CATEGORY_COLLABORATION,
            priority=common_pb2.PRIORITY_HIGH,
            wedding=common_pb2.Wedding(wedding_id=wedding_id, couple_name="Amara & Jonas"),
            targeting=common_pb2.Targeting(wedding_ids=[wedding_id]),
            **fields,
        )

    async def deliver(
        self,
        broadcast_id: str,
        to: Iterable[Person | int],
        kind: events_pb2.ArrivalKind.ValueType = ITEM,
        chunk: int | None = None,
        epoch: int = 1,
        lane: str = "normal",
    ) -> events_pb2.DeliveryReport:
        """Send a chunk, its broadcast's next unless one is named; what was reported of it."""
        if chunk is None:
            chunk = self.chunks.get(broadcast_id, 0)
            self.chunks[broadcast_id] = chunk + 1
        await self.dispatcher.send(a_chunk(broadcast_id, to, kind, chunk, epoch), lane=lane)
        return await self.dispatcher.report(broadcast_id, chunk, epoch)

    async def send(self, to: Iterable[Person | int], **fields: object) -> str:
        """A new broadcast in these inboxes; its id."""
        broadcast_id = self.broadcast(**fields)
        await self.deliver(broadcast_id, to)
        return broadcast_id

    async def listed(self, person: Person, **filters: object) -> inbox_pb2.ListInboxItemsResponse:
        request = inbox_pb2.ListInboxItemsRequest(**filters)  # type: ignore[arg-type]
        return await self.stub.ListInboxItems(request, metadata=person.metadata)

    async def ids(self, person: Person, **filters: object) -> list[str]:
        """The ids in an inbox, the newest first."""
        return [item.broadcast_id for item in (await self.listed(person, **filters)).items]

    async def unread(self, person: Person) -> int:
        answer = await self.stub.GetUnreadCount(inbox_pb2.GetUnreadCountRequest(), metadata=person.metadata)
        return answer.unread_count

    async def record(
        self, person: Person, action: str, *ids: str, url: str = "", request_id: str = ""
    ) -> inbox_pb2.RecordReceiptsResponse:
        request = inbox_pb2.RecordReceiptsRequest(
            request_id=request_id,
            broadcast_ids=ids,
            action=common_pb2.ReceiptAction.Value(f"RECEIPT_ACTION_{action}"),
            action_url=url,
        )
        return await self.stub.RecordReceipts(request, metadata=person.metadata)

    async def snooze(
        self, person: Person, broadcast_id: str, seconds: float | None, request_id: str = ""
    ) -> inbox_pb2.SnoozeItemResponse:
        """Out of sight for so long; with None, back again."""
        request = inbox_pb2.SnoozeItemRequest(broadcast_id=broadcast_id, request_id=request_id)
        if seconds is not None:
            request.snooze_until.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
        return await self.stub.SnoozeItem(request, metadata=person.metadata)

    async def pin(
        self, person: Person, broadcast_id: str, *, unpin: bool = False, request_id: str = ""
    ) -> inbox_pb2.PinItemResponse:
        request = inbox_pb2.PinItemRequest(broadcast_id=broadcast_id, unpin=unpin, request_id=request_id)
        return await self.stub.PinItem(request, metadata=person.metadata)

    async def mark_all_read(self, person: Person, request_id: str = "") -> inbox_pb2.MarkAllReadResponse:
        request = inbox_pb2.MarkAllReadRequest(request_id=request_id)
        return await self.stub.MarkAllRead(request, metadata=person.metadata)

    async def retract(self, broadcast_id: str, *, hide: bool) -> inbox_pb2.RetractBroadcastResponse:
        request = inbox_pb2.RetractBroadcastRequest(broadcast_id=broadcast_id, hide=hide)
        return await self.stub.RetractBroadcast(request, metadata=self.internal)

    async def engagement(self, broadcast_id: str) -> common_pb2.Engagement:
        request = inbox_pb2.GetEngagementRequest(broadcast_ids=[broadcast_id])
        return (await self.stub.GetEngagement(request, metadata=self.internal)).engagements[0]

    async def restart(self, **changes: str) -> None:
        """End the inbox and start another on the same data."""
        await end(self.running)
        self.running = await start(Settings.read(Environment(self.environment | changes)))
        await self.channel.close()
        self.channel = grpc.aio.insecure_channel(str(self.running.address))


def a_chunk(
    broadcast_id: str,
    to: Iterable[Person | int],
    kind: events_pb2.ArrivalKind.ValueType = ITEM,
    chunk: int = 0,
    epoch: int = 1,
) -> events_pb2.InboxDelivery:
    """A chunk as a dispatcher sends it."""
    members = Audience.of(each if isinstance(each, int) else each.number for each in to)
    return events_pb2.InboxDelivery(
        broadcast_id=broadcast_id, chunk=chunk, epoch=epoch, kind=kind, members=members.to_bytes()
    )


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def error_of(error: grpc.aio.AioRpcError) -> ServiceError:
    """The error of the contract that a call ended with."""

    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            told = from_rich_status(status_pb2.Status.FromString(value))
            assert told is not None
            return told
    raise AssertionError(f"{error.code()} has no details")


def environment(
    folder: Path, mint: TokenMint, database: SuiteDatabase, access: NatsAccess, redis: str, neighbours: str
) -> dict[str, str]:
    """Every variable that an inbox is started with."""
    token = mint.write_service_token("inbox", ["internal"], folder)
    return {
        **database.environment("inbox"),
        "INBOX_LISTEN": "127.0.0.1:0",
        "INBOX_SERVICE_TOKEN_FILE": str(token),
        "INBOX_NATS_USER": "inbox",
        "INBOX_NATS_PASSWORD": access.passwords.get("inbox", ""),
        "INBOX_DRAIN_PAUSE_S": "0",
        "INBOX_DRAIN_FINISH_S": "1",
        "NATS_URL": access.url,
        "REDIS_URL": redis,
        "AUTH_JWKS": str(mint.jwks),
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "SENDER_ADDR": neighbours,
        "PREFERENCES_ADDR": neighbours,
    }


async def end(running: Inbox) -> None:
    """Takes an inbox down as a signal would."""
    await drain(running.steps)
    for task in running.background:
        task.cancel()
    await asyncio.gather(*running.background, return_exceptions=True)


@asynccontextmanager
async def serving_site(
    folder: Path, database: SuiteDatabase, access: NatsAccess, redis: str, beside: Neighbours
) -> AsyncIterator[Site]:
    """An inbox that serves for the time of the block."""
    mint = TokenMint(folder)
    variables = environment(folder, mint, database, access, redis, beside.address)
    running = await start(Settings.read(Environment(variables)))
    admin = await asyncpg.connect(database.admin_url)
    await admin.execute("SET search_path TO inbox")
    dispatcher = await Dispatcher.open(access)
    channel = grpc.aio.insecure_channel(str(running.address))
    site = Site(beside, mint, channel, database, admin, dispatcher, variables, running)
    try:
        yield site
    finally:
        await site.channel.close()
        await end(site.running)
        await dispatcher.close()
        await admin.close()
