"""The edge on a real port: what a call that is let in becomes, how long it may take, and what is told of it."""

import asyncio
import json
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
from shared.errors import NotFound
from shared.logging import correlation_id
from shared.rights import roles, scopes
from tests.integration.shared.edge import (
    ASK,
    BAD_RECEIPTS,
    RIGHTS,
    Counted,
    Edge,
    count_three,
    refusal_of,
    serving,
)

CODE = grpc.StatusCode


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


@pytest.mark.parametrize(("deadline_s", "code"), [(0.3, "DEADLINE_EXCEEDED"), (None, "CANCELLED")])
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


async def test_bytes_that_are_no_request_are_told_to_those_who_may_ask(tmp_path: Path) -> None:
    """Also where a repeated request is answered first, whoever has not the right hears of nothing else."""

    async def replay(request: inbox_pb2.RecordReceiptsRequest) -> Message | None:
        return None

    rights = {**RIGHTS, "RecordReceipts": roles("admin") | scopes("receipts")}
    async with serving(tmp_path, rights=rights, replays={"RecordReceipts": replay}) as edge:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = edge.channel.unary_unary(
            "/wedsync.broadcast.v1.InboxService/RecordReceipts"
        )
        codes = [
            (await refusal_of(call(b"\xff\xff", metadata=metadata))).code
            for metadata in (edge.as_person(), edge.as_service("receipts"))
        ]
        assert codes == [CODE.PERMISSION_DENIED, CODE.INVALID_ARGUMENT]


async def test_server_is_not_built_when_nothing_answers_a_repeated_request(tmp_path: Path) -> None:
    """A served method whose calls may have a request_id cannot be forgotten; that it sees to it itself must be said."""
    with pytest.raises(ValueError, match=r"InboxService\.RecordReceipts takes a request_id"):
        async with serving(tmp_path, replays={}):
            pass
    async with serving(tmp_path, replays={"RecordReceipts": None}) as edge:
        call = edge.stub.RecordReceipts(
            inbox_pb2.RecordReceiptsRequest(
                request_id=str(uuid4()),
                broadcast_ids=[str(uuid4())],
                action=common_pb2.RECEIPT_ACTION_READ,
            ),
            metadata=edge.as_person(),
        )
        assert (await call).unread_count == 1
