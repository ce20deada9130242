"""What the dispatcher's tests stand on: its schema in a fresh database, under its two logins."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from services.dispatcher.call_store import CallStore
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.store import DispatchStore, LeaseTerms
from shared.database import Database, connect
from shared.provisioning import provision
from stack import permissions
from stack.nats import NatsAccess, NatsServer
from stack.ports import Ports
from stack.processes import start
from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite
from tests.integration.dispatcher.site import Site, site

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
    """An administrator in the dispatcher's schema, before whom no policy stands."""
    connection = await asyncpg.connect(suite.admin_url, server_settings={"search_path": "dispatcher"})
    yield connection
    await connection.close()


@pytest.fixture
async def empty(admin: asyncpg.Connection) -> None:
    """Nothing in the tables."""
    await admin.execute("TRUNCATE dispatches, chunks, tombstones, plan_attempts, dead_letters, outbox")
    await admin.execute("UPDATE release_pace SET second = 'epoch', released = 0")


@pytest.fixture
def store(worker: Database, empty: None) -> DispatchStore:
    """The worker's rows, in empty tables."""
    return DispatchStore(worker, TERMS, told=lambda: None)


@pytest.fixture
def holds(worker: Database, empty: None) -> HoldStore:
    """What is held, in empty tables."""
    return HoldStore(worker)


@pytest.fixture
def calls(caller: Database) -> CallStore:
    """The rows as calls see them."""
    return CallStore(caller)


@pytest.fixture(scope="module")
async def own_nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsAccess]:
    """A NATS server with the suite's users, streams and consumers, where nobody else's messages come."""
    folder = tmp_path_factory.mktemp("dispatcher-nats")
    users = permissions.users(lambda name: f"secret-of-{name}")
    server = NatsServer(folder / "nats", folder, Ports(folder / "ports.json").choose("nats"), users)
    running = start(server)
    access = server.access
    provisioner = permissions.PROVISIONER
    await provision(access.url, user=provisioner, password=access.passwords[provisioner])
    yield access
    running.stop()


@pytest.fixture(scope="module")
async def surroundings(
    suite: SuiteDatabase, own_nats: NatsAccess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """Stand-ins for the dispatcher's neighbours; tests start dispatchers among them."""
    folder: Path = tmp_path_factory.mktemp("dispatcher-site")
    async with site(suite, own_nats, folder) as surroundings:
        yield surroundings


@pytest.fixture(autouse=True)
def _opened_inbox(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the inbox open, and one that failed with it closed lets everything end."""
    if "surroundings" not in request.fixturenames:
        yield
        return
    surroundings: Site = request.getfixturevalue("surroundings")
    yield
    surroundings.inbox.is_open.set()
