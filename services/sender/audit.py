"""Owns what the audit log is: its entries, the chain that they form, and what can be wrong with it. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from services.sender.filters import ALWAYS, Period

PAGE_SIZE: Final = 50
VERIFIED: Final = 20_000
"""How many entries one call checks that names no number."""

_FORM: Final = "wedsync.broadcast.audit."
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NULL: Final = (-1).to_bytes(4, signed=True)
_EIGHT: Final = (8).to_bytes(4)
_SIXTEEN: Final = (16).to_bytes(4)


class AuditAction(StrEnum):
    """What an entry is about."""

    CRITICAL_ACCEPTED = "critical_accepted"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED = "cancelled"
    APPROVED = "approved"
    REJECTED = "rejected"
    ROLE_CHANGED = "role_changed"
    TEAM_JOINED = "team_joined"
    TEAM_LEFT = "team_left"
    ERASED = "erased"
    WALL_REFUSED = "wall_refused"
    SEGMENT_CREATED = "segment_created"
    SEGMENT_UPDATED = "segment_updated"
    SEGMENT_DELETED = "segment_deleted"


class FlawKind(StrEnum):
    """What can be wrong with the log; the contract says what each means."""

    ENTRY_CHANGED = "entry_changed"
    ENTRY_MISSING = "entry_missing"
    CHAIN_BROKEN = "chain_broken"
    TAIL_MISSING = "tail_missing"
    CHECKPOINT_DIFFERS = "checkpoint_differs"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that happened: who did what, when, and to whom or what. No text, no name.

    `actor` is a user id, the name of a service account or a login of the database; of attempts that were refused it is
    '' for more callers than were kept apart. `action` is one of AuditAction, unless somebody has written in the log.
    """

    event_id: UUID
    at: datetime
    source: str
    actor: str
    action: str
    broadcast_id: UUID | None = None
    broadcast_type: str | None = None
    targeted: int | None = None
    retract: bool | None = None
    stopped: int | None = None
    already_sent: int | None = None
    user_id: UUID | None = None
    wedding_id: UUID | None = None
    role_before: str | None = None
    role_after: str | None = None
    method: str | None = None
    attempts: int | None = None
    segment_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event in its place in the chain; `format` says which form of it the hash is made from."""

    position: int
    format: int
    recorded_at: datetime
    event: AuditEvent
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which entries are asked for; what is None or empty leaves out nothing."""

    actions: tuple[AuditAction, ...] = ()
    actor: str | None = None
    broadcast_id: UUID | None = None
    user_id: UUID | None = None
    wedding_id: UUID | None = None
    time: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log was up to an entry: its hash stands for all that comes before."""

    position: int
    hash: bytes


BEGINNING: Final = Checkpoint(0, bytes(32))
"""Before the first entry."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is wrong, and where."""

    kind: FlawKind
    position: int


@dataclass(frozen=True, slots=True)
class Verified:
    """From where to where the log is right, what is wrong then, and whether it ends there."""

    since: Checkpoint
    through: Checkpoint
    flaw: Flaw | None = None
    is_complete: bool = False

    @property
    def checked(self) -> int:
        """How many entries that were."""
        return self.through.position - self.since.position


def canonical(entry: AuditEntry) -> bytes:
    """The bytes that an entry's hash is made from, as the function audit_hash of the schema has them."""
    event = entry.event
    return b"".join(
        (
            f"{_FORM}{entry.format}".encode(),
            _field(entry.previous_hash),
            _number(entry.position),
            _id(event.event_id),
            _time(entry.recorded_at),
            _time(event.at),
            _text(event.source),
            _text(event.actor),
            _text(event.action),
            _id(event.broadcast_id),
            _text(event.broadcast_type),
            _number(event.targeted),
            _number(event.retract),
            _number(event.stopped),
            _number(event.already_sent),
            _id(event.user_id),
            _id(event.wedding_id),
            _text(event.role_before),
            _text(event.role_after),
            _text(event.method),
            _number(event.attempts),
            # The first form knows no segments.
            _id(event.segment_id) if entry.format > 1 else b"",
        )
    )


def follow(
    before: Checkpoint, entries: Sequence[AuditEntry], checkpoints: Mapping[int, bytes]
) -> tuple[Checkpoint, Flaw | None]:
    """Walk the chain over entries that come next in it: how far it is right, and the first thing that is not.

    `checkpoints` are hashes by position, of those that are known.
    """
    for entry in entries:
        flaw = _flaw(before, entry, checkpoints.get(entry.position))
        if flaw is not None:
            return before, flaw
        before = Checkpoint(entry.position, entry.hash)
    return before, None


def _flaw(before: Checkpoint, entry: AuditEntry, known: bytes | None) -> Flaw | None:
    position = before.position + 1
    if entry.position != position:
        return Flaw(FlawKind.ENTRY_MISSING, position)
    if hashlib.sha256(canonical(entry)).digest() != entry.hash:
        return Flaw(FlawKind.ENTRY_CHANGED, position)
    if entry.previous_hash != before.hash:
        return Flaw(FlawKind.CHAIN_BROKEN, position)
    if known is not None and known != entry.hash:
        return Flaw(FlawKind.CHECKPOINT_DIFFERS, position)
    return None


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4) + value


def _text(value: str | None) -> bytes:
    return _NULL if value is None else _field(value.encode())


def _id(value: UUID | None) -> bytes:
    return _NULL if value is None else _SIXTEEN + value.bytes


def _number(value: int | None) -> bytes:
    return _NULL if value is None else _EIGHT + value.to_bytes(8, signed=True)


def _time(value: datetime) -> bytes:
    return _number((value - _EPOCH) // _MICROSECOND)
