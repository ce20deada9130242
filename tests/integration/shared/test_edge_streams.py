"""Streams behind the edge: events go out, requests are checked one by one, and an end is an end on both sides."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import inbox_pb2

from shared.auth import LEEWAY_S, current_identity
from shared.calls import CallLimits
from shared.errors import SlowReader
from shared.rights import scopes
from tests.integration.shared.edge import Edge, bearer, refusal_of, serving

CODE = grpc.StatusCode
WATCH = inbox_pb2.WatchInboxRequest()


async def until_ended(edge: Edge, count: int) -> None:
    """Returns once that many watching servicers have come to their end."""
    async with asyncio.timeout(5):
        while edge.inbox.streams_ended < count:
            await asyncio.sleep(0.001)


async def subscriptions(*handles: int) -> AsyncIterator[inbox_pb2.ConnectInboxesRequest]:
    """A subscription for each handle; a handle below zero gives a request that breaks a rule."""
    for handle in handles:
        if handle < 0:
            yield inbox_pb2.ConnectInboxesRequest()
        else:
            subscribe = inbox_pb2.InboxSubscribe(handle=handle, user_token="token")
            yield inbox_pb2.ConnectInboxesRequest(subscribe=subscribe)


async def test_events_arrive_whether_serialised_or_not(edge: Edge) -> None:
    """A servicer may yield messages, or bytes that many streams share."""
    edge.inbox.release.set()
    cursors = [event.event.cursor async for event in edge.stub.WatchInbox(WATCH, metadata=edge.as_person())]
    assert cursors == ["first", "second"]


async def test_stranger_gets_no_stream(edge: Edge) -> None:
    """Not one event without a token, a right or a valid request."""
    too_long = inbox_pb2.WatchInboxRequest(cursor="x" * 600)
    codes = []
    for request, metadata in (
        (WATCH, ()),
        (WATCH, edge.as_service("internal")),
        (too_long, edge.as_person()),
    ):
        refusal = await refusal_of(edge.stub.WatchInbox(request, metadata=metadata).read())
        codes.append(refusal.code)
    assert codes == [CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED, CODE.INVALID_ARGUMENT]
    assert edge.inbox.streams_ended == 0


async def test_reader_who_leaves_ends_the_servicer(edge: Edge) -> None:
    """A cancelled stream runs the servicer's clean-up, and leaves its line."""
    with capture_logs() as lines:
        call = edge.stub.WatchInbox(WATCH, metadata=edge.as_person())
        await call.read()
        call.cancel()
        await until_ended(edge, 1)
        await edge.interceptor.traffic.wait_until_idle()
        async with asyncio.timeout(5):
            while not [line for line in lines if line["event"] == "rpc"]:
                await asyncio.sleep(0.001)
    assert [(line["method"], line["code"]) for line in lines if line["event"] == "rpc"] == [
        ("InboxService/WatchInbox", "CANCELLED")
    ]


async def test_stream_ends_with_the_token_that_opened_it(edge: Edge) -> None:
    """UNAUTHENTICATED with TOKEN_EXPIRED: an old token cannot listen on for ever."""
    # Its time is in whole seconds: with one, it could be over before it is first looked at.
    about_to_expire = bearer(edge.mint.mint_user_token(uuid4(), lifetime_s=2 - LEEWAY_S))
    call = edge.stub.WatchInbox(WATCH, metadata=about_to_expire)
    await call.read()
    refusal = await refusal_of(call.read())
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "TOKEN_EXPIRED")
    await until_ended(edge, 1)


async def test_servicer_can_end_a_stream_with_an_error(edge: Edge) -> None:
    """Events that went out stay, and the status says why there are no more."""

    class Slow:
        def is_set(self) -> bool:
            return False

        async def wait(self) -> None:
            raise SlowReader(metadata={"cursor": "first"})

    edge.inbox.release = Slow()  # type: ignore[assignment]
    call = edge.stub.WatchInbox(WATCH, metadata=edge.as_person())
    await call.read()
    refusal = await refusal_of(call.read())
    assert (refusal.code, refusal.reason, refusal.metadata) == (
        CODE.RESOURCE_EXHAUSTED,
        "SLOW_READER",
        {"cursor": "first"},
    )


async def test_stream_for_which_there_is_no_room_is_refused(tmp_path: Path) -> None:
    """Streams have their own room: calls are answered while no more streams are taken."""
    async with serving(tmp_path, limits=CallLimits(max_streams=1)) as edge:
        first = edge.stub.WatchInbox(WATCH, metadata=edge.as_person())
        await first.read()
        refusal = await refusal_of(edge.stub.WatchInbox(WATCH, metadata=edge.as_person()).read())
        assert (refusal.code, refusal.reason) == (CODE.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        ask = inbox_pb2.GetUnreadCountRequest()
        assert (await edge.stub.GetUnreadCount(ask, metadata=edge.as_person())).unread_count == 3
        first.cancel()
        await until_ended(edge, 1)
        await edge.interceptor.traffic.wait_until_idle()
        second = edge.stub.WatchInbox(WATCH, metadata=edge.as_person())
        await second.read()
        second.cancel()


async def test_both_directions_stream(edge: Edge) -> None:
    """Each request is answered as it comes."""
    call = edge.stub.ConnectInboxes(subscriptions(1, 2, 3), metadata=edge.as_service("inbox.connect"))
    assert [list(event.handles) async for event in call] == [[1], [2], [3]]


async def test_broken_request_within_a_stream_ends_it(edge: Edge) -> None:
    """Those before it were answered; it is refused by its fields, and the servicer never sees it."""
    call = edge.stub.ConnectInboxes(subscriptions(1, -1, 3), metadata=edge.as_service("inbox.connect"))
    answered = await call.read()
    assert isinstance(answered, inbox_pb2.ConnectInboxesResponse)
    refusal = await refusal_of(call.read())
    assert (list(answered.handles), refusal.code, refusal.fields) == ([1], CODE.INVALID_ARGUMENT, ("change",))
    assert len(edge.inbox.requests) == 1


async def test_bytes_that_are_no_message_end_a_stream(edge: Edge) -> None:
    """Also within a stream a broken message is the caller's fault."""
    call: grpc.aio.StreamStreamCall[bytes, bytes] = edge.channel.stream_stream(
        "/wedsync.broadcast.v1.InboxService/ConnectInboxes"
    )(metadata=edge.as_service("inbox.connect"))
    await call.write(b"\xff\xff")
    assert (await refusal_of(call.read())).code == CODE.INVALID_ARGUMENT


UPLOAD = "wedsync.broadcast.test.UploadService"


def upload_service() -> None:
    """Puts a service with a client stream into the pool: the contract has none, and the edge takes every kind."""
    file = descriptor_pb2.FileDescriptorProto(name="test/upload.proto", package="wedsync.broadcast.test")
    file.dependency.append("google/protobuf/wrappers.proto")
    text = ".google.protobuf.StringValue"
    method = file.service.add(name="UploadService").method.add(
        name="Upload", input_type=text, output_type=text
    )
    method.client_streaming = True
    descriptor_pool.Default().Add(file)


async def test_client_stream_is_answered_once(edge: Edge) -> None:
    """Every request is read through the same checks, and the one answer comes at the end."""
    upload_service()

    async def upload(requests: AsyncIterator[StringValue], context: object) -> StringValue:
        texts = [request.value async for request in requests]
        return StringValue(value=f"{current_identity().subject}: {' '.join(texts)}")

    handler = grpc.stream_unary_rpc_method_handler(
        upload, StringValue.FromString, StringValue.SerializeToString
    )
    edge.interceptor.protect(UPLOAD, {"Upload": handler}, {"Upload": scopes("upload")})
    call = edge.channel.stream_unary(
        f"/{UPLOAD}/Upload", StringValue.SerializeToString, StringValue.FromString
    )

    async def texts(*values: str) -> AsyncIterator[StringValue]:
        for value in values:
            yield StringValue(value=value)

    answer = await call(texts("a", "b"), metadata=edge.as_service("upload"))
    assert answer.value == "bff: a b"
    refusal = await refusal_of(call(texts("a", "b\0"), metadata=edge.as_service("upload")))
    assert (refusal.code, refusal.fields) == (CODE.INVALID_ARGUMENT, ("value",))
    assert (await refusal_of(call(texts("a"), metadata=edge.as_person()))).code == CODE.PERMISSION_DENIED
