"""The dispatcher's tables refuse what must not be, whoever writes it."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.dispatcher.domain import ChunkState, DispatchState

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 22, 13, tzinfo=UTC)
SOURCE = Path(__file__).read_text(encoding="utf-8")
BROADCAST = UUID("0b1c4f2e-6a52-4b65-9c7e-5f3a9d1e2c40")
WEDDING = UUID("a3c1d6c2-0f57-4b0e-8f0c-7f8a0f3a7b11")

DISPATCH = {
    "broadcast_id": BROADCAST,
    "priority": 3,
    "state": "dispatching",
    "type": "feature.released",
    "category": "system",
    "essential": False,
    "wall": [],
    "directory_version": 1,
    "decide_time": NOW,
    "targeted": 5,
    "begin_time": NOW,
    "plan_time": NOW,
}
CHUNK = {
    "broadcast_id": BROADCAST,
    "chunk": 0,
    "priority": 3,
    "kind": "item",
    "state": "pending",
    "members": b"bitmap",
    "size": 5,
    "decided_version": 1,
    "decided_at": NOW,
    "looked_at": NOW,
    "epoch": 0,
}
LEASED = {"state": "leased", "epoch": 1, "lease_until": NOW}
SUPPRESSED = {"kind": "none", "state": "suppressed", "channel": "in_app", "reason": "erased"}
TOMBSTONE = {
    "broadcast_id": BROADCAST,
    "at": NOW,
    "planned": True,
    "stopped": 1,
    "in_flight": 1,
    "targeted": 2,
}
ATTEMPT = {"broadcast_id": BROADCAST, "attempts": 1, "at": NOW}
LETTER = {"subject": "broadcast.due.high", "broadcast_id": BROADCAST, "error": "DEFECT", "at": NOW}


async def insert(connection: asyncpg.Connection, table: str, row: dict[str, object]) -> None:
    """Add a row."""
    columns = ", ".join(row)
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({places})"  # noqa: S608  # names of this file
    await connection.execute(statement, *row.values())


@pytest.mark.parametrize(
    ("constraint", "broken"),
    [
        ("priority_is_known", {"priority": 0}),
        ("priority_is_known", {"priority": 5}),
        ("state_is_known", {"state": "sent", "close_time": NOW}),
        ("type_is_a_name", {"type": "Feature released"}),
        ("type_is_a_name", {"type": "a." + "b" * 64}),
        ("category_is_known", {"category": "gossip"}),
        ("wall_names_weddings", {"wall": [None]}),
        ("wedding_is_in_the_wall", {"wedding_id": WEDDING}),
        ("version_is_a_place", {"directory_version": -1}),
        ("targeted_is_a_count", {"targeted": -1}),
        ("next_chunk_is_a_number", {"next_chunk": -1}),
        ("times_are_in_order", {"begin_time": LATER}),
        ("times_are_in_order", {"state": "closed", "close_time": datetime(2026, 11, 22, 11, tzinfo=UTC)}),
        ("close_has_its_time", {"close_time": NOW}),
        ("close_has_its_time", {"state": "closed"}),
        ("only_closed_ones_are_forgotten", {"forgotten_at": NOW}),
        ("only_closed_ones_are_forgotten", {"state": "closed", "close_time": LATER, "forgotten_at": NOW}),
        ("expired_means_nobody", {"state": "expired", "close_time": NOW}),
        ("expired_means_nobody", {"state": "expired", "close_time": NOW, "targeted": 0, "next_chunk": 1}),
    ],
)
@pytest.mark.usefixtures("empty")
async def test_an_impossible_dispatch_is_refused(
    admin: asyncpg.Connection, constraint: str, broken: dict[str, object]
) -> None:
    """Each rule of a dispatch is the schema's too, and the row is legal but for that one rule."""
    await insert(admin, "dispatches", DISPATCH)
    await admin.execute("DELETE FROM dispatches")
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(admin, "dispatches", {**DISPATCH, **broken})
    assert refused.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("constraint", "broken"),
    [
        ("chunk_is_a_number", {"chunk": -1}),
        ("kind_is_known", {"kind": "email"}),
        ("chunk_state_is_known", {"state": "sent"}),
        ("channel_is_known", {**SUPPRESSED, "channel": "pigeon"}),
        ("reason_is_known", {**SUPPRESSED, "reason": "bored"}),
        ("nothing_is_sent_to_the_suppressed", {**SUPPRESSED, "state": "pending"}),
        ("nothing_is_sent_to_the_suppressed", {"state": "suppressed"}),
        ("suppressed_has_its_reason", {**SUPPRESSED, "reason": None}),
        ("suppressed_has_its_reason", {"channel": "in_app"}),
        ("only_alerts_wait", {"release_at": NOW}),
        ("held_until_a_time", {"kind": "alert", "state": "held"}),
        ("members_are_there", {"members": b""}),
        ("members_are_there", {"size": 0}),
        ("what_is_sent_is_small", {"size": 65_537}),
        ("decided_at_a_place", {"decided_version": -1}),
        ("turn_is_a_place", {"turn": -1}),
        ("leased_until_a_time", {**LEASED, "lease_until": None}),
        ("leased_until_a_time", {"lease_until": NOW}),
        ("epoch_counts_what_was_sent", {"epoch": 1}),
        ("epoch_counts_what_was_sent", {**LEASED, "epoch": 0}),
        ("epoch_counts_what_was_sent", {"state": "done"}),
        ("epoch_counts_what_was_sent", {"state": "cancelled", "epoch": -1}),
    ],
)
@pytest.mark.usefixtures("empty")
async def test_an_impossible_chunk_is_refused(
    admin: asyncpg.Connection, constraint: str, broken: dict[str, object]
) -> None:
    """Each rule of a chunk is the schema's too."""
    await insert(admin, "dispatches", DISPATCH)
    for number, legal in enumerate([{}, LEASED, SUPPRESSED]):
        await insert(admin, "chunks", {**CHUNK, **legal, "chunk": number + 1})
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(admin, "chunks", {**CHUNK, **broken})
    assert refused.value.constraint_name == constraint


@pytest.mark.usefixtures("empty")
async def test_a_chunk_has_a_dispatch_of_its_priority(admin: asyncpg.Connection) -> None:
    """A chunk cannot run in another lane than its broadcast, nor without one."""
    await insert(admin, "dispatches", DISPATCH)
    for broken in ({"priority": 1}, {"broadcast_id": uuid4()}):
        with pytest.raises(asyncpg.ForeignKeyViolationError) as refused:
            await insert(admin, "chunks", {**CHUNK, **broken})
        assert refused.value.constraint_name == "chunk_of_a_dispatch"


@pytest.mark.parametrize(
    ("constraint", "table", "legal", "broken"),
    [
        ("counts_are_counts", "tombstones", TOMBSTONE, {"stopped": -1}),
        ("counts_are_counts", "tombstones", TOMBSTONE, {"in_flight": -1}),
        ("stopped_were_targeted", "tombstones", TOMBSTONE, {"stopped": 3}),
        ("stopped_were_targeted", "tombstones", TOMBSTONE, {"in_flight": 3}),
        ("without_a_plan_nobody", "tombstones", TOMBSTONE, {"planned": False}),
        ("attempts_are_counted", "plan_attempts", ATTEMPT, {"attempts": 0}),
        ("subject_is_one", "dead_letters", LETTER, {"subject": "a title"}),
        ("error_is_a_word", "dead_letters", LETTER, {"error": "no such person: Amara"}),
        ("chunk_of_a_broadcast", "dead_letters", LETTER, {"broadcast_id": None, "chunk": 1}),
        ("chunk_of_a_broadcast", "dead_letters", LETTER, {"chunk": -1}),
        ("times_are_counted", "dead_letters", LETTER, {"times": 0}),
    ],
)
@pytest.mark.usefixtures("empty")
async def test_an_impossible_record_is_refused(
    admin: asyncpg.Connection,
    constraint: str,
    table: str,
    legal: dict[str, object],
    broken: dict[str, object],
) -> None:
    """Tombstones, attempts and dead letters have rules as well."""
    await insert(admin, table, legal)
    await admin.execute(f"DELETE FROM {table}")  # noqa: S608  # a name of this file
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await insert(admin, table, {**legal, **broken})
    assert refused.value.constraint_name == constraint


async def test_every_rule_of_the_schema_is_provoked_here(admin: asyncpg.Connection) -> None:
    """A CHECK that no test breaks may be one that cannot fail."""
    checks = await admin.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text = ANY ($1)",
        ["dispatches", "chunks", "tombstones", "plan_attempts", "dead_letters"],
    )
    assert [row["conname"] for row in checks if f'("{row["conname"]}"' not in SOURCE] == []


def test_the_states_that_the_schema_knows_are_the_domains() -> None:
    """The migration spells the same words as the domain."""
    text = Path("services/dispatcher/migrations/0002_dispatches.sql").read_text(encoding="utf-8")
    assert ", ".join(f"'{state}'" for state in DispatchState) in text
    assert all(f"'{state}'" in text for state in ChunkState)
