"""The audit log can be added to and read, and nobody can do anything else to it; leaks.py has its policies."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from stack.provision import SuiteDatabase
from tests.integration.sender.test_policies import ME, Tables

ADD_ENTRY = "INSERT INTO audit_log (at, actor, action) VALUES (now(), $1, 'erased')"


@pytest.fixture
async def tables(sender_database: SuiteDatabase) -> AsyncIterator[Tables]:
    """The tables, whatever is in them; what a test does to them is forgotten."""
    admin = await asyncpg.connect(sender_database.admin_url)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("SET LOCAL search_path TO sender")
    yield Tables(admin)
    await transaction.rollback()
    await admin.close()


async def test_chain_is_continued_by_who_may_not_read_it(tables: Tables) -> None:
    """By read_the_end, for the function that chains; without it an entry would begin the chain anew, and cannot."""
    await tables.admin.execute(ADD_ENTRY, ME)
    async with tables.role("sender_api", caller=ME) as connection:
        await connection.execute(ADD_ENTRY, ME)
        assert await connection.fetchval("SELECT count(*) FROM audit_log") == 0
    await tables.drop("read_the_end", "audit_log")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with tables.role("sender_api", caller=ME) as connection:
            await connection.execute(ADD_ENTRY, ME)


@pytest.mark.parametrize("table", ["audit_log", "audit_checkpoints"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET hash = hash", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("role", ["sender_api", "sender_worker", "sender_owner", "postgres"])
async def test_audit_log_is_only_added_to(tables: Tables, role: str, table: str, statement: str) -> None:
    """The logins have no right to anything else, and what their owner or a superuser does is refused too."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
        async with tables.role(role, caller=ME, reads_audit="true") as connection:
            await connection.execute(statement.format(table))
    by_trigger = "is only added to" in str(refused.value)
    assert by_trigger == (role in ("sender_owner", "postgres"))


PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")


@pytest.mark.parametrize(
    ("table", "role", "rights"),
    [
        ("audit_log", "sender_api", {"INSERT", "SELECT"}),
        ("audit_log", "sender_worker", {"INSERT", "SELECT"}),
        ("audit_checkpoints", "sender_api", set()),
        ("audit_checkpoints", "sender_worker", {"INSERT", "SELECT"}),
    ],
)
async def test_login_adds_to_the_audit_log_and_reads_it(
    tables: Tables, table: str, role: str, rights: set[str]
) -> None:
    """And has no other right to it, whether or not anybody uses it."""
    rows = await tables.admin.fetch(
        "SELECT name, has_table_privilege($1, $2, name) AS has FROM unnest($3::text[]) AS privilege (name)",
        role,
        table,
        list(PRIVILEGES),
    )
    assert {row["name"] for row in rows if row["has"]} == rights
