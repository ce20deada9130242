"""What the tables of the audit log refuse by themselves, whoever writes to them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from stack.provision import SuiteDatabase

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
GOOD: dict[str, object] = {"at": NOON, "actor": "forms", "action": "erased", "user_id": uuid4()}
REFUSED: dict[str, object] = {
    "action": "wall_refused",
    "user_id": None,
    "method": "SenderService/SendBroadcast",
    "attempts": 3,
}


@pytest.fixture
async def tables(sender_database: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's connection, whose changes are forgotten after the test."""
    connection = await asyncpg.connect(sender_database.admin_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SET LOCAL search_path TO sender")
    yield connection
    await transaction.rollback()
    await connection.close()


async def insert(tables: asyncpg.Connection, table: str, row: dict[str, object]) -> None:
    """Add a row."""
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await tables.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})",  # noqa: S608 names of ours
        *row.values(),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        REFUSED,
        REFUSED | {"actor": ""},
        {"broadcast_id": uuid4(), "broadcast_type": "security.alert", "targeted": 0},
        {"role_before": None, "role_after": "admin"},
        {"stopped": 0, "already_sent": 0, "retract": False},
    ],
)
async def test_what_may_be_is_added(tables: asyncpg.Connection, changes: dict[str, object]) -> None:
    """The entries that the others are one step away from."""
    before = await tables.fetchval("SELECT count(*) FROM audit_log")
    await insert(tables, "audit_log", GOOD | changes)
    assert await tables.fetchval("SELECT count(*) FROM audit_log") == before + 1


# What the function that chains sets itself can only be wrong when that is switched off.
@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("audit_position_counts", {"position": 0}),
        ("audit_format_is_known", {"format": 3}),
        ("audit_segment_is_hashed", {"segment_id": uuid4()}),
        ("audit_times_are_times", {"recorded_at": datetime.min.replace(tzinfo=UTC)}),
        ("audit_times_are_times", {"at": datetime(9999, 12, 31, tzinfo=UTC)}),
        ("audit_source_is_a_name", {"source": ""}),
        ("audit_source_is_a_name", {"source": "x" * 65}),
        ("audit_actor_is_named", {"actor": ""}),
        ("audit_actor_is_named", {"actor": "x" * 65}),
        ("audit_action_is_a_slug", {"action": "Erased"}),
        ("audit_attempts_are_refusals", {"method": "x"}),
        ("audit_attempts_are_refusals", {"attempts": 1}),
        ("audit_attempts_are_refusals", REFUSED | {"attempts": None}),
        ("audit_attempts_are_refusals", REFUSED | {"method": None}),
        ("audit_counts_are_counts", {"targeted": -1}),
        ("audit_counts_are_counts", {"stopped": -1}),
        ("audit_counts_are_counts", {"already_sent": -1}),
        ("audit_counts_are_counts", REFUSED | {"attempts": 0}),
        ("audit_hashes_are_sha256", {"hash": bytes(31)}),
        ("audit_hashes_are_sha256", {"previous_hash": bytes(33)}),
    ],
)
async def test_what_cannot_be_is_refused(
    tables: asyncpg.Connection, constraint: str, changes: dict[str, object]
) -> None:
    """Each invariant by its name."""
    chained = {"position": 10**9, "format": 1, "recorded_at": NOON, "previous_hash": bytes(32)}
    row = GOOD | chained | {"hash": bytes(32)} | changes
    await tables.execute("SET LOCAL session_replication_role TO replica")
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(tables, "audit_log", row)
    assert refused.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("constraint", "row"),
    [
        ("checkpoint_position_counts", {"position": 0, "hash": bytes(32)}),
        ("checkpoint_hash_is_sha256", {"position": 1, "hash": bytes(31)}),
    ],
)
async def test_checkpoint_that_cannot_be_is_refused(
    tables: asyncpg.Connection, constraint: str, row: dict[str, object]
) -> None:
    """Each invariant by its name."""
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(tables, "audit_checkpoints", row)
    assert refused.value.constraint_name == constraint


async def test_every_constraint_is_provoked_here(tables: asyncpg.Connection) -> None:
    """A new CHECK without a test of it fails this one."""
    rows = await tables.fetch(
        """
        SELECT conname FROM pg_constraint
        WHERE contype = 'c' AND conrelid IN ('audit_log'::regclass, 'audit_checkpoints'::regclass)
        """
    )
    provoked = {
        case[0]
        for test in (test_what_cannot_be_is_refused, test_checkpoint_that_cannot_be_is_refused)
        for case in test.pytestmark[0].args[1]
    }
    assert {row["conname"] for row in rows} == provoked


async def test_event_is_there_once(tables: asyncpg.Connection) -> None:
    """Whoever tells of it again."""
    event = GOOD | {"event_id": uuid4()}
    await insert(tables, "audit_log", event)
    with pytest.raises(asyncpg.UniqueViolationError) as refused:
        await insert(tables, "audit_log", event)
    assert refused.value.constraint_name == "audit_event_once"
