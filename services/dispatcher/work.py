"""Owns the values that the dispatcher's parts hand to one another: plans, chunks to send or decide again, reports."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from wedsync.broadcast.v1 import common_pb2

from services.dispatcher.domain import (
    Category,
    ChunkCount,
    ChunkState,
    Decided,
    DispatchState,
    Draft,
    Kind,
    Priority,
)
from shared.audience import Audience


@dataclass(frozen=True, slots=True)
class Rules:
    """What a decision about a recipient depends on, besides who they are."""

    broadcast_id: UUID
    priority: Priority
    type: str
    category: Category
    essential: bool
    wedding_id: UUID | None
    wall: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A broadcast as it is to be dispatched; its targeting is passed on unread."""

    rules: Rules
    expires_at: datetime | None
    targeting: common_pb2.Targeting


@dataclass(frozen=True, slots=True)
class Due:
    """An announcement, the first of which is number 1. `hint` is what its order will probably be, if anything."""

    broadcast_id: UUID
    announced: int
    hint: Order | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A snapshot that is ready to be committed; drafts that are `leased` leave as soon as it is."""

    rules: Rules
    state: DispatchState
    expires_at: datetime | None
    decided: Decided
    targeted: int
    drafts: tuple[Draft, ...]


@dataclass(frozen=True, slots=True)
class LeasedChunk:
    """A chunk that is to be sent under this epoch, its members serialised."""

    broadcast_id: UUID
    chunk: int
    priority: Priority
    kind: Kind
    epoch: int
    members: bytes


@dataclass(frozen=True, slots=True)
class WaitingChunk:
    """A chunk whose members have to be decided again before it can leave; `state` is pending or held.

    `looked_at` tells whether somebody else has changed it since it was read. A held one is due at `release_at`, and
    then has its `turn`.
    """

    broadcast_id: UUID
    chunk: int
    kind: Kind
    state: ChunkState
    members: Audience
    decided: Decided
    looked_at: datetime
    release_at: datetime | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """Whom a stretch of the directory's log is about, up to and with `version`; weddings by their ids.

    With `is_anybody` it may be about anybody.
    """

    version: int
    people: Audience
    weddings: frozenset[UUID]
    is_anybody: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """How many people were let go, in how many seconds the next hold ends, and where alerts are on their way.

    `next_s` is 0 when a hold has ended, None when nothing is held.
    """

    people: int
    next_s: float | None
    lanes: frozenset[Priority]


@dataclass(frozen=True, slots=True)
class Report:
    """The inbox's word on a chunk: merged, or stopped by a cancel that reached the inbox first."""

    broadcast_id: UUID
    chunk: int
    size: int
    is_merged: bool


@dataclass(frozen=True, slots=True)
class Closure:
    """A dispatch of which nothing is pending any more, and how long it took; `state` is what it has come to."""

    broadcast_id: UUID
    priority: Priority
    state: DispatchState
    targeted: int
    time: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class StopAnswer:
    """What a cancel found: who will not get something that waited, and about whom only the inbox knows."""

    planned: bool
    stopped: int
    in_flight: int
    targeted: int


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A broadcast's plan and ledger at one moment; only its state is known when it was stopped unplanned."""

    broadcast_id: UUID
    state: DispatchState
    priority: Priority | None = None
    targeted: int = 0
    directory_version: int = 0
    plan_time: datetime | None = None
    close_time: datetime | None = None
    next_release_time: datetime | None = None
    counts: tuple[ChunkCount, ...] = ()

    @property
    def chunks_total(self) -> int:
        """How many chunks carry members to an inbox."""
        return sum(each.chunks for each in self.counts if each.kind is not Kind.NONE)

    @property
    def chunks_done(self) -> int:
        """How many of them the inbox has merged."""
        return sum(each.chunks for each in self.counts if each.state is ChunkState.DONE)
