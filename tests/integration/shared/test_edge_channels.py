"""One service calling another: its token, its patience, and what it makes of the other's errors."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from shared.channels import ServiceChannel, open_channel
from shared.errors import (
    DependencyUnavailable,
    FieldViolation,
    IllegalState,
    Internal,
    InvalidField,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServiceError,
    SlowReader,
    TokenExpired,
    Unauthenticated,
    Unimplemented,
)
from shared.logging import correlation_id
from shared.rights import any_person, scopes
from shared.settings import Address, SettingsError
from shared.tls import Transport
from tests.integration.shared.edge import INBOX, RIGHTS, Counted, Edge, serving

ASK = inbox_pb2.GetUnreadCountRequest()
OPEN = {**RIGHTS, "GetUnreadCount": any_person() | scopes("internal"), "WatchInbox": scopes("internal")}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A running server that services may call."""
    async with serving(tmp_path, rights=OPEN) as running:
        yield running


def channel_to(
    edge: Edge, *scope: str, speaks_for_user: bool = False, deadline_s: float = 5
) -> ServiceChannel:
    """A channel with a service's token."""
    token = edge.mint.mint_service_token("sender", scope or ("internal",))
    return open_channel(
        "inbox",
        edge.address,
        Transport(),
        lambda: token,
        deadline_s=deadline_s,
        speaks_for_user=speaks_for_user,
    )


async def error_of(edge: Edge, channel: ServiceChannel) -> ServiceError:
    """What a call over the channel raises."""
    with pytest.raises(ServiceError) as raised:
        await InboxServiceStub(channel).GetUnreadCount(ASK)
    await channel.close()
    return raised.value


async def test_call_carries_token_and_id(edge: Edge) -> None:
    """The other service knows who calls, and logs under the same correlation id."""
    seen = []

    async def count() -> Counted:
        seen.append(correlation_id.get())
        return Counted(unread_count=5)

    edge.inbox.count = count
    async with channel_to(edge) as channel:
        reset = correlation_id.set("c0ffee")
        answer = await InboxServiceStub(channel).GetUnreadCount(ASK)
        correlation_id.reset(reset)
    assert (answer.unread_count, seen) == (5, ["c0ffee"])


@pytest.mark.parametrize(
    "told",
    [
        NotFound("There is none."),
        PermissionDenied(),
        IllegalState(metadata={"state": "sent"}),
        InvalidField(violations=[FieldViolation("a.b", "is wrong")]),
        RateLimited(retry_after_s=30.0),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_answer_of_the_other_service_is_passed_on(edge: Edge, told: ServiceError) -> None:
    """What it says of the request is raised here as the same error, with its details."""

    async def count() -> Counted:
        raise told

    edge.inbox.count = count
    error = await error_of(edge, channel_to(edge))
    assert (type(error), str(error), error.violations, error.metadata, error.retry_after_s) == (
        type(told),
        str(told),
        told.violations,
        told.metadata,
        told.retry_after_s,
    )


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (DependencyUnavailable("Postgres is down.", retry_after_s=3), DependencyUnavailable),
        (ConnectionResetError(), DependencyUnavailable),
        (KeyError("defect"), Internal),
        (Unimplemented(), Internal),
        (Unauthenticated(), Internal),
        (TokenExpired(), Internal),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else type(each).__name__,
)
async def test_fault_of_the_other_service_is_not_the_callers(
    edge: Edge, told: Exception, expected: type[ServiceError]
) -> None:
    """Its outage is an outage; its defects, and refusals of our token, are faults that no caller of ours could mend."""

    async def count() -> Counted:
        raise told

    edge.inbox.count = count
    with capture_logs() as lines:
        error = await error_of(edge, channel_to(edge))
    assert type(error) is expected
    assert "Postgres" not in str(error)
    assert bool([line for line in lines if line["event"] == "dependency_failed"]) == (expected is Internal)


async def test_delay_of_an_outage_is_passed_on(edge: Edge) -> None:
    """Whoever knows how long it will take decides when to try again."""

    async def count() -> Counted:
        raise DependencyUnavailable(retry_after_s=7)

    edge.inbox.count = count
    assert (await error_of(edge, channel_to(edge))).retry_after_s == 7.0


async def test_command_line_hears_every_answer_as_it_is(edge: Edge) -> None:
    """A person at a keyboard is told that it is their token which is not good."""
    channel = open_channel("inbox", edge.address, Transport(), lambda: "x.y.z", speaks_for_user=True)
    assert type(await error_of(edge, channel)) is Unauthenticated
    assert type(await error_of(edge, channel_to(edge, "other", speaks_for_user=True))) is PermissionDenied


async def test_call_without_a_token_is_made_without(edge: Edge) -> None:
    """No token is sent, rather than an empty one."""
    channel = open_channel("inbox", edge.address, Transport(), lambda: None, speaks_for_user=True)
    assert type(await error_of(edge, channel)) is Unauthenticated


async def test_service_that_does_not_answer_is_unavailable(edge: Edge) -> None:
    """A call without a deadline gets the channel's, and past it the other service counts as down."""

    async def count() -> Counted:
        await asyncio.Event().wait()
        return Counted()

    edge.inbox.count = count
    error = await error_of(edge, channel_to(edge, deadline_s=0.05))
    assert (type(error), str(error)) == (
        DependencyUnavailable,
        "The inbox service cannot be reached; try again soon.",
    )


async def test_service_that_is_not_there_is_unavailable() -> None:
    """Nobody listens: told at once."""
    async with open_channel("inbox", Address("127.0.0.1", 1), Transport(), lambda: "t") as channel:
        with pytest.raises(DependencyUnavailable):
            await InboxServiceStub(channel).GetUnreadCount(ASK)


async def test_idempotent_call_is_tried_again(edge: Edge) -> None:
    """A method that may be retried survives a moment's outage; another one does not."""
    failures = [ConnectionResetError(), ConnectionResetError()]

    async def count() -> Counted:
        if failures:
            raise failures.pop()
        return Counted(unread_count=6)

    edge.inbox.count = count
    token = edge.mint.mint_service_token("sender", ("internal",))
    for retried in ((f"{INBOX}/GetUnreadCount",), (INBOX,)):
        failures[:] = [ConnectionResetError(), ConnectionResetError()]
        async with open_channel(
            "inbox", edge.address, Transport(), lambda: token, retried=retried
        ) as channel:
            assert (await InboxServiceStub(channel).GetUnreadCount(ASK)).unread_count == 6
    failures[:] = [ConnectionResetError()]
    assert type(await error_of(edge, channel_to(edge))) is DependencyUnavailable


async def test_stream_is_read_through_the_channel(edge: Edge) -> None:
    """Responses come one by one, and the error at its end is one of ours."""
    edge.inbox.release.set()
    async with channel_to(edge) as channel:
        stub = InboxServiceStub(channel)
        assert [event.event.cursor async for event in stub.WatchInbox(inbox_pb2.WatchInboxRequest())] == [
            "first",
            "second",
        ]
        bad = stub.WatchInbox(inbox_pb2.WatchInboxRequest(cursor="x" * 600))
        with pytest.raises(InvalidField):
            await anext(aiter(bad))


async def test_reader_who_stops_early_ends_the_stream(edge: Edge) -> None:
    """Leaving the loop cancels the call: the other side does not talk on to nobody."""
    async with channel_to(edge) as channel:
        responses = aiter(InboxServiceStub(channel).WatchInbox(inbox_pb2.WatchInboxRequest()))
        await anext(responses)
        await responses.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while not edge.inbox.streams_ended:
                await asyncio.sleep(0.001)


async def test_stream_can_be_written_and_read(edge: Edge) -> None:
    """A bidirectional call is the one of grpc.aio, with its errors translated."""
    async with channel_to(edge, "inbox.connect") as channel:
        call = InboxServiceStub(channel).ConnectInboxes()
        subscribe = inbox_pb2.InboxSubscribe(handle=4, user_token="token")
        await call.write(inbox_pb2.ConnectInboxesRequest(subscribe=subscribe))
        answer = await call.read()
        assert isinstance(answer, inbox_pb2.ConnectInboxesResponse)
        assert list(answer.handles) == [4]
        await call.write(inbox_pb2.ConnectInboxesRequest())
        with pytest.raises(InvalidField):
            await call.read()


async def test_overloaded_reader_is_told_so(edge: Edge) -> None:
    """What ends a stream on purpose is passed on with its cursor."""

    class Behind:
        async def wait(self) -> None:
            raise SlowReader(metadata={"cursor": "c1"})

    edge.inbox.release = Behind()  # type: ignore[assignment]
    async with channel_to(edge) as channel:
        responses = aiter(InboxServiceStub(channel).WatchInbox(inbox_pb2.WatchInboxRequest()))
        await anext(responses)
        with pytest.raises(SlowReader) as ended:
            await anext(responses)
    assert ended.value.metadata == {"cursor": "c1"}


async def test_channel_to_the_network_needs_certificates() -> None:
    """A token does not leave this machine in the clear by mistake."""
    with pytest.raises(SettingsError, match="INBOX_ADDR: inbox:5001 is not a loopback address"):
        open_channel("inbox", Address("inbox", 5001), Transport(), lambda: str(uuid4()))


async def test_channel_is_a_channel_of_grpc(edge: Edge) -> None:
    """What watches connections sees this one as it is."""
    async with channel_to(edge) as channel:
        assert channel.get_state() == grpc.ChannelConnectivity.IDLE
        channel.get_state(try_to_connect=True)
        await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.IDLE), 5)
        await asyncio.wait_for(channel.channel_ready(), 5)
        assert channel.get_state() == grpc.ChannelConnectivity.READY
