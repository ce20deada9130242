"""A person is told what became of each broadcast that was meant for them, and of nobody else's."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import grpc
import pytest
from wedsync.broadcast.v1 import dispatcher_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub

from services.dispatcher.domain import Channel, DeliveryState, Reason
from services.dispatcher.snapshot import Slice
from shared.audience import Audience
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import asleep, now_on_both
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until

ME = 7_000_001
ADD_MANY = """
    INSERT INTO dispatcher.chunks (
        broadcast_id, chunk, priority, kind, state, members, size, decided_version, decided_at, looked_at, epoch
    )
    SELECT
        broadcast_id, chunk + number, priority, kind, state, members, size, decided_version, decided_at, looked_at,
        epoch
    FROM dispatcher.chunks, generate_series(1000, 1250) AS number
    WHERE broadcast_id = $1
"""


@pytest.fixture(scope="module")
async def dispatcher(surroundings: Site) -> AsyncIterator[Caller]:
    """A dispatcher with all lanes."""
    async with surroundings.dispatching() as caller:
        yield caller


async def page(dispatcher: Caller, number: int, token: str = "") -> dispatcher_pb2.ExportDeliveriesResponse:
    """A page of somebody's deliveries."""
    request = dispatcher_pb2.ExportDeliveriesRequest(recipient_number=number, page_token=token)
    stub = DispatcherServiceStub(dispatcher.channel)
    answer: dispatcher_pb2.ExportDeliveriesResponse = await stub.ExportDeliveries(
        request, metadata=dispatcher.bearer("internal")
    )
    return answer


async def exported(dispatcher: Caller, number: int) -> list[dict[str, object]]:
    """All of somebody's deliveries, page by page."""
    answers = [await page(dispatcher, number)]
    while answers[-1].next_page_token:
        answers.append(await page(dispatcher, number, answers[-1].next_page_token))
    return [json.loads(each.json) for answer in answers for each in answer.records]


async def test_each_channel_of_each_broadcast_is_told(surroundings: Site, dispatcher: Caller) -> None:
    """What arrived, what is held until when, and what was suppressed and why; of what others got, nothing."""
    me, others = Audience.of([ME]), Audience.of([ME + 1, ME + 2])
    later = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    loud = await surroundings.send(now_on_both(me | others))
    held = await surroundings.send(asleep(me, later))
    muted = await surroundings.send(
        [Slice(each, DeliveryState.SUPPRESSED, me, Reason.TYPE_MUTED) for each in Channel]
    )
    await surroundings.send(now_on_both(others))
    await until(lambda: all(surroundings.told(each) for each in (loud, held, muted)))
    told = {
        (UUID(str(each["broadcast_id"])), each["channel"], each["state"], each["reason"])
        for each in await exported(dispatcher, ME)
    }
    assert told == {
        (loud, "realtime", "sent", None),
        (loud, "in_app", "delivered", None),
        (held, "in_app", "delivered", None),
        (held, "realtime", "held", None),
        (muted, "realtime", "suppressed", "type_muted"),
        (muted, "in_app", "suppressed", "type_muted"),
    }
    [waits] = [each for each in await exported(dispatcher, ME) if each["state"] == "held"]
    assert datetime.fromisoformat(str(waits["release_at"])) >= later


async def test_pages_go_through_all_chunks(surroundings: Site, dispatcher: Caller) -> None:
    """A page may have nothing on it; the last one has no token, and a token is good for one person."""
    sent = await surroundings.send(now_on_both(Audience.of([ME + 10])))
    await until(lambda: bool(surroundings.told(sent)))
    admin = await asyncpg.connect(surroundings.suite.admin_url)
    await admin.execute(ADD_MANY, sent)
    await admin.close()
    assert len(await exported(dispatcher, ME + 10)) == 2 * 252
    assert await exported(dispatcher, ME + 11) == []
    token = (await page(dispatcher, ME + 10)).next_page_token
    refused = await refusal_of(page(dispatcher, ME + 11, token))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))
