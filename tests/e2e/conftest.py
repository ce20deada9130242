"""One running suite for the stories, and clients that call it as anybody."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stack.background import BackgroundStack
from tests.e2e import two_weddings
from tests.e2e.client import Client

RECIPIENTS = 2_000
ADMINS = 4


@pytest.fixture(scope="session")
def suite() -> Iterator[BackgroundStack]:
    """The whole suite with the demo weddings, as `make run` starts it."""
    with BackgroundStack(RECIPIENTS) as stack:
        yield stack


@pytest.fixture(scope="session")
async def client(suite: BackgroundStack) -> AsyncIterator[Client]:
    """Calls that suite, with as many admins as it takes for all stories in one hour."""
    async with Client(suite) as client:
        await client.add_admins(ADMINS)
        yield client


@pytest.fixture(scope="session")
async def world(client: Client) -> two_weddings.World:
    """Two weddings that look alike, for those who look for a way from one to the other."""
    return await two_weddings.build(client)
