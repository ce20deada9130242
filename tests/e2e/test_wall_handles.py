"""What the suite hands out, and what callers make up: none of it opens to one person what is another's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.inbox_pb2 import (
    ConnectInboxesRequest,
    ConnectInboxesResponse,
    InboxSubscribe,
    ListInboxItemsRequest,
)
from wedsync.broadcast.v1.sender_pb2 import CancelBroadcastRequest, SendBroadcastRequest

from tests.e2e.client import CALL_S, Client, broadcast, eventually
from tests.e2e.two_weddings import MEMBERS, PEOPLE, TITLE, A, B, World
from tests.e2e.wall_calls import Answer, Asking
from tests.e2e.wall_table import Caller, Code, inbox, team


@pytest.fixture(scope="module")
async def asking(client: Client) -> AsyncIterator[Asking]:
    """Calls in bytes."""
    async with Asking(client) as asking:
        yield asking


async def _ask(asking: Asking, client: Client, who: str, rpc: str, request: object) -> Answer:
    metadata = client.person(PEOPLE[who].user_id)
    return await asking.ask(rpc, metadata, request.SerializeToString())  # type: ignore[attr-defined]


async def test_a_page_token_of_another_inbox_is_a_bad_one(
    client: Client, asking: Asking, world: World
) -> None:
    """It says the same as one that nobody was ever given, to whoever is on another team and on the same."""
    page = await client.inbox.ListInboxItems(
        ListInboxItemsRequest(page_size=1), metadata=client.person(PEOPLE["couple A"].user_id), timeout=CALL_S
    )
    assert page.next_page_token
    answers = {
        await _ask(
            asking, client, who, "ListInboxItems", ListInboxItemsRequest(page_size=1, page_token=token)
        )
        for who in ("couple B", "florist A", "admin")
        for token in (page.next_page_token, "garbage")
    }
    assert [answer.reason for answer in answers] == ["INVALID_PAGE_TOKEN"]


async def test_a_cursor_of_another_stream_shows_ones_own_inbox(client: Client, world: World) -> None:
    """A place in the log is no secret: from there on it is the reader's own inbox that is shown."""
    ids = {}
    async with client.watching(PEOPLE["couple A"].user_id) as screen:
        cursor = screen.events[0].cursor
    for wedding in (A, B):
        ids[wedding] = await client.send(
            client.person(PEOPLE["admin"].user_id), type="journey.updated", wedding_id=world.id_of(wedding)
        )
        await client.sent(ids[wedding])
    async with client.watching(PEOPLE["couple B"].user_id, cursor) as screen:
        await screen.until(lambda event: event.HasField("unread_count"), "the badge")
        assert screen.added() == [ids[B]]


async def test_request_ids_of_different_callers_do_not_meet(
    client: Client, asking: Asking, world: World
) -> None:
    """The same id for the same words is a broadcast each; and whoever repeats another's call is refused as ever."""
    request_id = str(uuid4())

    def about(wedding: str, **fields: object) -> SendBroadcastRequest:
        wedding_id = world.id_of(wedding)
        return broadcast(
            request_id=request_id, type="timeline.changed", title=TITLE, wedding_id=wedding_id, **fields
        )

    answers = [
        await client.sender.SendBroadcast(about(wedding), metadata=client.person(PEOPLE[who].user_id))
        for who, wedding in (("coordinator A", A), ("coordinator B", B))
    ]
    first, second = (answer.broadcast for answer in answers)
    assert first.broadcast_id != second.broadcast_id
    assert (first.wedding.wedding_id, second.wedding.wedding_id) == (world.id_of(A), world.id_of(B))
    used = await _ask(asking, client, "coordinator of neither", "SendBroadcast", about(A))
    request_id = str(uuid4())
    unused = await _ask(asking, client, "coordinator of neither", "SendBroadcast", about(A))
    assert used == unused
    assert used.reason == "OUTSIDE_REACH"


async def test_a_repeated_cancel_of_another_is_not_found(
    client: Client, asking: Asking, world: World
) -> None:
    """Its answer is kept for whoever cancelled."""
    scheduled = broadcast(type="timeline.changed", wedding_id=world.id_of(A))
    scheduled.scheduled_for.GetCurrentTime()
    scheduled.scheduled_for.seconds += 3_600
    author = client.person(PEOPLE["coordinator A"].user_id)
    sent = await client.sender.SendBroadcast(scheduled, metadata=author, timeout=CALL_S)
    cancel = CancelBroadcastRequest(request_id=str(uuid4()), broadcast_id=sent.broadcast.broadcast_id)
    await client.sender.CancelBroadcast(cancel, metadata=author, timeout=CALL_S)
    repeated = await _ask(asking, client, "coordinator B", "CancelBroadcast", cancel)
    nothing = CancelBroadcastRequest(request_id=cancel.request_id, broadcast_id=world.id_of("nowhere"))
    assert repeated == await _ask(asking, client, "coordinator B", "CancelBroadcast", nothing)
    assert repeated.code is Code.NOT_FOUND


@dataclass(slots=True)
class Sockets:
    """A stream that carries everybody, each by their place, and all that came on it."""

    call: "grpc.aio.StreamStreamCall[ConnectInboxesRequest, ConnectInboxesResponse]"
    heard: list[ConnectInboxesResponse] = field(default_factory=list)

    async def listen(self) -> None:
        """Keep everything, until the stream ends."""
        async for response in self.call:
            self.heard.append(response)

    def who_heard(self, words: str) -> set[str]:
        """Those to whom something was told that has these words in it."""
        handles = {handle for each in self.heard if words in str(each) for handle in each.handles}
        return {MEMBERS[handle].name for handle in handles}


@asynccontextmanager
async def _sockets(client: Client) -> AsyncIterator[Sockets]:
    """Everybody's inbox on one stream, from their snapshots on."""
    call = client.inbox.ConnectInboxes(metadata=client.service("inbox.connect", name="bff"))
    sockets = Sockets(call)
    listening = asyncio.create_task(sockets.listen())
    try:
        for handle, member in enumerate(MEMBERS):
            subscribe = InboxSubscribe(handle=handle, user_token=client.token(member.user_id))
            await call.write(ConnectInboxesRequest(subscribe=subscribe))
        await _everybody_heard(sockets, "snapshot")
        yield sockets
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        call.cancel()


async def _everybody_heard(sockets: Sockets, words: str) -> None:
    async def have_heard() -> bool:
        return sockets.who_heard(words) == PEOPLE.keys()

    await eventually(have_heard, f"everybody to hear of {words}")


async def test_a_shared_stream_tells_each_handle_its_own_inbox(client: Client, world: World) -> None:
    """What is for several handles may be seen by each of them, and what is about one team is for its handles alone."""
    async with _sockets(client) as sockets:
        coordinator = client.person(PEOPLE["coordinator A"].user_id)
        news = await client.send(coordinator, type="journey.updated", wedding_id=world.id_of(A))
        await client.sent(news)
        everybody = Targeting(user_ids=[str(member.user_id) for member in MEMBERS])
        last = await client.send(client.person(PEOPLE["admin"].user_id), targeting=everybody)
        await _everybody_heard(sockets, last)
    assert sockets.who_heard(news) == team(A)
    secrets = world.secrets()
    for response in sockets.heard:
        seen = response.SerializeToString()
        told = {name for name, value in secrets.items() if value in seen}
        for handle in response.handles:
            assert told <= inbox(Caller(MEMBERS[handle].name, (), MEMBERS[handle])).secrets
