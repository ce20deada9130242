"""What the preferences service says and does while something that it needs is away."""

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from tests.integration.preferences.inbox import told_inbox
from tests.integration.preferences.site import Site, a_word, preferences_site
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.outages import Relay
from tests.integration.shared.polling import until_equal

SERVICE = "wedsync.broadcast.v1.AudienceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def postgres_relay(preferences_database: SuiteDatabase) -> AsyncIterator[Relay]:
    """What stands between the service and Postgres."""
    relay = await Relay.start(preferences_database.admin_url)
    yield relay
    await relay.stop()


@pytest.fixture
async def nats_relay(streams: NatsAccess) -> AsyncIterator[Relay]:
    """What stands between the service and NATS."""
    relay = await Relay.start(streams.url)
    yield relay
    await relay.stop()


@pytest.fixture
async def site(
    tmp_path_factory: pytest.TempPathFactory,
    preferences_database: SuiteDatabase,
    streams: NatsAccess,
    postgres_relay: Relay,
    nats_relay: Relay,
) -> AsyncIterator[Site]:
    """A preferences service whose connections can be cut."""
    database = SuiteDatabase(postgres_relay.url, preferences_database.password)
    nats = NatsAccess(nats_relay.url, streams.passwords)
    folder = tmp_path_factory.mktemp("outages")
    async with told_inbox() as inbox, preferences_site(folder, database, nats, inbox) as running:
        yield running


async def _health(site: Site, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(site.channel).Check(request)).status


async def test_without_its_database_it_says_so_and_comes_back(site: Site, postgres_relay: Relay) -> None:
    """Nothing is answered from an index that may be old: UNAVAILABLE with a time to come back, and NOT_SERVING."""
    person = await site.someone(role=a_word("role"))
    await postgres_relay.cut()
    for call in (site.count(roles=[person.entry.role]), site.get(person), site.wedding()):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        assert refusal.retry_after_s
    await until_equal(NOT_SERVING, lambda: _health(site, SERVICE))
    await postgres_relay.mend()
    await until_equal(SERVING, lambda: _health(site, SERVICE))
    assert (await site.count(roles=[person.entry.role])).targeted == 1


async def test_without_nats_and_inbox_teams_are_set_and_told_later(site: Site, nats_relay: Relay) -> None:
    """The service goes on serving; what it has to tell waits until the inbox has confirmed it, whatever NATS does."""
    site.inbox.is_down = True
    await nats_relay.cut()
    await until_equal(NOT_SERVING, lambda: _health(site, "nats"))
    assert await _health(site, SERVICE) == SERVING
    wedding_id = await site.wedding(await site.someone())
    waiting = (
        "SELECT count(*) FROM preferences.outbox WHERE state <> 'done' AND position($1::bytea IN payload) > 0"
    )

    async def untold() -> object:
        return await site.admin.fetchval(waiting, wedding_id.encode())

    assert await untold() == 1
    site.inbox.is_down = False
    await until_equal(0, untold)
    assert site.inbox.teams[wedding_id].version == 1
    await nats_relay.mend()
    await until_equal(SERVING, lambda: _health(site, "nats"))
