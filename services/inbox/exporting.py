"""Owns telling what is kept about one person here: their items, what they did with these, and their calls, in pages."""

from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1 import common_pb2
from wedsync.broadcast.v1.common_pb2 import ExportedRecord

from services.inbox.privacy_store import PrivacyStore
from shared.database import Row
from shared.exported import PAGE_SIZE, ExportPage, ExportPart, export_page, exported

_SERVICE: Final = "inbox"
_END: Final = 2**63 - 1
_FIRST_CALL: Final = (datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


class Exporting:
    """What a person is told of the inbox."""

    def __init__(self, store: PrivacyStore) -> None:
        self._store = store

    async def export(self, user_id: UUID, recipient_number: int, page_token: str) -> ExportPage:
        """A page of items, receipts, what they arranged, marks or calls. Raises InvalidPageToken."""
        parts = {
            "items": partial(self._items, recipient_number),
            "receipts": partial(self._receipts, recipient_number),
            "arrangements": partial(self._arrangements, recipient_number),
            "marks": partial(self._marks, recipient_number),
            "calls": partial(self._calls, user_id),
        }
        return await export_page(parts, page_token, user_id.bytes)

    async def _items(self, recipient_number: int, place: str) -> ExportPart:
        rows = await self._store.list_items(recipient_number, int(place or _END), PAGE_SIZE)
        return ExportPart.of(rows, _item, lambda row: str(row["position"]))

    async def _receipts(self, recipient_number: int, place: str) -> ExportPart:
        rows = await self._store.list_receipts(recipient_number, UUID(place) if place else None, PAGE_SIZE)
        return ExportPart.of(rows, _receipt, lambda row: str(row["broadcast_id"]))

    async def _arrangements(self, recipient_number: int, place: str) -> ExportPart:
        after = UUID(place) if place else None
        rows = await self._store.list_arrangements(recipient_number, after, PAGE_SIZE)
        return ExportPart.of(rows, _arrangement, lambda row: str(row["broadcast_id"]))

    async def _marks(self, recipient_number: int, place: str) -> ExportPart:
        rows = await self._store.list_marks(recipient_number, int(place or _END), PAGE_SIZE)
        return ExportPart.of(rows, _mark, lambda row: str(row["position"]))

    async def _calls(self, user_id: UUID, place: str) -> ExportPart:
        at, _, request_id = place.partition(" ")
        after = (datetime.fromisoformat(at), UUID(request_id)) if place else _FIRST_CALL
        rows = await self._store.list_calls(user_id, after, PAGE_SIZE)
        return ExportPart.of(rows, _call, lambda row: f"{row['at'].isoformat()} {row['request_id']}")


def _item(row: Row) -> ExportedRecord:
    """What an item says is told where its person may see it: not what was taken back, nor what is behind a wall."""
    told = ("type", "title", "message", "action_label", "action_url", "wedding_id", "expires_at")
    is_shown = bool(row["is_shown"])
    return exported(
        _SERVICE,
        "item",
        {
            "broadcast_id": row["broadcast_id"],
            "delivered_at": row["arrived_at"],
            "silent": row["silent"],
            "shown": is_shown,
            "category": _word(common_pb2.Category.Name(row["category"])) if is_shown else None,
            "priority": _word(common_pb2.Priority.Name(row["priority"])) if is_shown else None,
            **{key: row[key] if is_shown else None for key in told},
        },
    )


def _word(enum_name: str) -> str:
    """PRIORITY_HIGH is `high`."""
    return enum_name.partition("_")[2].lower()


def _receipt(row: Row) -> ExportedRecord:
    keys = ("broadcast_id", "read_at", "acknowledged_at", "dismissed_at", "clicked_at", "clicked_url")
    return exported(_SERVICE, "receipt", {key: row[key] for key in keys})


def _arrangement(row: Row) -> ExportedRecord:
    keys = ("broadcast_id", "snoozed_until", "pinned_at")
    return exported(_SERVICE, "arrangement", {key: row[key] for key in keys})


def _mark(row: Row) -> ExportedRecord:
    return exported(_SERVICE, "all_read", {"at": row["at"]})


def _call(row: Row) -> ExportedRecord:
    return exported(_SERVICE, "remembered_call", {"method": row["method"], "at": row["at"]})
