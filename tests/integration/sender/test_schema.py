"""What the sender's tables refuse by themselves, whoever writes to them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from stack.provision import SuiteDatabase

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WEDDING, OTHER = uuid4(), uuid4()
GOOD: dict[str, Any] = {
    "type": "feature.released",
    "priority": 3,
    "title": "New seating plans",
    "message": "Try them.",
    "everyone": True,
    "user_ids": [],
    "roles": [],
    "tiers": [],
    "segment_ids": [],
    "wedding_ids": [],
    "scheduled_for": NOW,
    "created_by": "billing",
    "created_by_service": True,
    "created_at": NOW,
    "targeted": 10,
    "state": "pending",
}
CANCELLED = {
    "state": "cancelled",
    "cancel_requested_at": NOW,
    "cancelled_at": NOW,
    "stopped": 3,
    "already_sent": 7,
}


DECIDED = {"decided_by": "somebody else", "decided_at": NOW}


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


async def insert(tables: asyncpg.Connection, **changes: object) -> None:
    """Add the good broadcast with some columns otherwise."""
    row = GOOD | {"broadcast_id": uuid4()} | changes
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await tables.execute(
        f"INSERT INTO broadcasts ({', '.join(row)}) VALUES ({places})",  # noqa: S608 names of ours
        *row.values(),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"title": "x" * 200, "message": "y" * 1000},
        {"title": "💐" * 200},
        {"action_label": "Open", "action_url": "/weddings"},
        {"everyone": False, "wedding_id": WEDDING},
        {"everyone": False, "wedding_ids": [WEDDING], "wedding_id": WEDDING, "couple_name": "A & B"},
        {"everyone": False, "user_ids": [uuid4() for _ in range(1000)]},
        {"expires_at": NOW + timedelta(seconds=1)},
        {"state": "sent", "sent_at": NOW},
        {"state": "failed", "failed_at": NOW, "error": "SENDER_LOST_RIGHT: no."},
        {"cancel_requested_at": NOW, "cancel_reason": "wrong date"},
        CANCELLED,
        CANCELLED | {"sent_at": NOW, "retract": True, "retracted": True},
        {"state": "awaiting_approval"},
        DECIDED | {"decision_reason": "x" * 500},
        DECIDED | {"state": "rejected"},
        DECIDED | {"state": "sent", "sent_at": NOW},
    ],
)
async def test_what_may_be_is_kept(tables: asyncpg.Connection, changes: dict[str, object]) -> None:
    """The rows that the others are one step away from."""
    await insert(tables, **changes)
    assert await tables.fetchval("SELECT count(*) FROM broadcasts WHERE created_at = $1", NOW) == 1


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("type_is_a_name", {"type": "Feature released"}),
        ("type_is_a_name", {"type": "feature"}),
        ("type_is_a_name", {"type": "a." + "b" * 63}),
        ("priority_is_known", {"priority": 0}),
        ("priority_is_known", {"priority": 5}),
        ("title_has_its_length", {"title": ""}),
        ("title_has_its_length", {"title": "x" * 201}),
        ("message_has_its_length", {"message": ""}),
        ("message_has_its_length", {"message": "x" * 1001}),
        ("action_is_whole", {"action_label": "Open"}),
        ("action_is_whole", {"action_url": "/"}),
        ("action_has_its_length", {"action_label": "x" * 51, "action_url": "/"}),
        ("action_has_its_length", {"action_label": "Open", "action_url": "/" + "x" * 2048}),
        ("targeting_means_somebody", {"everyone": False}),
        ("everyone_stands_alone", {"roles": ["florist"]}),
        ("everyone_stands_alone", {"segment_ids": [OTHER]}),
        ("targeting_is_bounded", {"everyone": False, "user_ids": [uuid4() for _ in range(1001)]}),
        ("wall_is_its_wedding", {"wedding_id": WEDDING, "wedding_ids": [OTHER]}),
        ("wall_is_its_wedding", {"wedding_id": WEDDING, "wedding_ids": [WEDDING, OTHER]}),
        ("wedding_facts_have_a_wedding", {"couple_name": "A & B"}),
        ("wedding_facts_have_a_wedding", {"wedding_date": NOW.date()}),
        ("scheduled_after_creation", {"scheduled_for": NOW - timedelta(seconds=1)}),
        ("expires_after_schedule", {"expires_at": NOW}),
        ("author_has_a_name", {"created_by": ""}),
        ("targeted_is_a_count", {"targeted": -1}),
        ("sent_has_its_time", {"state": "sent"}),
        ("sent_has_its_time", {"sent_at": NOW}),
        ("sent_has_its_time", {"state": "dispatching", "sent_at": NOW}),
        ("failure_has_time_and_reason", {"state": "failed"}),
        ("failure_has_time_and_reason", {"state": "failed", "failed_at": NOW}),
        ("failure_has_time_and_reason", {"failed_at": NOW, "error": "no"}),
        ("failure_has_time_and_reason", {"state": "sent", "sent_at": NOW, "error": "no"}),
        ("cancel_was_asked_for", {"cancel_reason": "wrong date"}),
        ("cancel_was_asked_for", {"retract": True}),
        ("cancel_was_asked_for", CANCELLED | {"cancel_requested_at": None}),
        ("cancelled_has_its_record", CANCELLED | {"stopped": None}),
        ("cancelled_has_its_record", CANCELLED | {"cancelled_at": None}),
        ("cancelled_has_its_record", CANCELLED | {"state": "pending"}),
        ("cancel_counts_are_counts", CANCELLED | {"stopped": -1}),
        ("cancel_counts_are_counts", CANCELLED | {"already_sent": -1}),
        ("retracted_was_cancelled", CANCELLED | {"retracted": True}),
        ("retracted_was_cancelled", {"cancel_requested_at": NOW, "retract": True, "retracted": True}),
        ("decider_is_another", DECIDED | {"decided_by": GOOD["created_by"]}),
        ("decider_has_a_name", DECIDED | {"decided_by": ""}),
        ("decision_is_whole", {"decided_by": "somebody else"}),
        ("decision_is_whole", {"decided_at": NOW}),
        ("decision_reason_has_a_decision", {"decision_reason": "no"}),
        ("decision_reason_has_its_length", DECIDED | {"decision_reason": "x" * 501}),
        ("decision_fits_state", DECIDED | {"state": "awaiting_approval"}),
        ("decision_fits_state", {"state": "rejected"}),
    ],
)
async def test_what_cannot_be_is_refused(
    tables: asyncpg.Connection, constraint: str, changes: dict[str, object]
) -> None:
    """Each invariant by its name."""
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(tables, **changes)
    assert refused.value.constraint_name == constraint


async def test_every_constraint_is_provoked_here(tables: asyncpg.Connection) -> None:
    """A new CHECK without a test of it fails this one."""
    rows = await tables.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'broadcasts'::regclass"
    )
    marks = test_what_cannot_be_is_refused.pytestmark
    assert {row["conname"] for row in rows} == {case[0] for case in marks[0].args[1]}


async def test_unknown_state_is_refused(tables: asyncpg.Connection) -> None:
    """The states are those of the contract."""
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await insert(tables, state="paused")


async def test_broadcast_is_there_once(tables: asyncpg.Connection) -> None:
    """An id is never given twice."""
    broadcast_id = uuid4()
    await insert(tables, broadcast_id=broadcast_id)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(tables, broadcast_id=broadcast_id)


async def test_wall_belongs_to_a_broadcast(tables: asyncpg.Connection) -> None:
    """A wedding is there once for a broadcast, goes with it, and is nowhere without one."""
    broadcast_id = uuid4()
    await insert(tables, broadcast_id=broadcast_id)
    wall = "INSERT INTO walls (broadcast_id, wedding_id) VALUES ($1, $2)"
    await tables.execute(wall, broadcast_id, WEDDING)
    for wrong in (broadcast_id, uuid4()):
        with pytest.raises((asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError)):
            async with tables.transaction():
                await tables.execute(wall, wrong, WEDDING)
    await tables.execute("DELETE FROM broadcasts WHERE broadcast_id = $1", broadcast_id)
    assert await tables.fetchval("SELECT count(*) FROM walls WHERE broadcast_id = $1", broadcast_id) == 0


async def test_request_is_answered_once(tables: asyncpg.Connection) -> None:
    """By caller, method and id; and the hash is one."""
    query = (
        "INSERT INTO requests (caller, method, request_id, body_hash, response) VALUES ($1, $2, $3, $4, '')"
    )
    request_id = uuid4()
    for caller, method in (("a", "Send"), ("b", "Send"), ("a", "Cancel")):
        await tables.execute(query, caller, method, request_id, bytes(32))
    with pytest.raises(asyncpg.UniqueViolationError):
        async with tables.transaction():
            await tables.execute(query, "a", "Send", request_id, bytes(32))
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await tables.execute(query, "c", "Send", request_id, bytes(31))
    assert refused.value.constraint_name == "body_hash_is_sha256"


@pytest.mark.parametrize(
    ("constraint", "priority", "ordinal"),
    [
        ("counted_priority_is_known", 0, 1),
        ("counted_priority_is_known", 5, 1),
        ("ordinals_begin_at_one", 3, 0),
    ],
)
async def test_count_is_of_something(
    tables: asyncpg.Connection, constraint: str, priority: int, ordinal: int
) -> None:
    """Of a priority that there is, and the first is number one."""
    query = (
        "INSERT INTO counted_sends (caller, type, priority, wedding_id, at, ordinal) "
        "VALUES ('billing', 'form.locked', $1, $2, now(), $3)"
    )
    await tables.execute(query, 3, WEDDING, 1)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await tables.execute(query, priority, OTHER, ordinal)
    assert refused.value.constraint_name == constraint


async def test_a_moment_counts_one_send(tables: asyncpg.Connection) -> None:
    """Of those that are counted together; others may be sent in the same microsecond."""
    query = (
        "INSERT INTO counted_sends (caller, type, priority, wedding_id, at, ordinal) "
        "VALUES ('billing', 'form.locked', 3, $1, $2, 1)"
    )
    await tables.execute(query, WEDDING, NOW)
    await tables.execute(query, OTHER, NOW)
    with pytest.raises(asyncpg.UniqueViolationError):
        await tables.execute(query, WEDDING, NOW)
