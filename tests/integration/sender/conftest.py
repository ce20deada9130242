"""The sender under test, fresh for each test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from stack.nats import NatsAccess
from stack.provision import SuiteDatabase, provision_streams
from tests.integration.sender.neighbours import Neighbours, neighbours
from tests.integration.sender.site import Servers, ServingSite, serving_site


@pytest.fixture(scope="session")
async def sender_database(make_suite: Callable[..., Awaitable[SuiteDatabase]]) -> SuiteDatabase:
    """A database with the sender's tables."""
    return await make_suite("sender")


@pytest.fixture(scope="session")
async def servers(nats_server: NatsAccess, valkey_server: str) -> Servers:
    """NATS with the suite's streams, and Valkey."""
    await provision_streams(nats_server)
    return Servers(nats_server, valkey_server)


@pytest.fixture
async def beside() -> AsyncIterator[Neighbours]:
    """The sender's neighbours."""
    async with neighbours() as running:
        yield running


@pytest.fixture
async def site(
    tmp_path: Path, sender_database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ServingSite]:
    """A sender that serves."""
    async with serving_site(tmp_path, sender_database, servers, beside) as running:
        yield running
