"""Migrations on a real Postgres: applied once, in one piece, by the owner, whoever else is starting."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from shared.migrations import MigrationError, migrate
from tests.integration.shared.schemas import make_schema

Connection = asyncpg.Connection


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    """An administrator's connection to a database with an empty schema `florist` and its owner."""
    connection = await asyncpg.connect(database_url)
    await make_schema(connection, "florist")
    yield connection
    await connection.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two migrations: a table, and a column more."""
    write(
        tmp_path,
        "0001_add_orders.sql",
        "-- Orders are what a florist works on.\nCREATE TABLE orders (id int);\n",
    )
    write(tmp_path, "0002_add_due.sql", "-- Late flowers are no flowers.\nALTER TABLE orders ADD due date;\n")
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    """Put a migration there."""
    (folder / name).write_text(text, encoding="utf-8")


async def columns(connection: Connection) -> list[str]:
    """The columns that orders has."""
    rows = await connection.fetch(
        "SELECT column_name AS name FROM information_schema.columns"
        " WHERE table_schema = 'florist' AND table_name = 'orders' ORDER BY ordinal_position"
    )
    return [row["name"] for row in rows]


async def test_missing_ones_are_applied_and_only_once(connection: Connection, files: Path) -> None:
    """The first call applies both, a second none, and a third file alone is applied later."""
    assert await migrate(connection, "florist", files) == ["0001_add_orders.sql", "0002_add_due.sql"]
    assert await migrate(connection, "florist", files) == []
    write(files, "0003_add_vase.sql", "-- Some bring their own.\nALTER TABLE orders ADD vase text;\n")
    assert await migrate(connection, "florist", files) == ["0003_add_vase.sql"]
    assert await columns(connection) == ["id", "due", "vase"]


async def test_everything_belongs_to_the_owner(connection: Connection, files: Path) -> None:
    """Tables are the owner role's, in the service's schema, and the connection is itself again afterwards."""
    await migrate(connection, "florist", files)
    owners = await connection.fetch(
        "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'florist'"
    )
    assert {(row["tablename"], row["tableowner"]) for row in owners} == {
        ("orders", "florist_owner"),
        ("schema_migrations", "florist_owner"),
    }
    assert await connection.fetchval("SELECT current_user = session_user")


async def test_an_edited_file_is_refused(connection: Connection, files: Path) -> None:
    """What was applied must stay as it was, even when only a comment changes."""
    await migrate(connection, "florist", files)
    write(files, "0001_add_orders.sql", "-- Orders.\nCREATE TABLE orders (id int);\n")
    with pytest.raises(MigrationError, match=r"0001_add_orders\.sql: changed after it was applied"):
        await migrate(connection, "florist", files)


async def test_a_removed_file_is_told(connection: Connection, files: Path) -> None:
    """A schema that is ahead of its files is no match for this code."""
    await migrate(connection, "florist", files)
    (files / "0002_add_due.sql").unlink()
    with pytest.raises(MigrationError, match=r"the schema also has 0002_add_due\.sql"):
        await migrate(connection, "florist", files)


async def test_a_failing_file_changes_nothing_and_names_the_line(connection: Connection, files: Path) -> None:
    """The statements before the failing one are rolled back with it; earlier files stay."""
    write(
        files,
        "0003_add_more.sql",
        "-- More.\nALTER TABLE orders ADD more text;\nALTER TABLE orders ALTER COLUMN nowhere SET NOT NULL;\n",
    )
    with pytest.raises(MigrationError, match=r'0003_add_more\.sql.*"nowhere"'):
        await migrate(connection, "florist", files)
    assert await columns(connection) == ["id", "due"]
    write(files, "0003_add_more.sql", "-- More.\nALTER TABLE orders ADD more text;\n\nSELECT\n  nope;\n")
    with pytest.raises(MigrationError, match=r'0003_add_more\.sql:5: .*"nope"'):
        await migrate(connection, "florist", files)


async def test_several_may_start_at_once(database_url: str, connection: Connection, files: Path) -> None:
    """Four processes that migrate together apply each file once."""
    others = [await asyncpg.connect(database_url) for _ in range(4)]
    try:
        applied = await asyncio.gather(*(migrate(other, "florist", files) for other in others))
    finally:
        for other in others:
            await other.close()
    assert sorted(name for names in applied for name in names) == ["0001_add_orders.sql", "0002_add_due.sql"]
    assert await columns(connection) == ["id", "due"]


async def test_a_missing_owner_is_told(connection: Connection, files: Path) -> None:
    """Roles are made by an administrator first; without them the error names the role."""
    with pytest.raises(MigrationError, match="baker_owner"):
        await migrate(connection, "baker", files)
