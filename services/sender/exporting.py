"""Owns telling what is kept about one person here: what they sent, what names them, and what is on record, in pages."""

from datetime import UTC, datetime
from functools import partial
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1.common_pb2 import ExportedRecord

from services.sender.domain import Priority
from services.sender.privacy_store import ExportStore
from shared.database import Row
from shared.exported import PAGE_SIZE, ExportPage, ExportPart, export_page, exported

_SERVICE: Final = "sender"
_END: Final = 2**63 - 1
_FIRST: Final = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))

_SENT_KEYS: Final = (
    *("broadcast_id", "type", "title", "message", "action_label", "action_url", "everyone", "roles", "tiers"),
    *("segment_ids", "wedding_ids", "wedding_id", "named_users", "scheduled_for", "expires_at", "created_at"),
    *("targeted", "state", "sent_at", "failed_at", "error", "cancelled_at", "cancel_reason"),
)
_NAMING_KEYS: Final = (
    *("broadcast_id", "type", "created_at", "scheduled_for", "expires_at", "state"),
    *("title", "message", "action_label", "action_url"),
)
_ENTRY_KEYS: Final = (
    *("at", "action", "by_you", "about_you", "broadcast_id", "broadcast_type", "wedding_id", "segment_id"),
    *("role_before", "role_after", "method", "attempts"),
)


class Exporting:
    """What ExportPerson does once the edge has let a call in."""

    def __init__(self, store: ExportStore) -> None:
        self._store = store

    async def export(self, user_id: UUID, page_token: str) -> ExportPage:
        """A page, one kind after the other. Raises InvalidPageToken."""
        parts = {
            "sent": partial(self._sent, user_id),
            "naming": partial(self._naming, user_id),
            "audit": partial(self._audit, user_id),
            "counts": partial(self._counts, user_id),
            "calls": partial(self._calls, user_id),
        }
        return await export_page(parts, page_token, user_id.bytes)

    async def _sent(self, user_id: UUID, place: str) -> ExportPart:
        rows = await self._store.list_sent(user_id, _after(place), PAGE_SIZE)
        return ExportPart.of(rows, _sent, lambda row: _place(row["created_at"], row["broadcast_id"]))

    async def _naming(self, user_id: UUID, place: str) -> ExportPart:
        rows = await self._store.list_naming(user_id, _after(place), PAGE_SIZE)
        return ExportPart.of(rows, _naming, lambda row: _place(row["created_at"], row["broadcast_id"]))

    async def _audit(self, user_id: UUID, place: str) -> ExportPart:
        rows = await self._store.list_audit_entries(user_id, int(place or _END), PAGE_SIZE)
        return ExportPart.of(rows, _entry, lambda row: str(row["position"]))

    async def _counts(self, user_id: UUID, place: str) -> ExportPart:
        return ExportPart([_count(row) for row in await self._store.list_counts(user_id)])

    async def _calls(self, user_id: UUID, place: str) -> ExportPart:
        rows = await self._store.list_calls(user_id, _after(place), PAGE_SIZE)
        return ExportPart.of(rows, _call, lambda row: _place(row["at"], row["request_id"]))


def _after(place: str) -> tuple[datetime, UUID]:
    at, _, key = place.partition(" ")
    return (datetime.fromisoformat(at), UUID(key)) if place else _FIRST


def _place(at: datetime, key: UUID) -> str:
    return f"{at.isoformat()} {key}"


def _sent(row: Row) -> ExportedRecord:
    fields = {key: row[key] for key in _SENT_KEYS}
    return exported(_SERVICE, "broadcast_sent", {**fields, "priority": Priority(row["priority"]).slug})


def _naming(row: Row) -> ExportedRecord:
    fields = {key: row[key] for key in _NAMING_KEYS}
    return exported(_SERVICE, "broadcast_naming_you", {**fields, "priority": Priority(row["priority"]).slug})


def _entry(row: Row) -> ExportedRecord:
    return exported(_SERVICE, "audit_entry", {key: row[key] for key in _ENTRY_KEYS})


def _count(row: Row) -> ExportedRecord:
    return exported(
        _SERVICE,
        "counted_sends",
        {
            "type": row["type"],
            "priority": Priority(row["priority"]).slug,
            "wedding_id": row["wedding_id"],
            "sends": row["sends"],
            "first_at": row["first_at"],
            "last_at": row["last_at"],
        },
    )


def _call(row: Row) -> ExportedRecord:
    return exported(_SERVICE, "remembered_call", {"method": row["method"], "at": row["at"]})
