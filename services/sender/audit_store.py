"""Owns the tables of the audit log: adds to its chain, reads it, and keeps what its end was."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.sender.audit import AuditEntry, AuditEvent, AuditQuery, Checkpoint
from services.sender.rights import Caller
from shared.database import Database, Row
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))


class AuditPages:
    """The audit log as callers read it, as the login under personal policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_entries(
        self, caller: Caller, query: AuditQuery, below: int | None, size: int
    ) -> list[AuditEntry]:
        """Up to `size` entries, newest first, from below a position; none for a caller who may not read them."""
        rows = await self._database.fetch(
            _QUERIES["list_audit_log"],
            caller.reads_audit,
            query.actions or None,
            query.actor,
            query.broadcast_id,
            query.user_id,
            query.wedding_id,
            query.time.start,
            query.time.end,
            below,
            size,
        )
        return [_entry(row) for row in rows]


class AuditChain:
    """The audit log as the sender keeps it, as the worker's login."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, source: str, events: Sequence[AuditEvent]) -> None:
        """Add what a service has seen, in order, each event once however often it is told."""
        columns = zip(*map(_values, events), strict=True)
        await self._database.execute(_QUERIES["record_audit_events"], source, *map(list, columns))

    async def read_after(self, position: int, limit: int) -> list[AuditEntry]:
        """The next entries of the chain, none at its end."""
        rows = await self._database.fetch(_QUERIES["read_audit_chain"], position, limit)
        return [_entry(row) for row in rows]

    async def find_hash(self, position: int) -> bytes | None:
        """The hash of the entry at a position, None when there is none."""
        found: bytes | None = await self._database.fetchval(_QUERIES["find_audit_hash"], position)
        return found

    async def find_end(self) -> int:
        """The position of the last entry; 0 while there is none."""
        return await self._database.fetchval(_QUERIES["find_audit_end"]) or 0

    async def add_checkpoint(self) -> Checkpoint | None:
        """Keep what the end of the log is; None when that is on record, or the log is empty."""
        row = await self._database.fetchrow(_QUERIES["add_audit_checkpoint"])
        return None if row is None else Checkpoint(row["position"], row["hash"])

    async def checkpoints(self, after: int, through: int) -> dict[int, bytes]:
        """The hashes on record of a part of the log, by position."""
        rows = await self._database.fetch(_QUERIES["list_audit_checkpoints"], after, through)
        return {row["position"]: row["hash"] for row in rows}

    async def last_checkpoint(self) -> int:
        """The position up to which the log goes at least; 0 while nothing is known."""
        return await self._database.fetchval(_QUERIES["find_last_audit_checkpoint"]) or 0


def _values(event: AuditEvent) -> tuple[object, ...]:
    """The columns that another service fills, from `event_id` to `segment_id`."""
    return (
        event.event_id,
        event.at,
        event.actor,
        event.action,
        event.user_id,
        event.wedding_id,
        event.role_before,
        event.role_after,
        event.method,
        event.attempts,
        event.segment_id,
    )


def _entry(row: Row) -> AuditEntry:
    event = AuditEvent(
        event_id=row["event_id"],
        at=row["at"],
        source=row["source"],
        actor=row["actor"],
        action=row["action"],
        broadcast_id=row["broadcast_id"],
        broadcast_type=row["broadcast_type"],
        targeted=row["targeted"],
        retract=row["retract"],
        stopped=row["stopped"],
        already_sent=row["already_sent"],
        user_id=row["user_id"],
        wedding_id=row["wedding_id"],
        role_before=row["role_before"],
        role_after=row["role_after"],
        method=row["method"],
        attempts=row["attempts"],
        segment_id=row["segment_id"],
    )
    return AuditEntry(
        row["position"], row["format"], row["recorded_at"], event, row["previous_hash"], row["hash"]
    )
