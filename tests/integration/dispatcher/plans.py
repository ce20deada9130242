"""What tests of the store are made of: plans, reports, and looks behind the policies."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg

from services.dispatcher.domain import (
    Category,
    Channel,
    ChunkState,
    Decided,
    DispatchState,
    Draft,
    InFlightLimit,
    Kind,
    Priority,
    Reason,
)
from services.dispatcher.planner import lease_first
from services.dispatcher.work import LeasedChunk, Plan, Report, Rules
from shared.audience import Audience
from shared.database import Database

DECIDED = Decided(7, datetime(2026, 11, 22, 12, tzinfo=UTC))
LIMIT = InFlightLimit(chunks=2, members=100, most_chunks=16)
NONE_LEASED = InFlightLimit(chunks=0, members=0, most_chunks=0)
PAST = datetime(2026, 11, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
MORNING = datetime(2026, 11, 23, 8, tzinfo=UTC)
MOST = 256
LANES = list(Priority)


def rules(priority: Priority = Priority.NORMAL, broadcast_id: UUID | None = None) -> Rules:
    """The rules of a new broadcast about nothing in particular."""
    return Rules(broadcast_id or uuid4(), priority, "feature.released", Category.SYSTEM, False, None, ())


def plan(
    *drafts: Draft,
    priority: Priority = Priority.NORMAL,
    broadcast_id: UUID | None = None,
    expires_at: datetime | None = None,
    limit: InFlightLimit = LIMIT,
) -> Plan:
    """A plan of these drafts, whose in_app members are the audience."""
    targeted = sum(len(draft.members) for draft in drafts if on_in_app(draft))
    has_work = any(draft.state is ChunkState.PENDING for draft in drafts)
    state = DispatchState.DISPATCHING if has_work else DispatchState.CLOSED
    leased = lease_first(drafts, limit)
    return Plan(rules(priority, broadcast_id), state, expires_at, DECIDED, targeted, leased)


def on_in_app(draft: Draft) -> bool:
    """Whether a draft says what its members get in their inbox."""
    return draft.kind in (Kind.ITEM, Kind.SILENT_ITEM) or draft.channel is Channel.IN_APP


def items(*sizes: int) -> list[Draft]:
    """Loud chunks of these sizes."""
    return [
        Draft(Kind.ITEM, ChunkState.PENDING, members(100_000 * place, size))
        for place, size in enumerate(sizes)
    ]


def silent(start: int, size: int) -> Draft:
    """A chunk of silent items."""
    return Draft(Kind.SILENT_ITEM, ChunkState.PENDING, members(start, size))


def held(start: int, size: int, release_at: datetime) -> Draft:
    """Alerts that wait."""
    return Draft(Kind.ALERT, ChunkState.HELD, members(start, size), release_at=release_at)


def alert(start: int, size: int, turn: int, release_at: datetime = MORNING) -> Draft:
    """Alerts that have this turn in the morning."""
    return Draft(Kind.ALERT, ChunkState.HELD, members(start, size), release_at=release_at, turn=turn)


def suppressed(start: int, size: int, channel: Channel = Channel.REALTIME) -> Draft:
    """People who get nothing on a channel."""
    return Draft(
        Kind.NONE, ChunkState.SUPPRESSED, members(start, size), channel=channel, reason=Reason.CATEGORY_MUTED
    )


def members(start: int, size: int) -> Audience:
    """So many people, from this number on."""
    return Audience.of(range(start, start + size))


def merged(chunk: LeasedChunk, size: int | None = None) -> Report:
    """The inbox has it."""
    real = len(Audience.from_bytes(chunk.members))
    return Report(chunk.broadcast_id, chunk.chunk, real if size is None else size, is_merged=True)


def stopped(chunk: LeasedChunk) -> Report:
    """The inbox would not have it."""
    return Report(chunk.broadcast_id, chunk.chunk, 0, is_merged=False)


async def let_go(worker: Database, rate: int, moment: datetime, most: int = MOST) -> int:
    """How many people are let go at a moment of the test's choice."""
    released: int = await worker.fetchval("SELECT released FROM let_go($1, $2, $3)", rate, most, moment)
    return released


async def leave(worker: Database, *but: Plan) -> int:
    """What was let go has got away from its lanes and is in the inboxes, `but` not of these; of how many people."""
    gone = await worker.fetch(
        "UPDATE chunks SET state = 'done', epoch = 1, lease_until = NULL"
        " WHERE state IN ('pending', 'leased') AND let_go_at IS NOT NULL AND broadcast_id <> ALL ($1) RETURNING size",
        [each.rules.broadcast_id for each in but],
    )
    return sum(row["size"] for row in gone)


async def make_stale(admin: asyncpg.Connection) -> None:
    """As if nobody had looked at any chunk for a minute."""
    await admin.execute("UPDATE chunks SET looked_at = looked_at - interval '1 minute'")


async def end_leases(admin: asyncpg.Connection) -> None:
    """As if every lease had just run out."""
    await admin.execute("UPDATE chunks SET lease_until = now() - interval '1 second' WHERE state = 'leased'")


async def told(admin: asyncpg.Connection) -> list[tuple[str, bytes]]:
    """What stands in the outbox, in order."""
    return [tuple(row) for row in await admin.fetch("SELECT subject, payload FROM outbox ORDER BY id")]


def numbers(chunks: list[LeasedChunk]) -> list[int]:
    """Their numbers, in order."""
    return sorted(chunk.chunk for chunk in chunks)
