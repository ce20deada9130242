"""Owns how an audience whose outcomes are decided becomes chunks, at first and when some of it is decided again."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.dispatcher.domain import (
    CHANNELS_OF,
    Channel,
    ChunkState,
    Decided,
    DeliveryState,
    Draft,
    Kind,
    Reason,
)
from services.dispatcher.turns import in_turn
from shared.audience import CHUNK_MEMBERS, Audience


class BrokenSnapshot(ValueError):
    """An answer about an audience contradicts itself: on some channel not everyone has exactly one outcome."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an audience that gets the same on one channel: `outcome` is pending (now), held or suppressed."""

    channel: Channel
    outcome: DeliveryState
    members: Audience
    reason: Reason | None = None
    release_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole audience of `targeted` people, decided on every channel."""

    slices: tuple[Slice, ...]
    targeted: int
    decided: Decided


@dataclass(frozen=True, slots=True)
class Redecision:
    """A chunk after its members were decided again: those who stay as they are, and chunks for everyone else.

    `is_open` when of those who stay somebody would get nothing now, which counts only when they are let go.
    """

    kept: Audience
    moved: tuple[Draft, ...]
    is_open: bool = False


def verify(snapshot: Snapshot) -> None:
    """Raise BrokenSnapshot unless on each channel everyone of the same audience is in exactly one slice."""
    slices, targeted = snapshot.slices, snapshot.targeted
    audiences = []
    for channel in Channel:
        parts = [part.members for part in slices if part.channel is channel]
        audience = Audience.union_of(parts)
        if len(audience) != targeted or sum(map(len, parts)) != targeted:
            raise BrokenSnapshot(f"on {channel} not everyone of {targeted} has exactly one outcome")
        audiences.append(audience)
    if any(audience != audiences[0] for audience in audiences):
        raise BrokenSnapshot("the channels speak of different people")
    alerted, in_inbox = (_now(slices, channel) for channel in (Channel.REALTIME, Channel.IN_APP))
    if not alerted.issubset(in_inbox):
        raise BrokenSnapshot("someone would be alerted of what is not in their inbox")


def partition(slices: Sequence[Slice], most_held: int) -> Iterator[Draft]:
    """The chunks of a decided audience: loud items first, then silent ones, then what is held, then what is suppressed.

    What is held is cut into chunks of at most `most_held` people.
    Yields as it goes, so that a caller with a million members can let others have their turn in between.
    """
    alerted, in_inbox = _now(slices, Channel.REALTIME), _now(slices, Channel.IN_APP)
    for kind, members in (
        (Kind.ITEM, alerted & in_inbox),
        (Kind.SILENT_ITEM, in_inbox - alerted),
        (Kind.ALERT, alerted - in_inbox),
    ):
        for part in _parts(kind, members):
            yield Draft(kind, ChunkState.PENDING, part)
    for release_at, members in _held(slices).items():
        yield from in_turn(members, release_at, most_held)
    for (channel, reason), members in _suppressed(slices).items():
        yield Draft(Kind.NONE, ChunkState.SUPPRESSED, members, channel=channel, reason=reason)


def redecide(kind: Kind, members: Audience, slices: Sequence[Slice], most_held: int) -> Redecision:
    """What a chunk becomes when `slices` say anew what some of its members get; who is in none of them stays."""
    channels = CHANNELS_OF[kind]
    ours = [replace(part, members=part.members & members) for part in slices if part.channel in channels]
    changed = Audience.union_of(part.members for part in ours)
    for channel in channels:
        # Told about on one channel only: on the other, what was decided before still holds.
        unsaid = changed - Audience.union_of(part.members for part in ours if part.channel is channel)
        ours.append(Slice(channel, DeliveryState.PENDING, unsaid))
    kept, moved = members - changed, []
    for draft in partition(ours, most_held):
        if draft.kind is kind and draft.state is ChunkState.PENDING:
            kept |= draft.members
        else:
            moved.append(draft)
    return Redecision(kept, tuple(moved))


def redecide_held(
    members: Audience, release_at: datetime, slices: Sequence[Slice], now: datetime, most_held: int
) -> Redecision:
    """What becomes of alerts that are held until `release_at` when `slices` say anew what some of them get.

    Only when they are alerted follows it. Who would get nothing stays, and is decided about when the hold ends: by then
    they may have changed their mind again, unless they are erased. Who is awake by now is held until `now`, so that
    however many there are, they are released as everybody is.
    """
    moved, is_open = list[Slice](), False
    for part in slices:
        part = replace(part, members=part.members & members)
        if part.channel is not Channel.REALTIME or not part.members:
            continue
        if part.outcome is DeliveryState.PENDING:
            part = replace(part, outcome=DeliveryState.HELD, release_at=min(now, release_at))
        if part.outcome is DeliveryState.SUPPRESSED and part.reason is not Reason.ERASED:
            is_open = True
        elif part.release_at != release_at:
            moved.append(part)
    leaving = Audience.union_of(part.members for part in moved)
    return Redecision(members - leaving, tuple(partition(moved, most_held)), is_open)


def spare_readers(slices: Sequence[Slice], members: Audience, readers: Audience) -> list[Slice]:
    """The same decisions about alerts for `members`, but nobody is alerted of what they have read."""
    alerts = [part for part in slices if part.channel is Channel.REALTIME]
    told_before = members - Audience.union_of(part.members for part in alerts)
    spared = []
    for part in (*alerts, Slice(Channel.REALTIME, DeliveryState.PENDING, told_before)):
        if part.outcome is DeliveryState.PENDING:
            read = part.members & readers
            spared.append(Slice(part.channel, DeliveryState.SUPPRESSED, read, reason=Reason.ALREADY_READ))
            part = replace(part, members=part.members - read)
        spared.append(part)
    return spared


def _now(slices: Iterable[Slice], channel: Channel) -> Audience:
    """Who is to be reached on a channel at once."""
    return Audience.union_of(
        part.members for part in slices if part.channel is channel and part.outcome is DeliveryState.PENDING
    )


def _held(slices: Iterable[Slice]) -> dict[datetime, Audience]:
    """Who waits for the end of their quiet hours, by that end. Only alerts wait: an item alone makes no sound."""
    held: dict[datetime, Audience] = defaultdict(Audience)
    for part in slices:
        if part.outcome is DeliveryState.HELD and part.members:
            if part.channel is not Channel.REALTIME or part.release_at is None:
                raise BrokenSnapshot("only an alert can be held, and until a known time")
            held[part.release_at] |= part.members
    return dict(sorted(held.items()))


def _suppressed(slices: Iterable[Slice]) -> dict[tuple[Channel, Reason], Audience]:
    """Who gets nothing, by channel and reason."""
    suppressed: dict[tuple[Channel, Reason], Audience] = defaultdict(Audience)
    for part in slices:
        if part.outcome is DeliveryState.SUPPRESSED and part.members:
            if part.reason is None:
                raise BrokenSnapshot("whoever gets nothing has a reason")
            suppressed[part.channel, part.reason] |= part.members
    return suppressed


def _parts(kind: Kind, members: Audience) -> Iterator[Audience]:
    """What the inbox merges at a time: an item is a row a block there, an alert is one row wherever its people are."""
    if kind is Kind.ALERT and 0 < len(members) <= CHUNK_MEMBERS:
        yield members
    else:
        yield from members.chunks()
