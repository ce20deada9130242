"""Servers that go away under a running dispatcher: what it was doing waits, and is finished when they are back."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.dispatcher.domain import Kind
from shared.audience import Audience
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import now_on_both
from tests.integration.shared.outages import Relay
from tests.integration.shared.polling import until, until_equal

EVERYONE = Audience.of(range(300_000))
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def nats_relay(surroundings: Site) -> AsyncIterator[Relay]:
    """The dispatcher's own way to NATS; the stand-ins have another."""
    relay = await Relay.start(surroundings.nats.url)
    yield relay
    await relay.stop()


@pytest.fixture
async def postgres_relay(surroundings: Site) -> AsyncIterator[Relay]:
    """The dispatcher's own way to Postgres."""
    relay = await Relay.start(surroundings.suite.admin_url)
    yield relay
    await relay.stop()


async def overall(caller: Caller) -> int:
    """What health says of the process."""
    stub = health_pb2_grpc.HealthStub(caller.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest())).status)


async def test_an_outage_of_nats_delays_and_loses_nothing(surroundings: Site, nats_relay: Relay) -> None:
    """Cut off while chunks are on their way: nothing more is leased meanwhile, so each chunk is sent only once."""
    async with surroundings.dispatching(NATS_URL=nats_relay.url, DISPATCHER_LEASE_S="30") as caller:
        surroundings.inbox.is_open.clear()
        sent = await surroundings.send(now_on_both(EVERYONE))
        await until(lambda: surroundings.inbox.in_flight.get(str(sent)) == 2)
        await nats_relay.cut()
        await until_equal(NOT_SERVING, lambda: overall(caller))
        surroundings.inbox.is_open.set()
        await until(lambda: len(surroundings.inbox.of(sent)) == 2)
        assert (await caller.get(sent)).chunks_done == 0
        await nats_relay.mend()
        await until(lambda: surroundings.told(sent) == [("SENT", 300_000)])
        assert {epoch for each in surroundings.inbox.of(sent).values() for epoch in each.epochs} == {1}
        assert surroundings.inbox.people(sent, Kind.ITEM) == EVERYONE


async def test_an_outage_of_postgres_delays_and_loses_nothing(
    surroundings: Site, postgres_relay: Relay
) -> None:
    """Due messages and reports that cannot be committed come again."""
    changes = {
        name: urlsplit(url)._replace(netloc=f"{urlsplit(url).netloc.rpartition('@')[0]}@{address}").geturl()
        for address in [urlsplit(postgres_relay.url).netloc.rpartition("@")[2]]
        for name, url in surroundings.suite.environment("dispatcher").items()
    }
    async with surroundings.dispatching(**changes, DISPATCHER_LEASE_S="1") as caller:
        surroundings.inbox.is_open.clear()
        under_way = await surroundings.send(now_on_both(EVERYONE))
        await until(lambda: surroundings.inbox.in_flight.get(str(under_way)) == 2)
        await postgres_relay.cut()
        surroundings.inbox.is_open.set()
        later = await surroundings.send(now_on_both(EVERYONE))
        await until(lambda: str(later) in surroundings.sender.asked)
        await until_equal(NOT_SERVING, lambda: overall(caller))
        await postgres_relay.mend()
        for broadcast in (under_way, later):
            await until(lambda broadcast=broadcast: surroundings.told(broadcast) == [("SENT", 300_000)])
            chunks = surroundings.inbox.of(broadcast).values()
            assert sum(len(each.members) for each in chunks) == len(EVERYONE)
