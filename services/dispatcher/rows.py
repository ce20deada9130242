"""Owns how domain values look as rows and columns."""

from collections.abc import Iterable, Sequence

from services.dispatcher.domain import (
    Category,
    Channel,
    ChunkCount,
    ChunkState,
    Decided,
    DispatchState,
    Draft,
    Kind,
    Priority,
    Reason,
)
from services.dispatcher.snapshot import Redecision
from services.dispatcher.work import Closure, LeasedChunk, Plan, Rules, WaitingChunk
from shared.audience import Audience
from shared.database import Row


def plan_columns(plan: Plan) -> tuple[object, ...]:
    """A plan as the row of its dispatch, as far as that is known before the commit."""
    rules = plan.rules
    return (
        rules.broadcast_id,
        rules.priority,
        plan.state,
        rules.type,
        rules.category,
        rules.essential,
        rules.wedding_id,
        rules.wall,
        plan.expires_at,
        plan.decided.directory_version,
        plan.decided.time,
        plan.targeted,
    )


def draft_columns(drafts: Sequence[Draft]) -> tuple[object, ...]:
    """Drafts as arrays of equal length, one a column."""
    return (
        [draft.kind for draft in drafts],
        [draft.state for draft in drafts],
        [draft.channel for draft in drafts],
        [draft.reason for draft in drafts],
        [draft.release_at for draft in drafts],
        [draft.members.to_bytes() for draft in drafts],
        [len(draft.members) for draft in drafts],
    )


def turn_column(drafts: Sequence[Draft]) -> list[int]:
    """The turns of drafts, a column of its own because it came later."""
    return [draft.turn for draft in drafts]


def redecision_columns(chunk: WaitingChunk, change: Redecision, decided: Decided) -> tuple[object, ...]:
    """A chunk as it was read, and its new form."""
    return (
        chunk.broadcast_id,
        chunk.chunk,
        chunk.state,
        chunk.looked_at,
        change.kept.to_bytes(),
        len(change.kept),
        decided.directory_version,
        decided.time,
        *draft_columns(change.moved),
        turn_column(change.moved),
    )


def leased_chunk(row: Row, priority: Priority) -> LeasedChunk:
    """A chunk that is to be sent; its bitmap stays as it is."""
    return LeasedChunk(
        row["broadcast_id"], row["chunk"], priority, Kind(row["kind"]), row["epoch"], row["members"]
    )


def waiting_chunk(row: Row) -> WaitingChunk:
    """A pending chunk that has to be decided again."""
    return WaitingChunk(
        row["broadcast_id"],
        row["chunk"],
        Kind(row["kind"]),
        ChunkState.PENDING,
        Audience.from_bytes(row["members"]),
        Decided(row["decided_version"], row["decided_at"]),
        row["looked_at"],
    )


def held_chunk(row: Row) -> WaitingChunk:
    """A chunk of alerts that waits for the end of quiet hours."""
    return WaitingChunk(
        row["broadcast_id"],
        row["chunk"],
        Kind.ALERT,
        ChunkState.HELD,
        Audience.from_bytes(row["members"]),
        Decided(row["decided_version"], row["decided_at"]),
        row["looked_at"],
        row["release_at"],
        row["turn"],
    )


def rules(row: Row) -> Rules:
    """What decisions about a broadcast's recipients depend on."""
    return Rules(
        row["broadcast_id"],
        Priority(row["priority"]),
        row["type"],
        Category(row["category"]),
        row["essential"],
        row["wedding_id"],
        tuple(row["wall"]),
    )


def closure(row: Row) -> Closure:
    """A dispatch that is closed."""
    return Closure(
        row["broadcast_id"],
        Priority(row["priority"]),
        DispatchState(row["state"]),
        row["targeted"],
        row["close_time"],
        float(row["seconds"]),
    )


def chunk_counts(found: Iterable[Row]) -> tuple[ChunkCount, ...]:
    """Chunks that are alike, counted."""
    return tuple(
        ChunkCount(
            Kind(row["kind"]),
            ChunkState(row["chunk_state"]),
            Channel(row["channel"]) if row["channel"] else None,
            Reason(row["reason"]) if row["reason"] else None,
            row["chunks"],
            row["members"],
        )
        for row in found
        if row["kind"] is not None
    )
