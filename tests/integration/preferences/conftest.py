"""The preferences service under test. It serves a whole module; tests keep apart by using people of their own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from stack.nats import NatsAccess
from stack.provision import SuiteDatabase, provision_streams
from tests.integration.preferences.inbox import told_inbox
from tests.integration.preferences.site import Site, preferences_site


@pytest.fixture(scope="session")
async def preferences_database(make_suite: Callable[..., Awaitable[SuiteDatabase]]) -> SuiteDatabase:
    """A database with the preferences service's tables."""
    return await make_suite("preferences")


@pytest.fixture(scope="session")
async def streams(nats_server: NatsAccess) -> NatsAccess:
    """NATS with the suite's streams."""
    await provision_streams(nats_server)
    return nats_server


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, preferences_database: SuiteDatabase, streams: NatsAccess
) -> AsyncIterator[Site]:
    """A preferences service that serves."""
    folder: Path = tmp_path_factory.mktemp("preferences")
    async with (
        told_inbox() as inbox,
        preferences_site(folder, preferences_database, streams, inbox) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def _reachable_inbox(request: pytest.FixtureRequest) -> None:
    """Each test finds inbox and sender up."""
    if "site" in request.fixturenames:
        inbox = request.getfixturevalue("site").inbox
        inbox.is_down = inbox.sender.is_down = False
