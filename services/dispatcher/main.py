"""Builds a dispatcher and serves it: `python -m services.dispatcher.main`."""

import asyncio
import os
from dataclasses import dataclass

from wedsync.broadcast.v1.dispatcher_pb2_grpc import add_DispatcherServiceServicer_to_server

from services.dispatcher import servicer
from services.dispatcher.call_store import CallStore
from services.dispatcher.config import Settings
from services.dispatcher.consumer import due_workers, report_worker
from services.dispatcher.courier import Courier
from services.dispatcher.courtesy import Courtesy
from services.dispatcher.cutting import Cutting
from services.dispatcher.domain import Priority
from services.dispatcher.exporting import Exporting
from services.dispatcher.following import Following
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.lanes import Lane
from services.dispatcher.neighbours import (
    AUDIENCE_SERVICE,
    ORDER_METHOD,
    READERS_METHOD,
    Audiences,
    Orders,
    Readers,
)
from services.dispatcher.planner import Planner
from services.dispatcher.reconciler import Reconciler
from services.dispatcher.releases import Releases
from services.dispatcher.retention import own_cleaner
from services.dispatcher.review import Reviewer
from services.dispatcher.store import SCHEMA, DispatchStore
from shared import database, failpoints, logging, messaging
from shared.auth import TokenVerifier
from shared.channels import open_channel
from shared.clock import SystemClock
from shared.drain import DrainStep, Loop, end_loops, run_until_signal
from shared.health import Dependency, HealthMonitor, check_serving
from shared.interceptors import EdgeInterceptor
from shared.outbox import OutboxRelay
from shared.server import GrpcServer, run_service, settle_memory
from shared.settings import Address, Environment


@dataclass(frozen=True, slots=True)
class RunningDispatcher:
    """A dispatcher that serves: where it is called, what runs beside its calls, and the steps that end it."""

    address: Address
    background: tuple[asyncio.Task[None], ...]
    steps: tuple[DrainStep, ...]


async def start(settings: Settings) -> RunningDispatcher:
    """Connect, build and serve."""
    clock, transport, token, terms = SystemClock(), settings.server.transport, settings.token, settings.plan

    verifier = await TokenVerifier.open(settings.auth)
    called = await database.connect(settings.database_url, application_name=f"{SCHEMA}-api")
    worked = await database.connect(
        settings.worker_database_url, application_name=SCHEMA, max_size=settings.worker_connections
    )
    nats = await messaging.connect(settings.messaging)
    sender = open_channel("sender", settings.sender, transport, token, retried=[ORDER_METHOD])
    preferences = open_channel(
        "preferences", settings.preferences, transport, token, retried=[AUDIENCE_SERVICE]
    )
    inbox = open_channel("inbox", settings.inbox, transport, token, retried=[READERS_METHOD])

    relay = OutboxRelay(
        worked, SCHEMA, nats, lease_s=settings.lease.first_s, lease_ceiling_s=settings.lease.ceiling_s
    )
    store = DispatchStore(worked, settings.lease, relay.wake)
    audiences, courier = Audiences(preferences), Courier(nats)
    planner = Planner(store, Orders(sender), audiences, courier, terms, clock)
    reviewer = Reviewer(store, audiences, Readers(inbox), terms.part, clock)
    courtesy = await Courtesy.listening(nats, clock, settings.step_aside_s)
    lanes = _lanes(settings, store, reviewer, courier, clock, audiences, courtesy)
    holds = HoldStore(worked)
    timed = (
        Reconciler(store, courier, settings.lanes),
        Cutting(holds, store, settings.lanes, terms.part),
        Releases(holds, lanes.values(), terms.release_per_second),
        Following(holds, audiences, reviewer, settings.lanes, clock),
    )
    consumers = due_workers(nats, lanes, planner, store, clock, settings.planners_per_lane)
    cleaner = own_cleaner(worked, settings.worker_database_url, settings.retention, clock)
    if settings.applies_reports:
        consumers |= report_worker(nats, lanes, store)

    health = HealthMonitor(
        [
            Dependency("postgres", worked.check),
            Dependency("nats", nats.check),
            # Calls are answered without these, and what is due waits for them.
            *(Dependency(name, worker.check, required=False) for name, worker in consumers.items()),
            Dependency("sender", lambda: check_serving(sender), required=False),
            Dependency("preferences", lambda: check_serving(preferences), required=False),
            Dependency("inbox", lambda: check_serving(inbox), required=False),
        ]
    )
    edge = EdgeInterceptor(verifier, role_of=audiences.role_of, limits=settings.server.limits)
    server = GrpcServer(settings.server, edge, health)
    server.add(
        add_DispatcherServiceServicer_to_server,
        servicer.DispatcherServicer(CallStore(called), Exporting(worked), cleaner),
        servicer.RIGHTS,
    )
    failpoints.check_declared()

    loops: tuple[Loop, ...] = (*lanes.values(), *timed, relay, cleaner)
    background = (
        *(asyncio.create_task(each.run(), name=type(each).__name__) for each in loops),
        *(asyncio.create_task(each.run(), name=type(each).__name__) for each in consumers.values()),
    )
    steps = (
        server.leave(),
        DrainStep("stop_fetching", lambda: asyncio.gather(*(each.stop() for each in consumers.values()))),
        DrainStep("finish_lanes", lambda: end_loops(loops, background)),
        server.finish_calls(),
        DrainStep("drain_nats", nats.drain),
        DrainStep(
            "close_channels", lambda: asyncio.gather(sender.close(), preferences.close(), inbox.close())
        ),
        DrainStep("close_pools", lambda: asyncio.gather(called.close(), worked.close())),
    )
    return RunningDispatcher(await server.start(), background, steps)


def _lanes(
    settings: Settings,
    store: DispatchStore,
    reviewer: Reviewer,
    courier: Courier,
    clock: SystemClock,
    audiences: Audiences,
    courtesy: Courtesy,
) -> dict[Priority, Lane]:
    return {
        priority: Lane(
            priority,
            store,
            reviewer,
            courier,
            settings.plan.limits[priority],
            clock,
            heads=audiences,
            hears_reports=settings.applies_reports,
            courtesy=courtesy if priority.is_bulk else None,
        )
        for priority in settings.lanes
    }


async def main() -> int:
    """Serve until a signal; the exit code."""
    settings = Settings.read(Environment(os.environ))
    logging.configure(SCHEMA, log_format=settings.log_format)
    running = await start(settings)
    settle_memory()
    return await run_until_signal(running.steps, running.background)


if __name__ == "__main__":
    run_service(main)
