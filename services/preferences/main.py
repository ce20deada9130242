"""Builds the preferences service and serves it: `python -m services.preferences.main`."""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wedsync.broadcast.v1.audience_pb2_grpc import add_AudienceServiceServicer_to_server
from wedsync.broadcast.v1.directory_pb2_grpc import add_DirectoryServiceServicer_to_server
from wedsync.broadcast.v1.preferences_pb2_grpc import add_PreferencesServiceServicer_to_server

from services.preferences import audience_servicer, directory_servicer, servicer
from services.preferences.audiences import Audiences
from services.preferences.auditing import AuditStore, AuditTeller
from services.preferences.config import Settings
from services.preferences.consumer import team_relay
from services.preferences.directory_reads import DirectoryReads
from services.preferences.directory_writes import DirectoryWrites
from services.preferences.erasing import Erasing, ErasureFollower, Removals
from services.preferences.exporting import Exporting, Kept
from services.preferences.keeper import IndexKeeper
from services.preferences.neighbours import Neighbours
from services.preferences.own_preferences import OwnPreferences
from services.preferences.privacy_store import ErasureStore, RecordStore
from services.preferences.retention import own_cleaner
from services.preferences.segment_calls import Segments
from services.preferences.segment_counts import SegmentCounter
from services.preferences.segment_store import SegmentStore
from services.preferences.store import SCHEMA, DirectoryStore, IndexStore, PersonalStore, served_log
from services.preferences.wall import InboxWall, WallFollower
from shared import database, failpoints, logging, messaging
from shared.auth import TokenVerifier
from shared.clock import SystemClock
from shared.database import Database
from shared.drain import DrainStep, Loop, end_loops, run_until_signal
from shared.health import Dependency, HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.ordered_log import OrderedLog
from shared.outbox import Outbox
from shared.refusal_reports import report_to
from shared.replays import KeptAnswers, OnceOnly
from shared.served_log import LogWatch
from shared.server import GrpcServer, run_service, settle_memory
from shared.settings import Address, Environment
from shared.wall_refusals import RefusalKeeper, WallRefusals


@dataclass(frozen=True, slots=True)
class RunningPreferences:
    """A preferences service that serves: where it is called, what runs beside its calls, and the steps that end it."""

    address: Address
    background: tuple[asyncio.Task[None], ...]
    steps: tuple[DrainStep, ...]


async def start(settings: Settings) -> RunningPreferences:
    """Connect, build the set indexes, and serve."""
    connections, served = settings.database_connections, served_log()
    verifier = await TokenVerifier.open(settings.auth)
    called = await database.connect(
        settings.database_url,
        application_name=f"{SCHEMA}-api",
        min_size=2,
        max_size=connections,
        on_connect=served.confirm,
    )
    worked = await database.connect(
        settings.worker_database_url,
        application_name=SCHEMA,
        min_size=2,
        max_size=connections,
        on_connect=served.confirm,
    )
    nats = await messaging.connect(settings.messaging)
    beside = Neighbours.open(settings)

    directory_log = OrderedLog(worked, SCHEMA)
    keeper = IndexKeeper(IndexStore(worked), directory_log)
    await keeper.build()
    relay, clock = team_relay(worked, nats), SystemClock()
    personal, saved = PersonalStore(called), SegmentStore(called, worked, directory_log)
    audiences = Audiences(keeper, clock)
    directory = DirectoryStore(worked, directory_log, Outbox(worked, SCHEMA))
    wall = InboxWall(directory, beside.inbox)
    follower = WallFollower(directory, audiences, wall, settings.team_retry_s)
    teller, walls = (
        AuditTeller(AuditStore(worked), beside.sender, settings.audit_retry_s),
        RefusalKeeper(WallRefusals(clock), report_to(beside.sender)),
    )
    own_preferences, writes, segments, counter = (
        OwnPreferences(personal, KeptAnswers(called, SCHEMA), keeper),
        DirectoryWrites(directory, OnceOnly(worked, SCHEMA), wall, relay.wake, teller.wake),
        Segments(saved, OnceOnly(worked, SCHEMA), keeper, beside.sender, clock, teller.wake),
        SegmentCounter(saved, keeper, clock, settings.segment_count_s),
    )
    eraser, erasing, exporting = (
        *_erasing(settings, worked, directory, beside, (relay.wake, teller.wake)),
        Exporting(Kept(personal, RecordStore(worked), beside.inbox, beside.sender, beside.dispatcher)),
    )
    cleaner = own_cleaner(worked, settings.worker_database_url, settings.retention, clock)

    health = HealthMonitor(
        [
            Dependency("postgres", worked.check),
            # What changes is kept and told later, and a team that is set says that the inbox has not heard of it.
            Dependency("nats", nats.check, required=False),
            *beside.dependencies(),
        ]
    )
    edge = EdgeInterceptor(
        verifier, role_of=keeper.role_of, limits=settings.server.limits, refusals=walls.refusals
    )
    server = GrpcServer(settings.server, edge, health)
    server.add(
        add_PreferencesServiceServicer_to_server,
        servicer.PreferencesServicer(own_preferences),
        servicer.RIGHTS,
        own_preferences.replays(),
    )
    server.add(
        add_DirectoryServiceServicer_to_server,
        directory_servicer.DirectoryServicer(
            DirectoryReads(personal, keeper), writes, segments, exporting, erasing, cleaner
        ),
        directory_servicer.RIGHTS,
        writes.replays() | segments.replays() | erasing.replays(),
    )
    server.add(
        add_AudienceServiceServicer_to_server,
        audience_servicer.AudienceServicer(audiences),
        audience_servicer.RIGHTS,
    )
    failpoints.check_declared()

    loops: dict[str, Loop] = {
        "index_keeper": keeper,
        "outbox_relay": relay,
        "wall_follower": follower,
        "cleaner": cleaner,
        "audit_teller": teller,
        "segment_counter": counter,
        "eraser": eraser,
        "refusal_keeper": walls,
        "served_log": LogWatch(served, worked),
    }
    background = tuple(asyncio.create_task(loop.run(), name=name) for name, loop in loops.items())
    steps = (
        server.leave(),
        server.finish_calls(),
        DrainStep("finish_loops", lambda: end_loops(loops.values(), background)),
        DrainStep("drain_nats", nats.drain),
        DrainStep("close_channels", beside.close),
        DrainStep("close_pools", lambda: asyncio.gather(called.close(), worked.close())),
    )
    return RunningPreferences(await server.start(), background, steps)


def _erasing(
    settings: Settings,
    worked: Database,
    directory: DirectoryStore,
    beside: Neighbours,
    wakes: Iterable[Callable[[], None]],
) -> tuple[ErasureFollower, Erasing]:
    """What erases people, and what has the other services follow."""
    erasures = ErasureStore(worked, directory)
    removals = Removals(erasures, beside.inbox, beside.sender)
    follower = ErasureFollower(erasures, removals, settings.erasure_retry_s, settings.erasure_repeat_s)
    return follower, Erasing(erasures, OnceOnly(worked, SCHEMA), removals, follower, wakes)


async def main() -> int:
    """Serve until a signal; the exit code."""
    settings = Settings.read(Environment(os.environ))
    logging.configure(SCHEMA, log_format=settings.log_format)
    running = await start(settings)
    settle_memory()
    return await run_until_signal(running.steps, running.background)


if __name__ == "__main__":
    run_service(main)
