"""A dispatcher among stand-ins, on a real Postgres and a real NATS of its own, as tests send through it."""

import asyncio
import string
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import grpc
from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2, events_pb2, sender_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import add_AudienceServiceServicer_to_server
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import add_InboxServiceServicer_to_server
from wedsync.broadcast.v1.sender_pb2_grpc import add_SenderServiceServicer_to_server

from services.dispatcher.config import Settings
from services.dispatcher.domain import Priority
from services.dispatcher.main import start
from services.dispatcher.messages import PRIORITIES
from services.dispatcher.snapshot import Slice
from shared import subjects
from shared.audience import CHUNK_MEMBERS, Audience
from shared.auth import AuthSettings, TokenVerifier
from shared.drain import drain
from shared.health import HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.messaging import Messaging, MessagingSettings, connect
from shared.pull_worker import Delivery, PullWorker
from shared.rights import Right, scopes
from shared.server import GrpcServer, ServerSettings
from shared.settings import Address, Environment
from shared.streams import INBOX_DELIVERY, SENDER_STATE
from shared.tls import Transport
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from stack.tokens import AUDIENCE, ISSUER, TokenMint
from tests.integration.dispatcher.stand_ins import Decision, DirectoryBook, InboxBook, SendersBook

_INTERNAL = scopes("internal")


@dataclass(slots=True)
class Site:
    """Everything around dispatchers: neighbours, servers, and what they have told the sender."""

    suite: SuiteDatabase
    nats: NatsAccess
    mint: TokenMint
    folder: Path
    sender: SendersBook
    directory: DirectoryBook
    inbox: InboxBook
    publisher: Messaging
    neighbours: Address
    states: list[events_pb2.BroadcastStateChanged] = field(default_factory=list)

    def add(
        self,
        snapshot: Sequence[Slice],
        *,
        priority: Priority = Priority.HIGH,
        expires_at: datetime | None = None,
        **decision: Sequence[Slice],
    ) -> UUID:
        """Write a broadcast with this audience into the neighbours' books."""
        broadcast_id = uuid4()
        letters = str.maketrans(string.hexdigits[:16], string.ascii_lowercase[:16])
        name = f"test.{broadcast_id.hex.translate(letters)}"
        targeted = Audience.union_of(part.members for part in snapshot)
        self.directory.decisions[name] = Decision(snapshot, len(targeted), **decision)
        order = sender_pb2.DispatchOrder(
            broadcast_id=str(broadcast_id),
            type=name,
            category=common_pb2.CATEGORY_SYSTEM,
            priority=PRIORITIES[priority],
            targeting=common_pb2.Targeting(everyone=True),
        )
        if expires_at is not None:
            order.expires_at.FromDatetime(expires_at)
        self.sender.orders[str(broadcast_id)] = order
        return broadcast_id

    def decision(self, broadcast_id: UUID) -> Decision:
        """What the directory says about it."""
        return self.directory.decisions[self.sender.orders[str(broadcast_id)].type]

    def hint(self, broadcast_id: UUID) -> events_pb2.DueOrder:
        """Its order as the sender's announcements have it."""
        order = self.sender.orders[str(broadcast_id)]
        return events_pb2.DueOrder(
            type=order.type, category=order.category, priority=order.priority, targeting=order.targeting
        )

    async def announce(
        self,
        broadcast_id: UUID,
        priority: Priority = Priority.HIGH,
        epoch: int = 1,
        hint: events_pb2.DueOrder | None = None,
    ) -> None:
        """Say that it is due, as the sender's relay does."""
        due = events_pb2.BroadcastDue(broadcast_id=str(broadcast_id), epoch=epoch, order=hint)
        await self.publisher.publish(
            subjects.broadcast_due(priority.slug), due.SerializeToString(), f"{broadcast_id}:{epoch}"
        )

    async def send(self, snapshot: Sequence[Slice], priority: Priority = Priority.HIGH) -> UUID:
        """Add and announce."""
        broadcast_id = self.add(snapshot, priority=priority)
        await self.announce(broadcast_id, priority)
        return broadcast_id

    def told(self, broadcast_id: UUID) -> list[tuple[str, int]]:
        """What the sender was told of it: state and number of people."""
        return [
            (common_pb2.BroadcastState.Name(each.state).removeprefix("BROADCAST_STATE_"), each.targeted)
            for each in self.states
            if each.broadcast_id == str(broadcast_id)
        ]

    async def hear_state(self, delivery: Delivery) -> None:
        """What the sender's consumer does."""
        event = events_pb2.BroadcastStateChanged.FromString(delivery.payload)
        assert delivery.subject == subjects.broadcast_state(
            common_pb2.BroadcastState.Name(event.state).removeprefix("BROADCAST_STATE_").lower()
        )
        self.states.append(event)

    def environment(self, **changes: str) -> dict[str, str]:
        """What a dispatcher of this site is started with."""
        token = self.mint.write_service_token("dispatcher", ["internal"], self.folder)
        return {
            **self.suite.environment("dispatcher"),
            "NATS_URL": self.nats.url,
            "DISPATCHER_NATS_USER": "dispatcher",
            "DISPATCHER_NATS_PASSWORD": self.nats.passwords["dispatcher"],
            "DISPATCHER_LISTEN": "127.0.0.1:0",
            "DISPATCHER_SERVICE_TOKEN_FILE": str(token),
            "DISPATCHER_DRAIN_PAUSE_S": "0",
            # Two full chunks, so that it does not take more people to see that the others wait.
            "DISPATCHER_MEMBERS_IN_FLIGHT": str(2 * CHUNK_MEMBERS),
            "AUTH_JWKS": str(self.mint.jwks),
            "AUTH_ISSUER": ISSUER,
            "AUTH_AUDIENCE": AUDIENCE,
            **{f"{name}_ADDR": str(self.neighbours) for name in ("SENDER", "PREFERENCES", "INBOX")},
            **changes,
        }

    @asynccontextmanager
    async def dispatching(self, **changes: str) -> AsyncIterator["Caller"]:
        """A dispatcher in this process for the time of the block; answers the way to call it."""
        running = await start(Settings.read(Environment(self.environment(**changes))))
        try:
            async with grpc.aio.insecure_channel(str(running.address)) as channel:
                yield Caller(self.mint, channel)
        finally:
            assert await drain(running.steps)


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls a dispatcher as one of the suite's own services."""

    mint: TokenMint
    channel: grpc.aio.Channel

    def bearer(self, *scope: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a service with these scopes."""
        return (("authorization", f"Bearer {self.mint.mint_service_token('sender', scope)}"),)

    async def get(self, broadcast_id: UUID) -> dispatcher_pb2.Dispatch:
        """Its plan and ledger."""
        request = dispatcher_pb2.GetDispatchRequest(broadcast_id=str(broadcast_id))
        stub = DispatcherServiceStub(self.channel)
        answer: dispatcher_pb2.GetDispatchResponse = await stub.GetDispatch(
            request, metadata=self.bearer("internal")
        )
        return answer.dispatch

    async def stop(self, broadcast_id: UUID) -> dispatcher_pb2.StopDispatchResponse:
        """Cancel it."""
        request = dispatcher_pb2.StopDispatchRequest(broadcast_id=str(broadcast_id))
        stub = DispatcherServiceStub(self.channel)
        answer: dispatcher_pb2.StopDispatchResponse = await stub.StopDispatch(
            request, metadata=self.bearer("internal")
        )
        return answer

    async def ledger(self, broadcast_id: UUID) -> dict[tuple[str, ...], int]:
        """Its ledger by channel, state and, when there is one, reason."""
        lines = {}
        for line in (await self.get(broadcast_id)).ledger:
            key = [
                common_pb2.Channel.Name(line.channel).removeprefix("CHANNEL_").lower(),
                common_pb2.DeliveryState.Name(line.state).removeprefix("DELIVERY_STATE_").lower(),
            ]
            if line.reason:
                reason = common_pb2.SuppressionReason.Name(line.reason)
                key.append(reason.removeprefix("SUPPRESSION_REASON_").lower())
            lines[tuple(key)] = line.count
        return lines


@asynccontextmanager
async def site(suite: SuiteDatabase, nats: NatsAccess, folder: Path) -> AsyncIterator[Site]:
    """The surroundings, with stand-ins that serve and listen."""
    mint = TokenMint(folder)
    at_inbox = await _connect(nats, "inbox")
    at_sender = await _connect(nats, "sender")
    sender, directory, inbox = SendersBook(), DirectoryBook(), InboxBook(at_inbox)
    server = await _serve(mint, sender, directory, inbox)
    address = await server.start()
    surroundings = Site(suite, nats, mint, folder, sender, directory, inbox, at_sender, address)
    await at_inbox.subscribe(subjects.LIVE_DISPATCH, inbox.hear_begun)
    workers = [
        *(
            PullWorker(at_inbox, each, inbox.merge, bury=_bury, concurrency=64)
            for each in INBOX_DELIVERY.values()
        ),
        PullWorker(at_sender, SENDER_STATE, surroundings.hear_state, bury=_bury, concurrency=64),
    ]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    yield surroundings
    await asyncio.gather(*(worker.stop() for worker in workers))
    await asyncio.wait(running)
    await at_inbox.drain()
    await at_sender.drain()
    await server.leave().run()
    await server.finish_calls().run()


async def _connect(nats: NatsAccess, user: str) -> Messaging:
    return await connect(MessagingSettings(nats.url, f"test-{user}", user, nats.passwords[user]))


async def _serve(
    mint: TokenMint, sender: SendersBook, directory: DirectoryBook, inbox: InboxBook
) -> GrpcServer:
    verifier = await TokenVerifier.open(AuthSettings(str(mint.jwks), ISSUER, AUDIENCE))
    settings = ServerSettings("TEST", Address("127.0.0.1", 0), None, Transport(), pause_s=0, finish_s=1.0)
    server = GrpcServer(settings, EdgeInterceptor(verifier), HealthMonitor(()))
    server.add(add_SenderServiceServicer_to_server, sender, _only("GetDispatchOrder"))
    audience_methods = _only("ResolveAudience", "ReevaluateAudience", "ListChanges", "LookupRecipients")
    server.add(add_AudienceServiceServicer_to_server, directory, audience_methods)
    server.add(add_InboxServiceServicer_to_server, inbox, _only("ListReaders"))
    return server


def _only(*methods: str) -> Mapping[str, Right]:
    return dict.fromkeys(methods, _INTERNAL)


async def _bury(delivery: Delivery, reason: str) -> None:
    raise AssertionError(f"{delivery.message_id} could not be handled: {reason}")
