"""Owns telling the sender, which keeps the audit log, what changed of rights and segments: in order, until it has it.

The events are written by triggers, in the transactions of the changes.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.sender_pb2 import AuditAction, RecordAuditEventsRequest, RecordedAuditEvent
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from shared.database import Database, Row
from shared.errors import ServiceError
from shared.failpoints import declare, failpoint
from shared.queries import load
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

RECORD: Final = "wedsync.broadcast.v1.SenderService/RecordAuditEvents"
_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_BATCH: Final = 200
BEFORE_FORGET, AFTER_FORGET = declare("preferences.audit.before_forget", "preferences.audit.after_forget")


class AuditStore:
    """The events that wait, as the worker."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self) -> list[RecordedAuditEvent]:
        """The next events that the sender has not confirmed, in order."""
        return [_event(row) for row in await self._database.fetch(_QUERIES["list_audit_events"], _BATCH)]

    async def forget(self, events: Sequence[RecordedAuditEvent]) -> None:
        """The sender has confirmed these."""
        await self._database.execute(_QUERIES["forget_audit_events"], [each.event_id for each in events])


class AuditTeller:
    """Tells of each event until it is confirmed. Any number may run: the sender takes each event once."""

    def __init__(self, store: AuditStore, sender: SenderServiceStub, retry_s: float) -> None:
        """`retry_s` is how often it looks by itself, and tries again."""
        self._store = store
        self._sender = sender
        self._retry_s = retry_s
        self._wake = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """Look at once: a change has just been committed."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return once what it has begun is done."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Tell again and again until `stop`."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self.tell()
            except ServiceError as error:
                log.warning("audit_events_untold", reason=error.reason_name, error=str(error))
            if not self._stopping:
                await wait_for_hint(self._wake, self._retry_s)

    async def tell(self) -> int:
        """Tell everything that waits; how much that was."""
        told = 0
        while events := await self._store.waiting():
            await self._sender.RecordAuditEvents(RecordAuditEventsRequest(events=events))
            await failpoint(BEFORE_FORGET)
            await self._store.forget(events)
            await failpoint(AFTER_FORGET)
            told += len(events)
        return told


def _event(row: Row) -> RecordedAuditEvent:
    time = Timestamp()
    time.FromDatetime(row["at"])
    return RecordedAuditEvent(
        event_id=str(row["event_id"]),
        time=time,
        actor=row["actor"],
        action=AuditAction.Value(f"AUDIT_ACTION_{row['action'].upper()}"),
        user_id=_text(row["user_id"]),
        wedding_id=_text(row["wedding_id"]),
        role_before=row["role_before"] or "",
        role_after=row["role_after"] or "",
        segment_id=_text(row["segment_id"]),
    )


def _text(value: UUID | None) -> str:
    return "" if value is None else str(value)
