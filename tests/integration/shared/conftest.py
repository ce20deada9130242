"""What tests of shared mechanism stand on: a NATS server that they may break, and a server behind the edge."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.shared.edge import Edge, serving
from tests.integration.shared.nats_site import NatsSite
from tests.integration.shared.outages import Relay


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsSite]:
    """A NATS server of this module's own."""
    site = NatsSite(tmp_path_factory.mktemp("site"))
    site.start()
    yield site
    site.stop()


@pytest.fixture
async def fresh(site: NatsSite) -> NatsSite:
    """The server with an empty stream and its consumer."""
    await site.provision()
    await site.delete_stream()
    await site.provision()
    return site


@pytest.fixture
async def relay(site: NatsSite) -> AsyncIterator[Relay]:
    """The way to the server, which can be cut."""
    relay = await Relay.start(site.url)
    yield relay
    await relay.stop()


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A running server behind the edge."""
    async with serving(tmp_path) as running:
        yield running
