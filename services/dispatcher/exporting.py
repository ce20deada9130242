"""Owns telling what became of each broadcast that was meant for one person, a part of all chunks at a time."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1.common_pb2 import ExportedRecord

from services.dispatcher.domain import Channel, ChunkCount, ChunkState, Kind, Reason, ledger
from shared.audience import Audience
from shared.database import Database, Row
from shared.exported import ExportPage, ExportPart, export_page, exported
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_SERVICE: Final = "dispatcher"
_CHUNKS: Final = 100
"""Chunks that are looked through for a page: bitmaps of all that are meant, in which one person may not be."""
_FIRST: Final = (UUID(int=0), -1)


class Exporting:
    """What ExportDeliveries does once the edge has let a call in."""

    def __init__(self, worked: Database) -> None:
        """`worked` is the database as the worker's login, who sees the chunks of all broadcasts."""
        self._worked = worked

    async def export(self, recipient_number: int, page_token: str) -> ExportPage:
        """A page, on which there may be nothing. Raises InvalidPageToken."""
        parts = {"deliveries": partial(self._deliveries, recipient_number)}
        return await export_page(parts, page_token, recipient_number.to_bytes(4))

    async def _deliveries(self, recipient_number: int, place: str) -> ExportPart:
        broadcast_id, _, chunk = place.partition(" ")
        after = (UUID(broadcast_id), int(chunk)) if place else _FIRST
        rows = await self._worked.fetch(_QUERIES["export_chunks"], *after, _CHUNKS)
        records: list[ExportedRecord] = []
        for row in rows:
            if recipient_number in Audience.from_bytes(row["members"]):
                records += _deliveries_of(row)
            # To read a large bitmap takes a moment, and others have their turn in between.
            await asyncio.sleep(0)
        is_last = len(rows) < _CHUNKS
        return ExportPart(records, "" if is_last else f"{rows[-1]['broadcast_id']} {rows[-1]['chunk']}")


def _deliveries_of(row: Row) -> Iterator[ExportedRecord]:
    """What a chunk says of each of its people, a record a channel."""
    one = ChunkCount(
        Kind(row["kind"]),
        ChunkState(row["state"]),
        Channel(row["channel"]) if row["channel"] else None,
        Reason(row["reason"]) if row["reason"] else None,
        chunks=1,
        members=1,
    )
    for line in ledger([one]):
        yield exported(
            _SERVICE,
            "delivery",
            {
                "broadcast_id": row["broadcast_id"],
                "channel": line.channel,
                "state": line.state,
                "reason": line.reason,
                "release_at": row["release_at"],
                "decided_at": row["decided_at"],
                "dispatched_at": row["plan_time"],
            },
        )
