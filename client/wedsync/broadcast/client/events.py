"""What a watched inbox says, a class a kind; each has the cursor from which a new watch goes on after it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from wedsync.broadcast.v1.inbox_pb2 import InboxEvent, InboxItem, Receipt


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest 50 items: they replace all that is shown.

    With `recovered` the watch has said everything up to here, and more has changed than a change could say, such as a
    team. Without, it begins here: there was no cursor, or what followed that is no longer kept, and will not be told
    one by one. What was shown before is older, and more than these items may lie between: lists have them.
    """

    cursor: str
    items: tuple[InboxItem, ...]
    unread_count: int
    recovered: bool


@dataclass(frozen=True, slots=True)
class Added:
    """A new item on top, one more unread. A `silent` one asks for no sound: it is the recipient's night."""

    cursor: str
    item: InboxItem
    silent: bool


@dataclass(frozen=True, slots=True)
class Alert:
    """The alert that a silent item has waited for; the item itself came before."""

    cursor: str
    item: InboxItem


@dataclass(frozen=True, slots=True)
class Updated:
    """What the person did on another device; `all_read_at` when everything was marked as read.

    A receipt that is dismissed or snoozed takes its item off the list. `items` are back on it, at the place of their
    arrival, because their snooze has ended.
    """

    cursor: str
    receipts: tuple[Receipt, ...]
    all_read_at: datetime | None
    items: tuple[InboxItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Retracted:
    """Items that are gone."""

    cursor: str
    broadcast_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """The badge."""

    cursor: str
    unread_count: int


Event: TypeAlias = Snapshot | Added | Alert | Updated | Retracted | Unread


def event_of(event: InboxEvent) -> Event | None:
    """The event by its class; None for a sign of life, and for a kind that a newer suite has."""
    match event.WhichOneof("change"):
        case "snapshot":
            shown = event.snapshot
            return Snapshot(event.cursor, tuple(shown.items), shown.unread_count, shown.recovered)
        case "added":
            return Added(event.cursor, event.added.item, event.added.silent)
        case "alert":
            return Alert(event.cursor, event.alert.item)
        case "updated":
            changed = event.updated
            return Updated(event.cursor, tuple(changed.receipts), _all_read_at(event), tuple(changed.items))
        case "retracted":
            return Retracted(event.cursor, tuple(event.retracted.broadcast_ids))
        case "unread_count":
            return Unread(event.cursor, event.unread_count.unread_count)
        case _:
            return None


def _all_read_at(event: InboxEvent) -> datetime | None:
    return event.updated.all_read_time.ToDatetime(UTC) if event.updated.HasField("all_read_time") else None
