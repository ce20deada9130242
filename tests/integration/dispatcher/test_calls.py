"""The dispatcher's gRPC edge: who may call what, cancels while chunks are on their way, and what health says."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wedsync.broadcast.v1 import dispatcher_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub

from services.dispatcher.domain import Kind
from services.dispatcher.servicer import RIGHTS
from shared.audience import Audience
from shared.rights import rights_gap
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import asleep, now_on_both
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until, until_equal

SERVICE = "wedsync.broadcast.v1.DispatcherService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
async def dispatcher(surroundings: Site) -> AsyncIterator[Caller]:
    """A dispatcher with all lanes."""
    async with surroundings.dispatching() as caller:
        yield caller


def get_request(broadcast_id: str) -> dispatcher_pb2.GetDispatchRequest:
    """A question about one broadcast."""
    return dispatcher_pb2.GetDispatchRequest(broadcast_id=broadcast_id)


def test_every_method_has_a_right() -> None:
    """Neither a method without one, nor a right of no method."""
    assert not rights_gap(dispatcher_pb2.DESCRIPTOR.services_by_name["DispatcherService"], RIGHTS)


async def test_a_cancel_stops_what_has_not_left_and_the_inbox_decides_the_rest(
    surroundings: Site, dispatcher: Caller
) -> None:
    """Two chunks are on their way when it is cancelled; the inbox takes one and refuses one, and the ledger adds up."""
    everyone, sleeping = Audience.of(range(200_000)), Audience.of(range(500_000, 500_100))
    later = datetime.now(UTC) + timedelta(hours=1)
    surroundings.inbox.is_open.clear()
    sent = await surroundings.send([*now_on_both(everyone), *asleep(sleeping, later)])
    await until(lambda: surroundings.inbox.in_flight.get(str(sent)) == 2)
    answer = await dispatcher.stop(sent)
    assert (answer.planned, answer.stopped, answer.in_flight, answer.targeted) == (
        True,
        200_100 - 2 * 65_536,
        2 * 65_536,
        200_100,
    )
    assert (await dispatcher.get(sent)).state == dispatcher_pb2.DISPATCH_STATE_STOPPED
    surroundings.inbox.retracted.add(str(sent))
    surroundings.inbox.is_open.set()
    expected = {
        ("in_app", "cancelled"): 200_100,
        ("realtime", "cancelled"): 200_100,
    }
    await until_equal(expected, lambda: dispatcher.ledger(sent))
    assert surroundings.inbox.people(sent, Kind.ITEM, Kind.SILENT_ITEM) == Audience()
    assert surroundings.told(sent) == [], "who cancelled it knows"
    assert await dispatcher.stop(sent) == answer, "stopping again gives the same answer"


async def test_a_cancel_that_comes_before_the_due_message_wins(
    surroundings: Site, dispatcher: Caller
) -> None:
    """The tombstone is there when the plan comes: nobody gets anything."""
    broadcast = surroundings.add(now_on_both(Audience.of(range(10))))
    answer = await dispatcher.stop(broadcast)
    assert (answer.planned, answer.stopped, answer.targeted) == (False, 0, 0)
    await surroundings.announce(broadcast)
    marker = await surroundings.send(now_on_both(Audience.of(range(10))))
    await until(lambda: surroundings.told(marker) == [("SENT", 10)])
    name = surroundings.sender.orders[str(broadcast)].type
    await until(lambda: name in surroundings.directory.resolved)
    dispatch = await dispatcher.get(broadcast)
    assert (dispatch.state, dispatch.targeted) == (dispatcher_pb2.DISPATCH_STATE_STOPPED, 0)
    assert surroundings.inbox.of(broadcast) == {}


async def test_an_unknown_broadcast_is_not_found(dispatcher: Caller) -> None:
    """While there is neither plan nor tombstone."""
    stub = DispatcherServiceStub(dispatcher.channel)
    call = stub.GetDispatch(get_request(str(uuid4())), metadata=dispatcher.bearer("internal"))
    refusal = await refusal_of(call)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_a_broken_id_is_named(dispatcher: Caller) -> None:
    """The field that breaks its rule is told."""
    stub = DispatcherServiceStub(dispatcher.channel)
    for call in (
        stub.GetDispatch(get_request("everybody"), metadata=dispatcher.bearer("internal")),
        stub.StopDispatch(
            dispatcher_pb2.StopDispatchRequest(broadcast_id="x" * 100), metadata=dispatcher.bearer("internal")
        ),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("broadcast_id",))


async def test_strangers_learn_nothing(surroundings: Site, dispatcher: Caller) -> None:
    """Without a token, with another scope, or as a person whom the directory does not know."""
    stub = DispatcherServiceStub(dispatcher.channel)
    stop = dispatcher_pb2.StopDispatchRequest(broadcast_id="not even an id")
    person = (("authorization", f"Bearer {surroundings.mint.mint_user_token(uuid4())}"),)
    calls = {
        grpc.StatusCode.UNAUTHENTICATED: [
            stub.GetDispatch(get_request(str(uuid4()))),
            stub.StopDispatch(stop),
        ],
        grpc.StatusCode.PERMISSION_DENIED: [
            stub.StopDispatch(stop, metadata=dispatcher.bearer("broadcast.read", "dispatch.operate")),
            stub.StopDispatch(stop, metadata=person),
            stub.GetDispatch(get_request(str(uuid4())), metadata=dispatcher.bearer("broadcast.send")),
            stub.GetDispatch(get_request(str(uuid4())), metadata=person),
        ],
    }
    for code, refused in calls.items():
        for call in refused:
            assert (await refusal_of(call)).code == code


async def test_what_is_not_served_yet_says_so(dispatcher: Caller) -> None:
    """Declared in the contract, with its right; those who have the right learn that it is to come."""
    stub = DispatcherServiceStub(dispatcher.channel)
    operator = dispatcher.bearer("dispatch.operate")
    refusal = await refusal_of(
        stub.ListDeadLetters(dispatcher_pb2.ListDeadLettersRequest(), metadata=operator)
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
    reader = dispatcher.bearer("broadcast.read")
    refusal = await refusal_of(stub.ListDeadLetters(dispatcher_pb2.ListDeadLettersRequest(), metadata=reader))
    assert refusal.code == grpc.StatusCode.PERMISSION_DENIED


async def test_health_tells_of_each_neighbour(surroundings: Site) -> None:
    """Serving, with its consumers and two neighbours well, while the third cannot be reached."""
    async with surroundings.dispatching(INBOX_ADDR="127.0.0.1:1") as caller:
        stub = health_pb2_grpc.HealthStub(caller.channel)

        async def status(name: str) -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            return int(answer.status)

        for name in ("", SERVICE, "postgres", "nats", "sender", "preferences", "dispatcher_report"):
            await until_equal(SERVING, lambda name=name: status(name))
        assert await status("inbox") == NOT_SERVING
