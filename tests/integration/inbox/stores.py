"""The inbox's own values on real Postgres and Valkey, without its edges."""

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
from typing_extensions import override

from services.inbox.arranging import Arranging
from services.inbox.checkpoints import Checkpoints
from services.inbox.domain import ArrivalKind, Chunk, Content, Merge
from services.inbox.inboxes import Inboxes
from services.inbox.served_log import find_log_identity
from services.inbox.store import InboxStore
from services.inbox.texts import Texts
from services.inbox.waking import Waking
from services.inbox.work_store import ChunkRows, WorkStore
from shared import database
from shared.audience import Audience
from shared.database import Database
from shared.optional_redis import OptionalRedis
from stack.provision import SuiteDatabase

_numbers = itertools.count(5_000_000, 10_000)


class _Silence(Waking):
    """Wakes nobody."""

    def __init__(self) -> None:
        """There is nobody to be told."""

    @override
    async def announce(self, position: int = 0) -> None:
        """Nobody hears it."""


SILENCE = _Silence()


@dataclass(slots=True)
class Stores:
    """What reads and writes inboxes."""

    personal: Database
    worked: Database
    admin: asyncpg.Connection
    inboxes: Inboxes
    checkpoints: Checkpoints
    admin_url: str
    api_url: str
    worker_url: str
    redis_url: str
    log_identity: UUID
    chunks: dict[UUID, int] = field(default_factory=dict)

    @property
    def store(self) -> InboxStore:
        return InboxStore(self.personal)

    @property
    def arranging(self) -> Arranging:
        return Arranging(self.worked, self.inboxes, SILENCE)

    @property
    def work(self) -> WorkStore:
        return WorkStore(self.worked)

    def another_node(self, redis: str | None = None) -> tuple[Inboxes, Checkpoints]:
        """What reads inboxes with nothing in its memory, and perhaps with another Redis."""
        checkpoints = Checkpoints(OptionalRedis.open(redis or self.redis_url), self.log_identity)
        return Inboxes(self.store, checkpoints, Texts(self.work), self.work), checkpoints

    def new_number(self) -> int:
        """A recipient number in a block of its own."""
        return next(_numbers)

    async def arrive(
        self, content: Content, members: Iterable[int], kind: ArrivalKind = ArrivalKind.ITEM
    ) -> Merge:
        """Put a broadcast into these inboxes."""
        number = self.chunks.get(content.broadcast_id, 0)
        self.chunks[content.broadcast_id] = number + 1
        chunk = Chunk(content.broadcast_id, number, kind, Audience.of(members))
        merge = (await self.work.merge([ChunkRows.of(chunk)], [content]))[0]
        assert merge is not None
        return merge


@asynccontextmanager
async def open_stores(suite: SuiteDatabase, redis: str) -> AsyncIterator[Stores]:
    """The stores for the time of the block."""
    personal = await database.connect(suite.url("inbox"), application_name="test")
    worked = await database.connect(suite.url("inbox", "worker"), application_name="test")
    admin = await asyncpg.connect(suite.admin_url)
    await admin.execute("SET search_path TO inbox")
    log_identity = await find_log_identity(worked)
    checkpoints = Checkpoints(OptionalRedis.open(redis), log_identity)
    try:
        work = WorkStore(worked)
        inboxes = Inboxes(InboxStore(personal), checkpoints, Texts(work), work)
        yield Stores(
            personal,
            worked,
            admin,
            inboxes,
            checkpoints,
            suite.admin_url,
            suite.url("inbox"),
            suite.url("inbox", "worker"),
            redis,
            log_identity,
        )
    finally:
        await checkpoints.close()
        await personal.close()
        await worked.close()
        await admin.close()


async def is_waiting_for_the_log(admin_url: str) -> bool:
    """Whether somebody who records receipts waits for the head of the log to be let go."""
    connection = await asyncpg.connect(admin_url)
    try:
        waiting: bool = await connection.fetchval(
            "SELECT count(*) > 0 FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND query LIKE '%record_receipts%'"
        )
    finally:
        await connection.close()
    return waiting
