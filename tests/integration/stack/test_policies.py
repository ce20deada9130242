"""Each policy taken away in a transaction that is rolled back: what it is for ends, and what it prevents leaks."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite
from tests.integration.shared.leaks import Deed, Leak, select, touched
from tests.integration.stack.leaks import LEAKS, ROWS


@pytest.fixture(scope="module")
async def suite(make_suite: MakeSuite) -> SuiteDatabase:
    """All four schemas in one database."""
    return await make_suite()


@pytest.fixture
async def admin(suite: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """An administrator in a transaction that is rolled back with whatever was dropped in it."""
    connection = await asyncpg.connect(suite.admin_url)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.mark.parametrize(
    ("schema", "leak"),
    [
        pytest.param(schema, leak, id=f"{schema}.{leak.table}.{leak.policy}")
        for schema, leaks in LEAKS.items()
        for leak in leaks
    ],
)
async def test_a_policy_lets_in_whom_it_says_and_keeps_the_others_out(
    admin: asyncpg.Connection, schema: str, leak: Leak
) -> None:
    """Without it nobody gets in by another way, and with everybody let in in its place there is the leak."""
    await admin.execute(f"SET LOCAL search_path TO {schema}")
    await admin.execute(ROWS[schema])
    # As if somebody had granted too much: then there is the policy alone.
    await admin.execute(f"GRANT {leak.keeps.statement.split()[0]} ON {leak.table} TO {leak.keeps.login}")
    assert (await touched(admin, leak.lets) > 0, await touched(admin, leak.keeps)) == (True, 0)
    await admin.execute(f"DROP POLICY {leak.policy} ON {leak.table}")
    assert await touched(admin, leak.lets) == 0
    await admin.execute(f"CREATE POLICY {leak.policy} ON {leak.table} USING (true) WITH CHECK (true)")
    assert await touched(admin, leak.keeps) > 0


@pytest.mark.parametrize("schema", LEAKS)
async def test_not_even_the_owner_of_a_table_sees_past_its_policies(
    admin: asyncpg.Connection, schema: str
) -> None:
    """Row level security is forced, and without that whoever owns a table would see all of it."""
    owner = f"{schema}_owner"
    await admin.execute(f"SET LOCAL search_path TO {schema}")
    await admin.execute(ROWS[schema])
    tables = {leak.table for leak in LEAKS[schema]} - {
        leak.table for leak in LEAKS[schema] if leak.lets.login == owner and not leak.lets.settings
    }
    assert {await touched(admin, Deed(owner, select(table))) for table in tables} == {0}
    for table in tables:
        await admin.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        assert await touched(admin, Deed(owner, select(table))) > 0
