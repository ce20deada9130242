"""The edge on a real port: who is not let in, what is refused before a servicer sees it, and in which order."""

from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import inbox_pb2

from shared.errors import DependencyUnavailable
from shared.rights import any_person
from tests.integration.shared.edge import ASK, BAD_RECEIPTS, INBOX, RIGHTS, Edge, bearer, refusal_of, serving

CODE = grpc.StatusCode


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


async def test_right_that_names_roles_needs_somebody_to_ask(tmp_path: Path) -> None:
    """A server that cannot look roles up refuses to start with such a right."""
    with pytest.raises(ValueError, match="ListReceipts names roles, and nothing looks them up"):
        async with serving(tmp_path, with_directory=False):
            raise AssertionError("it has started")
