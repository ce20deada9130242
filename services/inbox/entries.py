"""Owns what the inbox's log says: the bodies of its entries, which the SQL of the migrations writes as well."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

from services.inbox.domain import ArrivalKind, Receipt, Team
from shared.audience import Audience
from shared.ordered_log import LogEntry

_ID_BYTES: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ARRIVALS: Final = frozenset(kind.value for kind in ArrivalKind)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A broadcast came into these inboxes, or rang for an item that had come silently."""

    position: int
    at: datetime
    kind: ArrivalKind
    broadcast_id: UUID
    members: Audience


@dataclass(frozen=True, slots=True)
class ReceiptsRecorded:
    """What these recipients have done with their items, as it stands now."""

    position: int
    receipts: Mapping[int, tuple[Receipt, ...]]


@dataclass(frozen=True, slots=True)
class ReturnedItem:
    """One recipient's item whose snooze has ended: how it had arrived, and what they have done with it."""

    arrived_at: datetime
    is_silent: bool
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Returned:
    """A broadcast is back in the lists of these recipients."""

    position: int
    broadcast_id: UUID
    items: Mapping[int, ReturnedItem]


@dataclass(frozen=True, slots=True)
class AllRead:
    """Everything in this inbox counts as read."""

    position: int
    recipient_number: int
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Retracted:
    """A broadcast was taken out of all inboxes, or has expired: out of those of `members`, or, if None, of those who
    still have it.
    """

    position: int
    broadcast_id: UUID
    members: Audience | None = None


@dataclass(frozen=True, slots=True)
class TeamChanged:
    """A wedding's team is another; `moved` were taken off it or put on it."""

    position: int
    team: Team
    moved: Audience


@dataclass(frozen=True, slots=True)
class Erased:
    """A recipient is nobody any more."""

    position: int
    recipient_number: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A broadcast says something else than before."""

    position: int
    broadcast_id: UUID


Entry: TypeAlias = (
    Arrived | ReceiptsRecorded | Returned | AllRead | Retracted | TeamChanged | Erased | Rewritten
)


def arrival_body(broadcast_id: UUID, members: Audience) -> bytes:
    """What the log says of an arrival."""
    return broadcast_id.bytes + members.to_bytes()


def read_entry(entry: LogEntry) -> Entry:
    """What an entry says. Raises ValueError for one that nothing of ours wrote."""
    if entry.kind in _ARRIVALS:
        broadcast_id, members = entry.body[:_ID_BYTES], Audience.from_bytes(entry.body[_ID_BYTES:])
        kind = ArrivalKind(entry.kind)
        return Arrived(entry.position, entry.at, kind, UUID(bytes=broadcast_id), members)
    if entry.kind in ("retracted", "expired"):
        seeing = entry.body[_ID_BYTES:]
        out_of = Audience.from_bytes(seeing) if seeing else None
        return Retracted(entry.position, UUID(bytes=entry.body[:_ID_BYTES]), out_of)
    if entry.kind == "erased":
        return Erased(entry.position, int.from_bytes(entry.body))
    if entry.kind == "rewritten":
        return Rewritten(entry.position, UUID(bytes=entry.body))
    return _in_words(entry)


def _in_words(entry: LogEntry) -> Entry:
    """What an entry says whose body is JSON."""
    said = json.loads(entry.body)
    match entry.kind:
        case "receipts":
            return _receipts(entry.position, said)
        case "returned":
            return _returned(entry.position, said)
        case "all_read":
            return AllRead(entry.position, said["recipient"], _moment(said["at"]))
        case "team":
            team = Team(UUID(said["wedding"]), said["version"], Audience.of(said["members"]))
            return TeamChanged(entry.position, team, Audience.of(said["moved"]))
        case _:
            raise ValueError(f"the log has an entry of the unknown kind {entry.kind} at {entry.position}")


def _receipts(position: int, said: list[list[int | str | None]]) -> ReceiptsRecorded:
    by_recipient: dict[int, tuple[Receipt, ...]] = {}
    for number, broadcast_id, *times in said:
        receipt = Receipt(UUID(str(broadcast_id)), *(_time(time) for time in times))
        recipient = int(number or 0)
        by_recipient[recipient] = (*by_recipient.get(recipient, ()), receipt)
    return ReceiptsRecorded(position, by_recipient)


def _returned(position: int, said: dict[str, Any]) -> Returned:
    broadcast_id = UUID(said["broadcast"])
    items = {
        number: ReturnedItem(_moment(arrived_at), silent, Receipt(broadcast_id, *map(_time, times)))
        for number, arrived_at, silent, *times in said["items"]
    }
    return Returned(position, broadcast_id, items)


def _time(microseconds: int | str | None) -> datetime | None:
    return None if microseconds is None else _moment(int(microseconds))


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
