"""Long streams end with the token that they were opened by, within half a minute, and say so."""

import asyncio
from collections.abc import Awaitable, Callable
from time import time

import grpc
import pytest
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.inbox_pb2 import ConnectInboxesRequest, InboxSubscribe, WatchInboxRequest
from wedsync.broadcast.v1.sender_pb2 import WatchBroadcastRequest

from stack.tokens import TokenMint
from tests.e2e.client import Client, bearer
from tests.e2e.screens import ENDS_WITHIN_S, reason_of, watched
from tests.e2e.two_weddings import tomorrow

# A token is taken for half a minute after its end, since clocks differ; these have some seconds of that left.
LATE_S = -25
# What an end itself may take on a busy machine.
SLACK_S = 5.0


async def _reason(read: Callable[[], Awaitable[object]]) -> str:
    """Why a stream ends, once it does."""
    try:
        while await read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return "no reason"


async def test_every_long_stream_ends_with_its_token(client: Client) -> None:
    """An inbox, a handle, the progress of a broadcast, and the stream of whoever connects inboxes."""
    nobody = Targeting(roles=["astronaut"])
    pending = await client.send("admin", targeting=nobody, scheduled_for=tomorrow())
    ended_at = time() + LATE_S
    token = client.token("admin", lifetime_s=LATE_S)
    mint = TokenMint.existing(client.stack.state.keys)
    service = mint.mint_service_token("bff", ["inbox.connect"], lifetime_s=LATE_S)
    progress = client.sender.WatchBroadcast(
        WatchBroadcastRequest(broadcast_id=pending), metadata=bearer(token)
    )
    sockets = client.inbox.ConnectInboxes(metadata=bearer(service))
    subscribe = InboxSubscribe(handle=1, user_token=client.token("venue"))
    await sockets.write(ConnectInboxesRequest(subscribe=subscribe))
    for call in (progress, sockets):
        assert await call.read() is not grpc.aio.EOF
    async with (
        watched(client, token) as screens,
        asyncio.timeout(ended_at + ENDS_WITHIN_S + SLACK_S - time()),
    ):
        assert [await _reason(call.read) for call in (progress, sockets)] == ["TOKEN_EXPIRED"] * 2
        await screens.until(lambda screen: screen.ended == "TOKEN_EXPIRED", "an inbox and a handle to end")


async def test_a_token_that_has_ended_opens_no_stream(client: Client) -> None:
    """However long the one was open that it had opened before."""
    token = client.token("venue", lifetime_s=-int(ENDS_WITHIN_S) - 1)
    call = client.inbox.WatchInbox(WatchInboxRequest(), metadata=bearer(token))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert reason_of(refused.value) == "TOKEN_EXPIRED"
