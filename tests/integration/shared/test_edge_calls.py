"""The edge on a real port: who is let in, what is asked in which order, and what a caller is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, inbox_pb2

from shared.auth import current_identity, current_role
from shared.calls import CORRELATION_KEY, CallLimits
from shared.errors import DependencyUnavailable, NotFound
from shared.logging import correlation_id
from shared.rights import any_person, roles
from tests.integration.shared.edge import (
    INBOX,
    RIGHTS,
    Counted,
    Edge,
    bearer,
    count_three,
    refusal_of,
    serving,
)

ASK = inbox_pb2.GetUnreadCountRequest()
CODE = grpc.StatusCode
BAD_RECEIPTS = inbox_pb2.RecordReceiptsRequest(
    request_id="x", broadcast_ids=["nobody", str(uuid4()), "no one"]
)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A running server."""
    async with serving(tmp_path) as running:
        yield running


def rpc_lines(lines: list[Any]) -> list[dict[str, Any]]:
    """The lines that calls left."""
    return [line for line in lines if line["event"] == "rpc"]


async def test_person_with_a_token_is_answered(edge: Edge) -> None:
    """A valid token and a valid request reach the servicer, and its answer comes back."""
    answer = await edge.stub.GetUnreadCount(ASK, metadata=edge.as_person())
    assert answer.unread_count == 3


async def test_servicer_knows_its_caller(edge: Edge) -> None:
    """The identity is that of the token, whatever else the call carries."""
    user_id = uuid4()
    seen = []

    async def count() -> Counted:
        seen.append((current_identity().user_id, current_role()))
        return Counted()

    edge.inbox.count = count
    metadata = (*edge.as_person(user_id), ("x-user-id", str(uuid4())))
    await edge.stub.GetUnreadCount(ASK, metadata=metadata)
    assert seen == [(user_id, None)]


async def test_concurrent_callers_are_not_mixed_up(edge: Edge) -> None:
    """Fifty people at once, each call suspended in the middle: each sees itself."""
    everybody = asyncio.Event()
    inside = []

    async def count() -> Counted:
        inside.append(current_identity().user_id)
        if len(inside) == 50:
            everybody.set()
        await everybody.wait()
        return Counted(unread_count=current_identity().user_id.int % 1000)  # type: ignore[union-attr]

    edge.inbox.count = count
    people = [uuid4() for _ in range(50)]
    answers = await asyncio.gather(
        *(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person(one)) for one in people)
    )
    assert [answer.unread_count for answer in answers] == [one.int % 1000 for one in people]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer x.y.z"),),
        (("authorization", "Basic dXNlcjpwYXNz"),),
        (*bearer("x.y.z"), *bearer("x.y.z")),
    ],
    ids=["none", "empty", "no token", "garbage", "another scheme", "two"],
)
async def test_caller_without_a_good_token_is_unauthenticated(
    edge: Edge, metadata: tuple[tuple[str, str], ...]
) -> None:
    """UNAUTHENTICATED with its reason, and the same words each time."""
    refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=metadata))
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert refusal.message == "A valid bearer token is required."


async def test_two_tokens_are_refused_even_if_one_is_good(edge: Edge) -> None:
    """Which of them a proxy has looked at is anybody's guess."""
    metadata = (*edge.as_person(), *edge.as_person())
    assert (await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=metadata))).code == CODE.UNAUTHENTICATED


async def test_expired_token_is_told_apart(edge: Edge) -> None:
    """A client learns that fetching a new token will help."""
    metadata = bearer(edge.mint.mint_user_token(uuid4(), lifetime_s=-60))
    assert (await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=metadata))).reason == "TOKEN_EXPIRED"


async def test_service_may_not_call_what_is_a_persons_own(edge: Edge) -> None:
    """Its scopes do not make it a person."""
    refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_service("internal")))
    assert (refusal.code, refusal.reason) == (CODE.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_role_is_looked_up_at_each_call(edge: Edge) -> None:
    """A role given and taken counts from the next call on."""
    user_id = uuid4()
    codes = []
    for role in (None, "coordinator", "couple"):
        edge.directory.roles = {} if role is None else {user_id: role}
        try:
            await edge.stub.ListReceipts(
                inbox_pb2.ListReceiptsRequest(broadcast_id=str(uuid4())), metadata=edge.as_person(user_id)
            )
            codes.append("OK")
        except grpc.aio.AioRpcError as error:
            codes.append(error.code().name)
    assert codes == ["PERMISSION_DENIED", "OK", "PERMISSION_DENIED"]


async def test_directory_that_is_down_makes_the_call_unavailable(edge: Edge) -> None:
    """Nobody is let in on a guess, and the caller may try again."""
    edge.directory.failure = DependencyUnavailable("The directory cannot be reached.", retry_after_s=2)
    ask = inbox_pb2.ListReceiptsRequest(broadcast_id=str(uuid4()))
    refusal = await refusal_of(edge.stub.ListReceipts(ask, metadata=edge.as_person()))
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == (
        CODE.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
        2.0,
    )


async def test_right_comes_before_rules(edge: Edge) -> None:
    """A stranger's broken request gets the same refusal as a good one, and no lesson about fields."""
    for metadata, expected in (
        ((), CODE.UNAUTHENTICATED),
        (edge.as_service("other"), CODE.PERMISSION_DENIED),
    ):
        refusal = await refusal_of(edge.stub.RecordReceipts(BAD_RECEIPTS, metadata=metadata))
        assert (refusal.code, refusal.fields) == (expected, ())
        assert await raw_code(edge, "RecordReceipts", b"\xff\xff\xff", metadata) == expected
    assert edge.inbox.requests == []


async def raw_code(
    edge: Edge, method: str, content: bytes, metadata: tuple[tuple[str, str], ...]
) -> grpc.StatusCode | None:
    """The status of a call with arbitrary bytes, None for OK."""
    try:
        await edge.raw(method, content, metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_every_broken_field_is_told_at_once(edge: Edge) -> None:
    """INVALID_ARGUMENT with a BadRequest that names each field by its path."""
    refusal = await refusal_of(edge.stub.RecordReceipts(BAD_RECEIPTS, metadata=edge.as_person()))
    assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refusal.fields) >= {"request_id", "broadcast_ids[0]", "broadcast_ids[2]", "action"}
    assert edge.inbox.requests == []


async def test_violations_without_number_still_arrive(edge: Edge) -> None:
    """A status that outgrew the trailers would arrive as another error altogether."""
    bad = inbox_pb2.RecordReceiptsRequest(broadcast_ids=["nobody"] * 100, request_id="x" * 3_000)
    refusal = await refusal_of(edge.stub.RecordReceipts(bad, metadata=edge.as_person()))
    assert refusal.code == CODE.INVALID_ARGUMENT
    assert "are listed" in refusal.message


@pytest.mark.parametrize(
    "content",
    [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x03\xed\xa0\x80", b"\x0a\x02\xff\xfe"],
    ids=["noise", "cut", "lone surrogate", "not UTF-8"],
)
async def test_bytes_that_are_no_message_are_an_invalid_argument(edge: Edge, content: bytes) -> None:
    """What gRPC itself would call an unknown error of the server."""
    refusal = await refusal_of(edge.raw("RecordReceipts", content, edge.as_person()))
    assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_nul_is_an_invalid_argument(edge: Edge) -> None:
    """It is refused at the edge by its field, before any database sees it."""
    ask = inbox_pb2.ListInboxItemsRequest(search="cake\0")
    refusal = await refusal_of(edge.stub.ListInboxItems(ask, metadata=edge.as_person()))
    assert (refusal.code, refusal.fields) == (CODE.INVALID_ARGUMENT, ("search",))


async def test_list_that_is_too_long_is_too_large(edge: Edge) -> None:
    """RESOURCE_EXHAUSTED with the list's name, however broken its values are."""
    ask = inbox_pb2.RecordReceiptsRequest(broadcast_ids=["x"] * 100_000)
    refusal = await refusal_of(edge.stub.RecordReceipts(ask, metadata=edge.as_person()))
    assert (refusal.code, refusal.reason, refusal.fields) == (
        CODE.RESOURCE_EXHAUSTED,
        "TOO_LARGE",
        ("broadcast_ids",),
    )


async def test_message_that_is_too_large_is_not_read(edge: Edge) -> None:
    """Past the size limit gRPC refuses it itself."""
    assert (
        await raw_code(edge, "RecordReceipts", b"\0" * (5 << 20), edge.as_person()) == CODE.RESOURCE_EXHAUSTED
    )


async def test_method_that_is_not_served_yet_says_so_to_callers_only(edge: Edge) -> None:
    """UNIMPLEMENTED with its reason for whoever may call it; the others are refused as anywhere."""
    ask = inbox_pb2.PinItemRequest()
    refusal = await refusal_of(edge.stub.PinItem(ask, metadata=edge.as_person()))
    assert (refusal.code, refusal.reason) == (CODE.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert (await refusal_of(edge.stub.PinItem(ask))).code == CODE.UNAUTHENTICATED
    assert (
        await refusal_of(edge.stub.PinItem(ask, metadata=edge.as_service("x")))
    ).code == CODE.PERMISSION_DENIED


async def test_method_that_does_not_exist_says_so_to_callers_only(edge: Edge) -> None:
    """A name that nobody serves is asked for a token like any other."""
    refusal = await refusal_of(edge.raw("NoSuchMethod", b"", edge.as_person()))
    assert (refusal.code, refusal.reason) == (CODE.UNIMPLEMENTED, "UNIMPLEMENTED")
    assert (await refusal_of(edge.raw("NoSuchMethod", b""))).code == CODE.UNAUTHENTICATED


async def test_method_without_a_right_is_for_nobody(tmp_path: Path) -> None:
    """Forgetting to declare it opens nothing, and the start says what is missing."""
    with capture_logs() as lines:
        async with serving(tmp_path, rights={**RIGHTS, "GetMoon": any_person()}) as edge:
            ask = inbox_pb2.SnoozeItemRequest()
            for metadata in (edge.as_person(), edge.as_service("internal")):
                refusal = await refusal_of(edge.stub.SnoozeItem(ask, metadata=metadata))
                assert refusal.code == CODE.PERMISSION_DENIED
    (told,) = [line for line in lines if line["event"] == "rights_do_not_match"]
    assert (told["rpc_service"], told["missing"], told["unknown"]) == (INBOX, ("SnoozeItem",), ("GetMoon",))


async def test_error_of_the_contract_reaches_the_caller(edge: Edge) -> None:
    """What a servicer raises arrives with its status, reason, message and metadata."""

    async def count() -> Counted:
        raise NotFound("There is no inbox.", metadata={"since": "noon"})

    edge.inbox.count = count
    refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))
    assert (refusal.code, refusal.reason, refusal.message, refusal.metadata) == (
        CODE.NOT_FOUND,
        "NOT_FOUND",
        "There is no inbox.",
        {"since": "noon"},
    )


async def test_defect_tells_the_caller_an_id_and_the_log_the_rest(edge: Edge) -> None:
    """INTERNAL with a correlation id and nothing else; the log has the traceback under that id."""

    async def count() -> Counted:
        raise KeyError("ana@example.com")

    edge.inbox.count = count
    with capture_logs() as lines:
        refusal = await refusal_of(
            edge.stub.GetUnreadCount(ASK, metadata=(*edge.as_person(), (CORRELATION_KEY, "c0ffee-1")))
        )
    assert (refusal.code, refusal.reason, refusal.metadata) == (
        CODE.INTERNAL,
        "INTERNAL",
        {"correlation_id": "c0ffee-1"},
    )
    assert refusal.message == "A defect on our side; quote the correlation id. It is c0ffee-1."
    (defect,) = [line for line in lines if line["event"] == "internal_error"]
    assert isinstance(defect["exc_info"], KeyError)


@pytest.mark.parametrize("given", [None, "", "x" * 65, "two words", "drop;table"])
async def test_call_without_a_usable_id_gets_one(edge: Edge, given: str | None) -> None:
    """What is not plainly an id never reaches a log line."""
    seen = []

    async def count() -> Counted:
        seen.append(correlation_id.get())
        return Counted()

    edge.inbox.count = count
    metadata = edge.as_person() if given is None else (*edge.as_person(), (CORRELATION_KEY, given))
    await edge.stub.GetUnreadCount(ASK, metadata=metadata)
    assert [(len(each or ""), each == given) for each in seen] == [(16, False)]


@pytest.mark.parametrize(
    "outage",
    [ConnectionResetError(), TimeoutError(), ExceptionGroup("tasks", [ConnectionResetError()])],
    ids=repr,
)
async def test_outage_below_is_unavailable(edge: Edge, outage: Exception) -> None:
    """A lost connection that nobody translated is no defect: the caller may try again."""

    async def count() -> Counted:
        raise outage

    edge.inbox.count = count
    refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == (
        CODE.UNAVAILABLE,
        "DEPENDENCY_UNAVAILABLE",
        1.0,
    )


async def test_answer_of_the_wrong_kind_is_a_defect(edge: Edge) -> None:
    """A servicer that returns no message is found out by an INTERNAL error, not by a silent hang."""

    async def count() -> Counted:
        return None  # type: ignore[return-value]

    edge.inbox.count = count
    assert (await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))).code == CODE.INTERNAL


async def endless() -> Counted:
    """A servicer that never comes to an end."""
    await asyncio.Event().wait()
    return Counted()


async def test_call_without_a_deadline_gets_ours(tmp_path: Path) -> None:
    """A caller who would wait for ever is told DEADLINE_EXCEEDED."""
    async with serving(tmp_path, limits=CallLimits(deadline_s=0.05)) as edge:
        edge.inbox.count = endless
        refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))
        assert (refusal.code, refusal.reason) == (CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_callers_own_deadline_holds(tmp_path: Path) -> None:
    """A call that names a later deadline than ours may take that long."""
    async with serving(tmp_path, limits=CallLimits(deadline_s=0.01)) as edge:

        async def slow() -> Counted:
            await asyncio.sleep(0.05)
            return Counted(unread_count=7)

        edge.inbox.count = slow
        assert (await edge.stub.GetUnreadCount(ASK, metadata=edge.as_person(), timeout=10)).unread_count == 7


@pytest.mark.parametrize(("deadline_s", "code"), [(0.05, "DEADLINE_EXCEEDED"), (None, "CANCELLED")])
async def test_caller_who_leaves_ends_the_work(edge: Edge, deadline_s: float | None, code: str) -> None:
    """At a deadline or a cancel the servicer's task is cancelled, and the line says which it was."""
    ended, started = asyncio.Event(), asyncio.Event()

    async def count() -> Counted:
        try:
            started.set()
            return await endless()
        finally:
            ended.set()

    edge.inbox.count = count
    with capture_logs() as lines:
        call = edge.stub.GetUnreadCount(ASK, metadata=edge.as_person(), timeout=deadline_s)
        async with asyncio.timeout(5):
            await started.wait()
            if deadline_s is None:
                call.cancel()
            await ended.wait()
            await edge.interceptor.traffic.wait_until_idle()
            while not rpc_lines(lines):
                await asyncio.sleep(0)
    assert [line["code"] for line in rpc_lines(lines)] == [code]
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call


async def test_call_for_which_there_is_no_room_is_refused(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED with a delay; when one has ended there is room again."""
    async with serving(tmp_path, limits=CallLimits(max_calls=2)) as edge:
        entered, release = asyncio.Semaphore(0), asyncio.Event()

        async def count() -> Counted:
            entered.release()
            await release.wait()
            return Counted()

        edge.inbox.count = count
        running = [
            asyncio.ensure_future(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person())) for _ in range(2)
        ]
        await entered.acquire()
        await entered.acquire()
        refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))
        assert (refusal.code, refusal.reason, refusal.retry_after_s) == (
            CODE.RESOURCE_EXHAUSTED,
            "TOO_MANY_CALLS",
            1.0,
        )
        release.set()
        await asyncio.gather(*running)
        edge.inbox.count = count_three
        assert (await edge.stub.GetUnreadCount(ASK, metadata=edge.as_person())).unread_count == 3


async def test_every_call_leaves_one_line_without_names(edge: Edge) -> None:
    """Method, status, time, kind of caller, request id and reason; nobody's id."""
    user_id, request_id = uuid4(), str(uuid4())
    good = inbox_pb2.RecordReceiptsRequest(
        request_id=request_id, broadcast_ids=[str(uuid4())], action=common_pb2.RECEIPT_ACTION_READ
    )
    with capture_logs() as lines:
        await edge.stub.RecordReceipts(good, metadata=edge.as_person(user_id))
        await refusal_of(edge.stub.RecordReceipts(BAD_RECEIPTS, metadata=edge.as_person(user_id)))
        await refusal_of(edge.stub.RecordReceipts(good))
    told = [
        {name: line.get(name) for name in ("method", "code", "caller", "reason")} for line in rpc_lines(lines)
    ]
    assert told == [
        {"method": "InboxService/RecordReceipts", "code": "OK", "caller": "user", "reason": None},
        {
            "method": "InboxService/RecordReceipts",
            "code": "INVALID_ARGUMENT",
            "caller": "user",
            "reason": "INVALID_FIELD",
        },
        {
            "method": "InboxService/RecordReceipts",
            "code": "UNAUTHENTICATED",
            "caller": None,
            "reason": "UNAUTHENTICATED",
        },
    ]
    assert [line.get("request_id") for line in rpc_lines(lines)] == [request_id, None, None]
    assert all(line["ms"] >= 0 for line in rpc_lines(lines))
    assert str(user_id) not in json.dumps(lines, default=str)


async def test_repeated_request_is_answered_before_its_right_is_asked(tmp_path: Path) -> None:
    """An answer that was given once is given again, whatever has become of the caller's role since."""
    first = str(uuid4())

    async def replay(request: inbox_pb2.RecordReceiptsRequest) -> Message | None:
        is_known = current_identity().user_id is not None and request.request_id == first
        return inbox_pb2.RecordReceiptsResponse(unread_count=42) if is_known else None

    rights = {**RIGHTS, "RecordReceipts": roles("admin")}
    async with serving(tmp_path, rights=rights, replays={"RecordReceipts": replay}) as edge:
        again = inbox_pb2.RecordReceiptsRequest(request_id=first)
        assert (await edge.stub.RecordReceipts(again, metadata=edge.as_person())).unread_count == 42
        new = inbox_pb2.RecordReceiptsRequest(request_id=str(uuid4()))
        assert (
            await refusal_of(edge.stub.RecordReceipts(new, metadata=edge.as_person()))
        ).code == CODE.PERMISSION_DENIED
        assert (await refusal_of(edge.stub.RecordReceipts(again))).code == CODE.UNAUTHENTICATED
        assert edge.inbox.requests == []


async def test_right_that_names_roles_needs_somebody_to_ask(tmp_path: Path) -> None:
    """A server that cannot look roles up refuses to start with such a right."""
    with pytest.raises(ValueError, match="ListReceipts names roles, and nothing looks them up"):
        async with serving(tmp_path, with_directory=False):
            raise AssertionError("it has started")
