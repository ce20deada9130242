"""One running suite for the stories, and clients that call it as anybody."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stack.background import BackgroundStack
from tests.e2e import two_weddings
from tests.e2e.client import Client

RECIPIENTS = 2_000


@pytest.fixture(scope="session")
def suite() -> Iterator[BackgroundStack]:
    """The whole suite with the demo weddings, as `make run` starts it."""
    with BackgroundStack(RECIPIENTS) as stack:
        yield stack


@pytest.fixture(scope="session")
async def client(suite: BackgroundStack) -> AsyncIterator[Client]:
    """Calls that suite."""
    async with Client(suite) as client:
        yield client


@pytest.fixture(scope="session")
async def world(client: Client) -> two_weddings.World:
    """Two weddings that look alike, for those who look for a way from one to the other."""
    return await two_weddings.build(client)
