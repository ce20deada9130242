"""Builds the sender and serves it: `python -m services.sender.main`."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import add_SenderServiceServicer_to_server

from services.sender import servicer
from services.sender.backlog import Backlog
from services.sender.cancelling import CancelFinisher, Cancelling, Stopping
from services.sender.config import Settings
from services.sender.consumer import StateConsumer, bury, encode_due
from services.sender.directory import AUDIENCE_SERVICE, Directory
from services.sender.listing import Listing
from services.sender.orders import Orders
from services.sender.progress import DISPATCHER_SERVICE, INBOX_SERVICE, Changes, Progress
from services.sender.quotas import Quotas
from services.sender.refusals import REDIS_TIMEOUT_S, Refusals
from services.sender.replays import Replays
from services.sender.retention import CleaningUp, own_cleaner
from services.sender.sending import Sending
from services.sender.store import SCHEMA, CallStore, DispatchStore
from shared import database, failpoints, logging, messaging
from shared.auth import TokenVerifier
from shared.channels import open_channel
from shared.clock import SystemClock
from shared.drain import DrainStep, run_until_signal
from shared.health import Dependency, HealthMonitor, check_serving
from shared.interceptors import EdgeInterceptor
from shared.optional_redis import OptionalRedis
from shared.outbox import OutboxRelay
from shared.pull_worker import PullWorker
from shared.server import GrpcServer, run_service, settle_memory
from shared.settings import Address, Environment
from shared.streams import SENDER_STATE

# Connections that are there before anybody needs them: to make one takes longer than the call that waits for it.
_READY = 4


class _Stoppable(Protocol):
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RunningSender:
    """A sender that serves: where it is called, what runs beside its calls, and the steps that end it."""

    address: Address
    background: tuple[asyncio.Task[None], ...]
    steps: tuple[DrainStep, ...]


async def start(settings: Settings) -> RunningSender:
    """Connect, build and serve."""
    clock, transport, token = SystemClock(), settings.server.transport, settings.token
    connections = settings.database_connections

    verifier = await TokenVerifier.open(settings.auth)
    called = await database.connect(
        settings.database_url, application_name=f"{SCHEMA}-api", min_size=_READY, max_size=connections
    )
    worked = await database.connect(
        settings.worker_database_url, application_name=SCHEMA, min_size=_READY, max_size=connections
    )
    nats, redis = (
        await messaging.connect(settings.messaging),
        OptionalRedis.open(settings.redis_url, REDIS_TIMEOUT_S),
    )
    preferences = open_channel(
        "preferences", settings.preferences, transport, token, retried=[AUDIENCE_SERVICE]
    )
    dispatcher = open_channel(
        "dispatcher", settings.dispatcher, transport, token, retried=[DISPATCHER_SERVICE]
    )
    inbox = open_channel("inbox", settings.inbox, transport, token, retried=[INBOX_SERVICE])

    store, work, changes = CallStore(called), DispatchStore(worked), Changes()
    directory, replays = Directory(AudienceServiceStub(preferences)), Replays(store)
    dispatches, inboxes = DispatcherServiceStub(dispatcher), InboxServiceStub(inbox)
    relay = OutboxRelay(
        worked,
        SCHEMA,
        nats,
        lease_s=settings.relay_lease_s,
        lease_ceiling_s=settings.relay_lease_ceiling_s,
        encode=encode_due,
    )
    backlog = Backlog(work, settings.backlog)
    refusals = Refusals(redis, await store.find_count_identity(), settings.limits, clock)
    quotas = Quotas(store, directory, settings.limits, refusals, clock)
    sending = Sending(store, replays, directory, backlog, quotas, clock, relay.wake)
    progress, stopping = (
        Progress(store, directory, dispatches, inboxes, changes, clock),
        Stopping(work, dispatches, inboxes, changes),
    )
    cancelling, finisher = (
        Cancelling(store, replays, directory, progress, stopping),
        CancelFinisher(work, stopping),
    )
    orders, states, cleaner = (
        Orders(work, directory, changes, clock),
        StateConsumer(work, changes, clock),
        own_cleaner(worked, settings.worker_database_url, inboxes, settings.retention, clock),
    )
    reports = PullWorker(nats, SENDER_STATE, states.handle, bury=bury, concurrency=4, batch=64, ack_sync=True)

    health = HealthMonitor(
        [
            Dependency("postgres", called.check),
            Dependency("nats", nats.check),
            Dependency(SENDER_STATE.name, reports.check, required=False),
            Dependency("redis", redis.check, required=False),
            # A repeated send, an order's text, and what was accepted go on without these.
            Dependency("preferences", lambda: check_serving(preferences), required=False),
            Dependency("dispatcher", lambda: check_serving(dispatcher), required=False),
            Dependency("inbox", lambda: check_serving(inbox), required=False),
        ]
    )
    edge = EdgeInterceptor(verifier, role_of=directory.role_of, limits=settings.server.limits)
    server = GrpcServer(settings.server, edge, health)
    server.add(
        add_SenderServiceServicer_to_server,
        servicer.SenderServicer(
            sending,
            quotas,
            cancelling,
            progress,
            orders,
            Listing(store, directory),
            CleaningUp(cleaner, inboxes, dispatches, DirectoryServiceStub(preferences)),
        ),
        servicer.RIGHTS,
        servicer.replays(sending, cancelling),
        servicer.rules(sending, quotas),
    )
    failpoints.check_declared()

    loops = (relay, finisher, refusals, cleaner)
    background = tuple(
        asyncio.create_task(loop.run(), name=type(loop).__name__) for loop in (reports, *loops)
    )
    steps = (
        server.leave(),
        DrainStep("stop_fetching", reports.stop),
        DrainStep("end_watches", changes.close),
        server.finish_calls(),
        DrainStep("stop_counting", backlog.close),
        DrainStep("finish_loops", lambda: _finish(loops, background)),
        DrainStep("drain_nats", nats.drain),
        DrainStep(
            "close_channels", lambda: asyncio.gather(preferences.close(), dispatcher.close(), inbox.close())
        ),
        DrainStep("close_redis", refusals.close),
        DrainStep("close_pools", lambda: asyncio.gather(called.close(), worked.close())),
    )
    return RunningSender(await server.start(), background, steps)


async def main() -> int:
    """Serve until a signal; the exit code."""
    settings = Settings.read(Environment(os.environ))
    logging.configure(SCHEMA, log_format=settings.log_format)
    sender = await start(settings)
    settle_memory()
    return await run_until_signal(sender.steps, sender.background)


async def _finish(loops: Iterable[_Stoppable], background: tuple[asyncio.Task[None], ...]) -> None:
    for loop in loops:
        loop.stop()
    await asyncio.wait(background)


if __name__ == "__main__":
    run_service(main)
