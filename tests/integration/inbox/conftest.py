"""The inbox under test: one that serves for each module, because what people see in it is their own anyway."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from stack.nats import NatsAccess
from stack.provision import SuiteDatabase, provision_streams
from tests.integration.inbox.neighbours import Neighbours, neighbours
from tests.integration.inbox.site import Site, serving_site
from tests.integration.inbox.stores import Stores, open_stores


@pytest.fixture(scope="session")
async def inbox_database(make_suite: Callable[..., Awaitable[SuiteDatabase]]) -> SuiteDatabase:
    """A database with the inbox's tables."""
    return await make_suite("inbox")


@pytest.fixture(scope="session")
async def streams(nats_server: NatsAccess) -> NatsAccess:
    """NATS with the suite's streams."""
    await provision_streams(nats_server)
    return nats_server


@pytest.fixture(scope="session")
async def beside() -> AsyncIterator[Neighbours]:
    """The inbox's neighbours."""
    async with neighbours() as running:
        yield running


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory,
    inbox_database: SuiteDatabase,
    streams: NatsAccess,
    valkey_server: str,
    beside: Neighbours,
) -> AsyncIterator[Site]:
    """An inbox that serves."""
    folder = tmp_path_factory.mktemp("inbox")
    async with serving_site(folder, inbox_database, streams, valkey_server, beside) as running:
        yield running


@pytest.fixture(scope="module")
async def stores(inbox_database: SuiteDatabase, valkey_server: str) -> AsyncIterator[Stores]:
    """What reads and writes inboxes, without its edges."""
    async with open_stores(inbox_database, valkey_server) as opened:
        yield opened
