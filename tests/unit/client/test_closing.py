"""Once a client is closed nothing of it calls, and everything of it says why."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from wedsync.broadcast.client import BroadcastClient, ConfigurationError, Inbox, Waiting
from wedsync.broadcast.v1.sender_pb2 import GetBroadcastRequest, WatchBroadcastRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from shared import errors
from tests.unit.client.suite import Suite, within_reason

CLOSED = r"^This client is closed\.$"


@pytest.mark.parametrize(
    "call",
    [
        lambda client, stub, inbox: client.get("b"),
        lambda client, stub, inbox: anext(client.watch("b")),
        lambda client, stub, inbox: stub.GetBroadcast(GetBroadcastRequest()),
        lambda client, stub, inbox: anext(aiter(stub.WatchBroadcast(WatchBroadcastRequest()))),
        lambda client, stub, inbox: inbox.unread_count(),
        lambda client, stub, inbox: anext(inbox.watch().messages()),
    ],
    ids=["call", "watch", "call of a stub", "stream of a stub", "inbox", "watch of an inbox"],
)
async def test_a_closed_client_calls_nobody(
    suite: Suite, call: Callable[[BroadcastClient, SenderServiceStub, Inbox], Awaitable[object]]
) -> None:
    """Nor do the stubs and inboxes that it has given: there would be connections that nobody closes."""
    client = suite.client()
    stub, inbox = client.sender, client.inbox()
    await client.close()
    with pytest.raises(ConfigurationError, match=CLOSED):
        await within_reason(call(client, stub, inbox))
    with pytest.raises(ConfigurationError, match=CLOSED):
        client.channel("sender")
    assert suite.sender.script.asked == suite.inbox.script.asked == []


async def test_a_watch_that_pauses_ends_when_its_client_is_closed(suite: Suite) -> None:
    """With what any call would say, once it would go on."""
    pausing, goes_on = asyncio.Event(), asyncio.Event()

    async def pause(_: float) -> None:
        pausing.set()
        await goes_on.wait()

    suite.inbox.script.steps.append(grpc.StatusCode.UNAVAILABLE)
    client = suite.client(waiting=Waiting(sleep=pause))
    watching = asyncio.ensure_future(anext(client.inbox().watch().messages()))
    await within_reason(pausing.wait())
    await client.close()
    goes_on.set()
    with pytest.raises(ConfigurationError, match=CLOSED):
        await within_reason(watching)


async def test_a_watch_that_listens_ends_when_its_client_is_closed(suite: Suite) -> None:
    """It is not cancelled, as its stream is: nobody has cancelled the task."""
    client = suite.client()
    events = client.inbox().watch().messages()
    await anext(events)
    listening = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await client.close()
    await asyncio.wait([listening], timeout=5.0)
    assert not listening.cancelled()
    with pytest.raises(ConfigurationError, match=CLOSED):
        await listening


async def test_whoever_is_cancelled_while_watching_is_cancelled(suite: Suite) -> None:
    """As long as the client is open that is somebody's wish."""
    async with suite.client() as client:
        events = client.inbox().watch().messages()
        await anext(events)
        listening = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        listening.cancel()
        await asyncio.wait([listening], timeout=5.0)
        assert listening.cancelled()


async def test_a_call_that_waits_to_come_again_ends_when_its_client_is_closed(suite: Suite) -> None:
    """It was told when, and there is nothing left by then to come with."""

    async def close(_: float) -> None:
        await client.close()

    suite.sender.script.steps.append(errors.TooManyCalls(retry_after_s=1.0))
    client = suite.client(wait_s=60.0, waiting=Waiting(sleep=close))
    with pytest.raises(ConfigurationError, match=CLOSED):
        await within_reason(client.get("b"))
