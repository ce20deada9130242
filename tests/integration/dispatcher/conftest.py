"""What the dispatcher's tests stand on: its schema in a fresh database, under its two logins."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.dispatcher.store import DispatchStore, LeaseTerms
from shared.database import Database, connect
from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite

TERMS = LeaseTerms(first_s=5.0, ceiling_s=60.0, fresh_s=0.5)


@pytest.fixture(scope="module")
async def suite(make_suite: MakeSuite) -> SuiteDatabase:
    """A database with the dispatcher's tables, one for each test module."""
    return await make_suite("dispatcher")


@pytest.fixture(scope="module")
async def worker(suite: SuiteDatabase) -> AsyncIterator[Database]:
    """The login that plans, leases and applies."""
    database = await connect(suite.url("dispatcher", "worker"), application_name="test-worker")
    yield database
    await database.close()


@pytest.fixture(scope="module")
async def caller(suite: SuiteDatabase) -> AsyncIterator[Database]:
    """The login that answers calls."""
    database = await connect(suite.url("dispatcher", "api"), application_name="test-api")
    yield database
    await database.close()


@pytest.fixture
async def admin(suite: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """An administrator in the dispatcher's schema, before whom no policy stands; empties its tables first."""
    connection = await asyncpg.connect(suite.admin_url, server_settings={"search_path": "dispatcher"})
    await connection.execute("TRUNCATE dispatches, chunks, tombstones, plan_attempts, dead_letters, outbox")
    yield connection
    await connection.close()


@pytest.fixture
def store(worker: Database, admin: asyncpg.Connection) -> DispatchStore:
    """The worker's rows, in empty tables."""
    return DispatchStore(worker, TERMS, told=lambda: None)
