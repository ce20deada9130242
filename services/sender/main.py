"""Builds the sender and serves it: `python -m services.sender.main`."""

import asyncio
import os
from dataclasses import dataclass

from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import add_SenderServiceServicer_to_server

from services.sender.access import Access
from services.sender.analytics_store import AnalyticsStore, TallyStore
from services.sender.approval import Approval
from services.sender.audit_keeper import CheckpointKeeper, record_refusals
from services.sender.audit_store import AuditChain, AuditPages
from services.sender.auditing import Auditing
from services.sender.backlog import Backlog
from services.sender.cancelling import CancelFinisher, Cancelling, Stopping
from services.sender.config import Settings
from services.sender.consumer import StateConsumer, bury, encode_due
from services.sender.directory import Directory
from services.sender.erasing import Erasing
from services.sender.exporting import Exporting
from services.sender.listing import Listing
from services.sender.orders import Orders
from services.sender.outside import Outside
from services.sender.privacy_store import ErasureStore, ExportStore
from services.sender.progress import Changes, Progress
from services.sender.quotas import Quotas
from services.sender.refusals import Refusals
from services.sender.reporting import Reporting
from services.sender.retention import CleaningUp, own_cleaner
from services.sender.sending import Sending
from services.sender.servicer import RIGHTS, SenderServicer, UseCases
from services.sender.store import SCHEMA, CallStore, DispatchStore
from services.sender.tallying import Tallying
from shared import failpoints, logging
from shared.auth import TokenVerifier
from shared.clock import SystemClock
from shared.drain import DrainStep, Loop, end_loops, run_until_signal
from shared.health import Dependency, HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.outbox import OutboxRelay
from shared.pull_worker import PullWorker
from shared.replays import Replays
from shared.server import GrpcServer, run_service, settle_memory
from shared.settings import Address, Environment
from shared.streams import SENDER_STATE
from shared.wall_refusals import RefusalKeeper, WallRefusals


@dataclass(frozen=True, slots=True)
class RunningSender:
    """A sender that serves: where it is called, what runs beside its calls, and the steps that end it."""

    address: Address
    background: tuple[asyncio.Task[None], ...]
    steps: tuple[DrainStep, ...]


async def start(settings: Settings) -> RunningSender:
    """Connect, build and serve."""
    clock, changes = SystemClock(), Changes()
    verifier = await TokenVerifier.open(settings.auth)
    outside = await Outside.open(settings)
    store, work = CallStore(outside.called), DispatchStore(outside.worked)
    directory, replays = Directory(AudienceServiceStub(outside.preferences)), Replays(store)
    dispatches, inboxes = DispatcherServiceStub(outside.dispatcher), InboxServiceStub(outside.inbox)
    relay = OutboxRelay(
        outside.worked,
        SCHEMA,
        outside.nats,
        lease_s=settings.relay_lease_s,
        lease_ceiling_s=settings.relay_lease_ceiling_s,
        window=settings.relay_window,
        encode=encode_due,
    )
    backlog = Backlog(work, settings.backlog)
    refusals = Refusals(outside.redis, await store.find_count_identity(), settings.limits, clock)
    quotas = Quotas(store, directory, settings.limits, refusals, clock)
    progress = Progress(store, directory, dispatches, inboxes, changes, clock)
    stopping = Stopping(work, dispatches, inboxes, changes)
    chain = AuditChain(outside.worked)
    walls = RefusalKeeper(WallRefusals(clock), record_refusals(chain))
    cleaner = own_cleaner(outside.worked, settings.worker_database_url, inboxes, settings.retention, clock)
    listing = Listing(store, directory)
    use_cases = UseCases(
        Sending(store, replays, directory, backlog, quotas, clock, relay.wake, settings.approval_threshold),
        quotas,
        Approval(work, replays, directory, progress, backlog, changes, clock, relay.wake),
        Cancelling(store, replays, directory, progress, stopping),
        progress,
        Orders(work, directory, changes, clock),
        Access(store, directory),
        listing,
        Reporting(AnalyticsStore(outside.called), listing, clock),
        CleaningUp(cleaner, inboxes, dispatches, DirectoryServiceStub(outside.preferences), replays),
        Auditing(AuditPages(outside.called), chain, directory, clock),
        Erasing(ErasureStore(outside.worked), inboxes, refusals),
        Exporting(ExportStore(outside.called, outside.worked)),
    )
    reports = PullWorker(
        outside.nats,
        SENDER_STATE,
        StateConsumer(work, changes, clock).handle,
        bury=bury,
        concurrency=4,
        batch=64,
        ack_sync=True,
    )

    health = HealthMonitor(
        [*outside.dependencies(), Dependency(SENDER_STATE.name, reports.check, required=False)]
    )
    edge = EdgeInterceptor(
        verifier, role_of=directory.role_of, limits=settings.server.limits, refusals=walls.refusals
    )
    server = GrpcServer(settings.server, edge, health)
    server.add(
        add_SenderServiceServicer_to_server,
        SenderServicer(use_cases),
        RIGHTS,
        use_cases.replays(),
        use_cases.rules(),
    )
    failpoints.check_declared()

    checkpoints = CheckpointKeeper(chain, settings.audit_checkpoint_s)
    loops: tuple[Loop, ...] = (
        relay,
        CancelFinisher(work, stopping),
        refusals,
        cleaner,
        walls,
        checkpoints,
        Tallying(TallyStore(outside.worked), dispatches, inboxes, clock, settings.tally_s),
    )
    background = (
        asyncio.create_task(reports.run(), name=type(reports).__name__),
        *(asyncio.create_task(loop.run(), name=type(loop).__name__) for loop in loops),
    )
    steps = (
        server.leave(),
        DrainStep("stop_fetching", reports.stop),
        DrainStep("end_watches", changes.close),
        server.finish_calls(),
        DrainStep("stop_counting", backlog.close),
        DrainStep("finish_loops", lambda: end_loops(loops, background)),
        DrainStep("close_redis", refusals.close),
        *outside.closing(),
    )
    return RunningSender(await server.start(), background, steps)


async def main() -> int:
    """Serve until a signal; the exit code."""
    settings = Settings.read(Environment(os.environ))
    logging.configure(SCHEMA, log_format=settings.log_format)
    sender = await start(settings)
    settle_memory()
    return await run_until_signal(sender.steps, sender.background)


if __name__ == "__main__":
    run_service(main)
