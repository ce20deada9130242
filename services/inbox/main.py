"""Builds an inbox and serves: `python -m services.inbox.main`."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import add_InboxServiceServicer_to_server
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.inbox.arranging import Arranging
from services.inbox.changes import Changes
from services.inbox.checkpoints import Checkpoints
from services.inbox.config import Settings
from services.inbox.connections import Connections
from services.inbox.consumer import DeliveryConsumer, DirectoryConsumer
from services.inbox.contents import Contents
from services.inbox.erasing import Erasing, Forgetting
from services.inbox.exporting import Exporting
from services.inbox.fanout import Fanout
from services.inbox.identities import Identities
from services.inbox.inboxes import Inboxes
from services.inbox.live import Tail
from services.inbox.memory import Memory
from services.inbox.merging import Merging
from services.inbox.privacy_store import PrivacyStore
from services.inbox.readership import Readership
from services.inbox.receipts import Receipts
from services.inbox.retention import Leaving, own_cleaner
from services.inbox.retractions import Retractions
from services.inbox.served_log import served_log
from services.inbox.servicer import RIGHTS, InboxServicer, Rooms, replays
from services.inbox.store import SCHEMA, InboxStore
from services.inbox.streams import InboxStreams
from services.inbox.syncing import Syncing
from services.inbox.teams import Teams
from services.inbox.texts import Texts
from services.inbox.timing import Timing
from services.inbox.waking import Waking
from services.inbox.work_store import WorkStore
from shared import database, failpoints, logging, messaging
from shared.auth import TokenVerifier
from shared.channels import open_channel
from shared.clock import SystemClock
from shared.drain import DrainStep, run_until_signal
from shared.health import Dependency, HealthMonitor
from shared.interceptors import EdgeInterceptor
from shared.messaging import Messaging
from shared.optional_redis import OptionalRedis
from shared.ordered_log import OrderedLog
from shared.pull_worker import PullWorker
from shared.refusal_reports import report_to
from shared.replays import KeptAnswers
from shared.served_log import LogWatch
from shared.server import GrpcServer, run_service, settle_memory
from shared.settings import Address, Environment
from shared.streams import INBOX_DELIVERY, INBOX_DIRECTORY
from shared.wall_refusals import RefusalKeeper, WallRefusals

_AUDIENCE = "wedsync.broadcast.v1.AudienceService"
_ORDER = "wedsync.broadcast.v1.SenderService/GetDispatchOrder"
_ACCESS = "wedsync.broadcast.v1.SenderService/CheckBroadcastAccess"
_RECORD = "wedsync.broadcast.v1.SenderService/RecordAuditEvents"
_CHUNKS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Inbox:
    """An inbox that serves: where, what runs beside its calls, and how it ends."""

    address: Address
    background: tuple[asyncio.Task[None], ...]
    steps: tuple[DrainStep, ...]


async def start(settings: Settings) -> Inbox:
    """Connect, build and serve."""
    clock, transport, token = SystemClock(), settings.server.transport, settings.token
    served, redis = served_log(), OptionalRedis.open(settings.redis_url)
    verifier = await TokenVerifier.open(settings.auth)
    personal = await database.connect(
        settings.database_url,
        application_name="inbox-api",
        max_size=settings.database_connections,
        on_connect=served.confirm,
    )
    worked = await database.connect(
        settings.worker_database_url,
        application_name="inbox-worker",
        max_size=settings.worker_connections,
        on_connect=served.confirm,
    )
    nats = await messaging.connect(settings.messaging)
    sender = open_channel("sender", settings.sender, transport, token, retried=[_ORDER, _ACCESS, _RECORD])
    preferences = open_channel("preferences", settings.preferences, transport, token, retried=[_AUDIENCE])
    told, audience = SenderServiceStub(sender), AudienceServiceStub(preferences)
    store, waking = WorkStore(worked), Waking(nats)
    ordered_log, answers = OrderedLog(worked, SCHEMA), KeptAnswers(worked, SCHEMA)

    identities, texts = Identities(store, audience), Texts(store)
    checkpoints, private = Checkpoints(redis, served.identity), PrivacyStore(worked)
    inboxes = Inboxes(InboxStore(personal), checkpoints, texts, store)
    changes, fanout = Changes(store, served.identity, clock), Fanout(settings.streams_per_person)
    tail = Tail(ordered_log, changes, waking, most_behind=settings.most_behind)
    teams = Teams(store, audience, waking, tail)
    syncing, leaving = (
        Syncing(tail, changes, inboxes, fanout),
        Leaving(worked, store, waking, settings.retention),
    )
    contents, walls = Contents(told, teams), RefusalKeeper(WallRefusals(clock), report_to(told))
    rooms = Rooms(
        identities=identities,
        inboxes=inboxes,
        memory=Memory(inboxes, checkpoints, tail, ordered_log, clock),
        receipts=Receipts(store, answers, waking),
        arranging=Arranging(worked, inboxes, waking),
        readership=Readership(worked, store, told, audience),
        streams=InboxStreams(syncing, fanout, served.identity, settings.streams),
        connections=Connections(
            syncing, fanout, identities, verifier, served.identity, settings.streams, clock
        ),
        teams=teams,
        retractions=Retractions(store, waking),
        erasing=Erasing(private, contents, checkpoints, waking, tail),
        exporting=Exporting(private),
        leaving=leaving,
        cleaner=own_cleaner(worked, settings.worker_database_url, leaving, settings.retention, clock),
        store=store,
    )
    workers = _workers(nats, store, contents, teams, waking)

    health = HealthMonitor(
        [
            Dependency("postgres", personal.check),
            Dependency("nats", nats.check),
            Dependency("redis", redis.check, required=False),
            Dependency("sender", sender.channel_ready, required=False),
            Dependency("preferences", preferences.channel_ready, required=False),
        ]
    )
    edge = EdgeInterceptor(
        verifier, role_of=identities.role_of, limits=settings.server.limits, refusals=walls.refusals
    )
    server = GrpcServer(settings.server, edge, health)
    server.add(add_InboxServiceServicer_to_server, InboxServicer(rooms), RIGHTS, replays(answers))
    failpoints.check_declared()

    await asyncio.gather(waking.listen(), contents.listen(nats))
    await tail.load()
    background = tuple(
        asyncio.create_task(work, name=name)
        for name, work in [
            (
                "tail",
                tail.follow(
                    Forgetting(identities, rooms.memory, checkpoints, texts, changes, contents).note,
                    syncing.deliver,
                ),
            ),
            ("served_log", LogWatch(served, worked).run()),
            ("badges", syncing.tell_badges()),
            ("timing", Timing(worked, waking).run()),
            ("cleaner", rooms.cleaner.run()),
            ("refusal_keeper", walls.run()),
            *(("worker", worker.run()) for worker in workers),
        ]
    )
    return Inbox(
        address=await server.start(),
        background=background,
        steps=(
            server.leave(),
            DrainStep("stop_fetching", lambda: asyncio.gather(*(worker.stop() for worker in workers))),
            DrainStep("end_streams", fanout.end_all),
            server.finish_calls(),
            DrainStep("tell_refusals", walls.finish),
            DrainStep("stop_background", lambda: _end(background)),
            DrainStep("drain_nats", nats.drain),
            DrainStep("close_channels", lambda: asyncio.gather(sender.close(), preferences.close())),
            DrainStep("close_redis", checkpoints.close),
            DrainStep("close_pools", lambda: asyncio.gather(personal.close(), worked.close())),
        ),
    )


async def main() -> int:
    """Serve until a signal; the exit code."""
    settings = Settings.read(Environment(os.environ))
    logging.configure(SCHEMA, log_format=settings.log_format)
    inbox = await start(settings)
    settle_memory()
    return await run_until_signal(inbox.steps, inbox.background)


def _workers(
    nats: Messaging, store: WorkStore, contents: Contents, teams: Teams, waking: Waking
) -> list[PullWorker]:
    """One a lane, each with merges of its own so that no lane waits for another, and one for teams."""
    workers = []
    for lane, consumer in INBOX_DELIVERY.items():
        lane_of = DeliveryConsumer(lane, Merging(store, contents, waking), nats)
        workers.append(
            PullWorker(
                nats, consumer, lane_of.handle, bury=lane_of.bury, concurrency=_CHUNKS_AT_ONCE, ack_sync=True
            )
        )
    directory = DirectoryConsumer(teams)
    workers.append(
        PullWorker(nats, INBOX_DIRECTORY, directory.handle, bury=directory.bury, concurrency=4, ack_sync=True)
    )
    return workers


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    run_service(main)
