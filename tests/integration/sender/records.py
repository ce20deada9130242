"""Broadcasts put on record without being sent, so that a test may choose when, by whom and in which state."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
_ADD = """
    INSERT INTO sender.broadcasts (
        broadcast_id, type, priority, title, message, everyone, user_ids, roles, tiers, segment_ids, wedding_ids,
        scheduled_for, created_by, created_by_service, created_at, targeted, state, sent_at, failed_at, error,
        cancel_requested_at, cancelled_at, stopped, already_sent, decided_by, decided_at
    )
    SELECT
        $1, $2, $3, 't', 'm', true, '{}', '{}', '{}', '{}', $4, $5, $6, false, given.at, 1,
        given.state::sender.broadcast_state,
        CASE given.state WHEN 'sent' THEN given.at END,
        CASE given.state WHEN 'failed' THEN given.at END,
        CASE given.state WHEN 'failed' THEN 'INTERNAL: x' ELSE '' END,
        CASE given.state WHEN 'cancelled' THEN given.at END,
        CASE given.state WHEN 'cancelled' THEN given.at END,
        CASE given.state WHEN 'cancelled' THEN 0 END,
        CASE given.state WHEN 'cancelled' THEN 0 END,
        CASE given.state WHEN 'rejected' THEN 'reviewer' END,
        CASE given.state WHEN 'rejected' THEN given.at END
    FROM (SELECT $7::timestamptz AS at, $8::text AS state) AS given
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A broadcast as it is put on record."""

    created_by: str
    created_at: datetime = NOON
    scheduled_for: datetime | None = None
    type: str = "form.locked"
    priority: int = 3
    state: str = "sent"
    wall: tuple[str, ...] = ()
    broadcast_id: UUID = field(default_factory=uuid4)

    @property
    def due_at(self) -> datetime:
        """When it is due: at once, unless it was scheduled."""
        return self.scheduled_for or self.created_at


async def put_on_record(admin: asyncpg.Connection, recorded: Iterable[Recorded]) -> None:
    """Add them, with their walls."""
    recorded = list(recorded)
    await admin.executemany(
        _ADD,
        [
            (
                each.broadcast_id,
                each.type,
                each.priority,
                each.wall,
                each.due_at,
                each.created_by,
                each.created_at,
                each.state,
            )
            for each in recorded
        ],
    )
    await admin.executemany(
        "INSERT INTO sender.walls (broadcast_id, wedding_id) VALUES ($1, $2)",
        [(each.broadcast_id, wedding_id) for each in recorded for wedding_id in each.wall],
    )


async def forget_all(admin: asyncpg.Connection) -> None:
    """Nothing was ever sent."""
    await admin.execute("DELETE FROM sender.broadcasts")
