"""What the inbox's tables refuse by themselves, whoever writes to them."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.integration.inbox.stores import Stores

NIL = UUID(int=0)
WEDDING = uuid4()
BROADCAST: dict[str, Any] = {
    "broadcast_id": uuid4(),
    "type": "feature.released",
    "category": 1,
    "priority": 3,
    "title": "t",
    "message": "m",
    "wall": [NIL],
    "words": "",
}
LEFT: dict[str, Any] = {
    **BROADCAST,
    "broadcast_id": uuid4(),
    "kept_at": "now",
    "hidden": True,
    "left_at": "now",
}
ARRIVAL: dict[str, Any] = {
    "broadcast_id": BROADCAST["broadcast_id"],
    "chunk": 0,
    "kind": "item",
    "recipients": 1,
    "position": 1_000_000_000,
    "arrived_at": "now",
}
REQUEST: dict[str, Any] = {
    "caller": "somebody",
    "method": "MarkAllRead",
    "request_id": uuid4(),
    "body_hash": f"\\x{bytes(32).hex()}",
    "response": "\\x",
    "is_whole": True,
    "at": "now",
}
ARRANGEMENT: dict[str, Any] = {"recipient_number": 1, "broadcast_id": uuid4(), "position": 1}
RECEIPT: dict[str, Any] = {"recipient_number": 1, "broadcast_id": uuid4(), "read_at": "now"}


@pytest.fixture
async def tables(stores: Stores) -> AsyncIterator[asyncpg.Connection]:
    """An administrator's connection, whose changes are forgotten after the test."""
    transaction = stores.admin.transaction()
    await transaction.start()
    await insert(stores.admin, "broadcasts", BROADCAST)
    yield stores.admin
    await transaction.rollback()


async def insert(tables: asyncpg.Connection, table: str, row: dict[str, Any], **changes: object) -> None:
    """Add a good row with some columns otherwise."""
    values = row | changes
    columns = ", ".join(values)
    record = ", ".join(f"(r).{column}" for column in values)
    await tables.execute(
        f"INSERT INTO {table} ({columns}) SELECT {record} "  # noqa: S608 names of ours
        f"FROM (SELECT jsonb_populate_record(NULL::{table}, $1::jsonb) AS r) AS given",
        _json(values),
    )


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, default=str)


@pytest.mark.parametrize(
    ("table", "row", "changes"),
    [
        ("broadcasts", BROADCAST, {}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "type": ""}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "wall": []}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "wall": [None]}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "priority": 0}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "category": 0}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "action_label": "without url"}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "couple_name": "of no wedding"}),
        ("broadcasts", BROADCAST, {"broadcast_id": uuid4(), "wedding_id": WEDDING}),
        ("broadcasts", LEFT, {"hidden": False}),
        ("broadcasts", LEFT, {"left_at": None, "emptied_at": "now"}),
        ("broadcasts", LEFT, {"emptied_at": "yesterday"}),
        ("broadcasts", LEFT, {"delivered": 1}),
        ("broadcasts", LEFT, {"emptied_at": "now", "delivered": 1}),
        ("broadcasts", LEFT, {"emptied_at": "now", "priority": 1}),
        ("arrivals", ARRIVAL, {"broadcast_id": uuid4()}),
        ("arrivals", ARRIVAL, {"chunk": -1}),
        ("arrivals", ARRIVAL, {"kind": "letter"}),
        ("arrivals", ARRIVAL, {"kind": "alert"}),
        ("arrivals", ARRIVAL, {"position": 0}),
        ("receipts", RECEIPT, {"read_at": None}),
        ("receipts", RECEIPT, {"clicked_at": "now"}),
        ("receipts", RECEIPT, {"recipient_number": -1}),
        ("arrangements", ARRANGEMENT, {"recipient_number": -1}),
        ("arrangements", ARRANGEMENT, {"position": 0}),
        ("arrangements", ARRANGEMENT, {"snoozed_until": "infinity"}),
        ("watermarks", {"recipient_number": 1, "position": 0, "at": "now"}, {}),
        ("team_members", {"wedding_id": WEDDING, "recipient_number": -1}, {}),
        ("teams", {"wedding_id": WEDDING, "version": 0}, {}),
        ("recipients", {"user_id": uuid4(), "number": -1}, {}),
        ("changes", {"recipient_number": 1, "position": 0}, {}),
        ("retractions", {"broadcast_id": uuid4(), "position": 0, "retracted_at": "now"}, {}),
        ("requests", REQUEST, {"body_hash": "\\x00"}),
        ("requests", REQUEST, {"caller": None}),
        ("log", {"position": 2**60, "kind": "rumour", "body": "\\x", "at": "now"}, {}),
    ],
)
async def test_rows_that_cannot_be_are_refused(
    tables: asyncpg.Connection, table: str, row: dict[str, Any], changes: dict[str, object]
) -> None:
    """Each breaks one rule that the schema itself keeps."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await insert(tables, table, row, **changes)


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("arrivals", ARRIVAL),
        ("receipts", RECEIPT),
        ("arrangements", ARRANGEMENT),
        ("requests", REQUEST),
        ("broadcasts", LEFT | {"emptied_at": "now"}),
    ],
)
async def test_good_rows_are_taken(tables: asyncpg.Connection, table: str, row: dict[str, Any]) -> None:
    """So that the rules above are what refuses the others; each is there once."""
    await insert(tables, table, row)
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(tables, table, row)


async def test_a_block_has_as_many_bits_as_it_has_numbers(tables: asyncpg.Connection) -> None:
    """Neither more nor fewer."""
    with pytest.raises(asyncpg.StringDataLengthMismatchError):
        await tables.execute(
            "INSERT INTO blocks (block, position, broadcast_id, silent, arrived_at, members) "
            "VALUES (1, 1, gen_random_uuid(), false, now(), B'101')"
        )


async def test_two_numbers_never_belong_to_one_person_nor_one_to_two(tables: asyncpg.Connection) -> None:
    """A number never changes."""
    user_id = uuid4()
    await insert(tables, "recipients", {"user_id": user_id, "number": 1_999_999_000})
    for row in ({"user_id": user_id, "number": 1_999_999_001}, {"user_id": uuid4(), "number": 1_999_999_000}):
        savepoint = tables.transaction()
        await savepoint.start()
        with pytest.raises(asyncpg.UniqueViolationError):
            await insert(tables, "recipients", row)
        await savepoint.rollback()
