"""Owns what a dispatch is made of: chunks, their states, how many may be on their way, and the ledger they make up."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final

from shared.audience import Audience


class Priority(IntEnum):
    """How urgent a broadcast is; each has a lane. The numbers are the contract's, and sort critical first."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4

    @property
    def slug(self) -> str:
        """The word as subjects, settings and log lines have it."""
        return self.name.lower()

    @property
    def is_bulk(self) -> bool:
        """Whether it may take its time: what is urgent goes before it everywhere."""
        return self >= Priority.NORMAL


class Category(StrEnum):
    """What a broadcast is about; a person can switch a category off."""

    SYSTEM = "system"
    BUSINESS = "business"
    COLLABORATION = "collaboration"
    WEDDING = "wedding"


class Channel(StrEnum):
    """A way to reach a person that this service delivers on."""

    REALTIME = "realtime"
    IN_APP = "in_app"


class DeliveryState(StrEnum):
    """What became of one broadcast for one recipient on one channel."""

    PENDING = "pending"
    HELD = "held"
    SENT = "sent"
    DELIVERED = "delivered"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Reason(StrEnum):
    """Why a delivery will not happen."""

    NOT_IN_AUDIENCE = "not_in_audience"
    OUTSIDE_WALL = "outside_wall"
    ERASED = "erased"
    CRITICAL_ONLY = "critical_only"
    CATEGORY_MUTED = "category_muted"
    WEDDING_MUTED = "wedding_muted"
    TYPE_MUTED = "type_muted"
    CHANNEL_OFF = "channel_off"
    CHANNEL_NOT_FOR_PRIORITY = "channel_not_for_priority"
    NO_ADDRESS = "no_address"
    ALREADY_READ = "already_read"
    ADDRESS_SUPPRESSED = "address_suppressed"


class Kind(StrEnum):
    """What a chunk does: an item, aloud or silent; an alert of a silent one; or only a record of why not."""

    ITEM = "item"
    SILENT_ITEM = "silent_item"
    ALERT = "alert"
    NONE = "none"


class ChunkState(StrEnum):
    """Where a chunk is; `leased` means on its way to the inbox."""

    PENDING = "pending"
    LEASED = "leased"
    HELD = "held"
    DONE = "done"
    SUPPRESSED = "suppressed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return not CHUNK_TRANSITIONS[self]


CHUNK_TRANSITIONS: Final[Mapping[ChunkState, frozenset[ChunkState]]] = {
    ChunkState.HELD: frozenset({ChunkState.PENDING, ChunkState.CANCELLED, ChunkState.EXPIRED}),
    # Alerts that do not get away are held again.
    ChunkState.PENDING: frozenset(
        {ChunkState.LEASED, ChunkState.HELD, ChunkState.CANCELLED, ChunkState.EXPIRED}
    ),
    # What is on its way is the inbox's to decide: a cancel waits for its word.
    ChunkState.LEASED: frozenset({ChunkState.LEASED, ChunkState.DONE, ChunkState.CANCELLED}),
    ChunkState.DONE: frozenset(),
    ChunkState.SUPPRESSED: frozenset(),
    ChunkState.CANCELLED: frozenset(),
    ChunkState.EXPIRED: frozenset(),
}
"""From each state, the states that may follow. Policies in the schema keep what is final from changing."""


class DispatchState(StrEnum):
    """Where a dispatch is. A closed one may still hold alerts for the end of quiet hours."""

    DISPATCHING = "dispatching"
    CLOSED = "closed"
    STOPPED = "stopped"
    EXPIRED = "expired"


CHANNELS_OF: Final[Mapping[Kind, tuple[Channel, ...]]] = {
    Kind.ITEM: (Channel.REALTIME, Channel.IN_APP),
    Kind.SILENT_ITEM: (Channel.IN_APP,),
    Kind.ALERT: (Channel.REALTIME,),
}
"""The channels that a chunk of this kind settles for its members; a chunk of kind `none` names its own."""

_REACHED: Final = {Channel.REALTIME: DeliveryState.SENT, Channel.IN_APP: DeliveryState.DELIVERED}
_ON_ITS_WAY: Final = frozenset({ChunkState.PENDING, ChunkState.LEASED})


@dataclass(frozen=True, slots=True)
class Decided:
    """When an outcome was decided: the place in the directory's log, and the moment that quiet hours were seen at."""

    directory_version: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """A chunk without a number: members that share kind, state and, as the kind has it, channel, reason and release.

    `turn` says which of those that are released at one time go first.
    """

    kind: Kind
    state: ChunkState
    members: Audience
    channel: Channel | None = None
    reason: Reason | None = None
    release_at: datetime | None = None
    turn: int = 0


@dataclass(frozen=True, slots=True)
class InFlightLimit:
    """How much of one broadcast may be on its way: `chunks`, or more that together hold at most `members`.

    The first bound keeps a large broadcast from standing in front of a small one. The second lets a small one that is
    scattered over many blocks go at once; `most_chunks` bounds what then queues at the inbox. `lane_members` does for a
    whole lane what `members` does for a broadcast, so that five large ones take no more than one would.
    """

    chunks: int
    members: int
    most_chunks: int
    lane_members: int | None = None

    def allowance(self, sizes: Iterable[int]) -> int:
        """How many of the chunks with these sizes, in order, may leave when nothing is on its way."""
        count = members = 0
        for size in sizes:
            members += size
            if count >= self.most_chunks or (count >= self.chunks and members > self.members):
                break
            count += 1
        return count


@dataclass(frozen=True, slots=True)
class ChunkCount:
    """Chunks that are alike, counted: how many they are and how many recipients they hold."""

    kind: Kind
    state: ChunkState
    channel: Channel | None
    reason: Reason | None
    chunks: int
    members: int


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """How many deliveries of one channel are in one state."""

    channel: Channel
    state: DeliveryState
    reason: Reason | None
    count: int


def ledger(counts: Iterable[ChunkCount]) -> list[LedgerLine]:
    """The deliveries by channel, state and reason, in a steady order, without lines that count nobody."""
    totals: dict[tuple[Channel, DeliveryState, Reason | None], int] = defaultdict(int)
    for each in counts:
        for channel in CHANNELS_OF.get(each.kind, (each.channel,) if each.channel else ()):
            totals[channel, _delivery_state(channel, each.state), each.reason] += each.members
    lines = [LedgerLine(*key, count) for key, count in totals.items() if count]
    return sorted(lines, key=lambda line: (line.channel, line.state, line.reason or ""))


def _delivery_state(channel: Channel, state: ChunkState) -> DeliveryState:
    if state is ChunkState.DONE:
        return _REACHED[channel]
    return DeliveryState.PENDING if state in _ON_ITS_WAY else DeliveryState(state.value)
