"""A command whose service goes away for a moment asks again, under the same request_id."""

from collections.abc import AsyncIterator

import grpc
import pytest
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, MarkAllReadResponse
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer, add_InboxServiceServicer_to_server

from cli.connection import Connection
from cli.settings import Settings


class AwayForAMoment(InboxServiceServicer):
    """Has done what it was asked, and twice loses the answer."""

    def __init__(self) -> None:
        self.request_ids: list[str] = []

    async def MarkAllRead(
        self, request: MarkAllReadRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> MarkAllReadResponse:
        self.request_ids.append(request.request_id)
        if len(self.request_ids) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return MarkAllReadResponse(unread_count=3)


@pytest.fixture
async def inbox() -> AsyncIterator[tuple[AwayForAMoment, Settings]]:
    """Such an inbox, and settings that lead to it."""
    servicer, server = AwayForAMoment(), grpc.aio.server()
    add_InboxServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, Settings({"INBOX_ADDR": f"127.0.0.1:{port}"}, json=True, token="somebody", acts_as=None)
    await server.stop(None)


async def test_a_call_whose_answer_was_lost_is_made_again(inbox: tuple[AwayForAMoment, Settings]) -> None:
    """Without a word to its user, and as the same call."""
    servicer, settings = inbox
    async with Connection(settings) as connection:
        answer = await connection.inbox.MarkAllRead(MarkAllReadRequest(request_id="the one"), timeout=10)
    assert (answer.unread_count, servicer.request_ids) == (3, ["the one"] * 3)
