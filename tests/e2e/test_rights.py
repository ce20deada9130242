"""Who gets past the edge of the running suite: the table of rights for every RPC, and tokens that are forged."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import cast

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from wedsync.broadcast.v1.directory_pb2 import GetRecipientRequest
from wedsync.broadcast.v1.inbox_pb2 import GetUnreadCountRequest

from stack.tokens import AUDIENCE, ISSUER
from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, Metadata, bearer, broadcast, refusal

Code = grpc.StatusCode

PEOPLE = frozenset({"person", "coordinator", "admin"})
SENDERS = frozenset({"coordinator", "admin", "broadcast.send", "broadcast.send:trial.ending"})
READERS = frozenset({"coordinator", "admin", "broadcast.read"})
OPERATORS = frozenset({"admin", "dispatch.operate"})
SEGMENT_WRITERS = frozenset({"admin", "directory.write"})
INTERNAL = frozenset({"internal"})
NOBODY_ELSE = frozenset(
    {"broadcast.send:", "broadcast.sender", "broadcast", "internal:all", "INTERNAL", "directory.admin"}
)
# product.md's table of rights, by method.
TABLE: dict[str, frozenset[str]] = {
    **dict.fromkeys(("SendBroadcast", "PreviewAudience", "CancelBroadcast", "GetQuota"), SENDERS),
    # Who sends sees what they sent.
    **dict.fromkeys(("GetBroadcast", "ListBroadcasts", "WatchBroadcast"), SENDERS | READERS),
    **dict.fromkeys(("GetAnalytics", "ListReceipts", "ListDeliveries"), READERS),
    **dict.fromkeys(("ApproveBroadcast", "RejectBroadcast"), frozenset({"admin"})),
    **dict.fromkeys(("ListAuditEvents", "VerifyAuditLog"), frozenset({"admin", "audit.read"})),
    **dict.fromkeys(("CleanUp", "RetryDeliveries", "PauseDispatch", "ResumeDispatch"), OPERATORS),
    **dict.fromkeys(("ListDeadLetters", "ReplayDeadLetters"), OPERATORS),
    **dict.fromkeys(("ListAddressSuppressions", "LiftAddressSuppression"), OPERATORS),
    **dict.fromkeys(("GetDispatchOrder", "StopDispatch", "RetractBroadcast", "ApplyTeamChange"), INTERNAL),
    **dict.fromkeys(("GetEngagement", "ListReaders", "ResolveAudience", "ReevaluateAudience"), INTERNAL),
    **dict.fromkeys(("CleanUpInboxes", "CleanUpDispatches", "CleanUpDirectory"), INTERNAL),
    **dict.fromkeys(("ListShownBroadcasts", "CountSegmentUses", "CheckBroadcastAccess"), INTERNAL),
    "ListChanges": INTERNAL,
    **dict.fromkeys(("EraseInbox", "RefreshContents", "ErasePerson"), INTERNAL),
    **dict.fromkeys(("ExportInbox", "ExportPerson", "ExportDeliveries"), INTERNAL),
    **dict.fromkeys(
        ("CountAudience", "CheckWeddingAccess", "LookupRecipients", "RecordAuditEvents"), INTERNAL
    ),
    **dict.fromkeys(("ListInboxItems", "GetInboxItem", "GetUnreadCount", "RecordReceipts"), PEOPLE),
    **dict.fromkeys(("MarkAllRead", "SnoozeItem", "PinItem", "WatchInbox"), PEOPLE),
    **dict.fromkeys(("GetPreferences", "UpdatePreferences", "ResetPreferences"), PEOPLE),
    **dict.fromkeys(("GetRecommendedPreferences", "RegisterPushSubscription"), PEOPLE),
    "DeletePushSubscription": PEOPLE,
    "ConnectInboxes": frozenset({"inbox.connect"}),
    **dict.fromkeys(("UpsertRecipients", "UpsertWeddings", "SetWeddingTeam"), frozenset({"directory.write"})),
    "GetRecipient": PEOPLE | {"directory.read", "directory.write"},
    **dict.fromkeys(("CreateSegment", "UpdateSegment", "DeleteSegment"), SEGMENT_WRITERS),
    **dict.fromkeys(("GetSegment", "ListSegments"), frozenset({"coordinator", "admin", "directory.read"})),
    **dict.fromkeys(("ExportRecipient", "EraseRecipient"), PEOPLE | {"privacy"}),
    "GetDispatch": frozenset({"admin", "broadcast.read", "internal"}),
    "ExplainDelivery": PEOPLE | {"broadcast.read"},
    "ReportDelivery": frozenset({"delivery.report"}),
}
SERVED = {
    "sender": ("SenderService",),
    "inbox": ("InboxService",),
    "preferences": ("PreferencesService", "DirectoryService", "AudienceService"),
    "dispatcher": ("DispatcherService",),
}


def _id(name: str) -> str:
    return str(demo_id(name))


def _callers(client: Client) -> dict[str, Metadata]:
    people = {"person": "couple-amara", "coordinator": "outsider", "admin": "admin"}
    scopes = frozenset[str]().union(*TABLE.values()) - PEOPLE | NOBODY_ELSE
    return {name: client.person(who) for name, who in people.items()} | {
        scope: client.service(scope) for scope in scopes
    }


async def _is_let_in(channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Metadata) -> bool:
    """Whether an empty request comes past the edge, to an answer or to whatever is wrong with it."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    # Serves for methods of every kind; a client that streams requests stumbles when it is refused before the first.
    open_stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
    call = open_stream(b"", metadata=metadata, timeout=CALL_S)
    code = Code.OK
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        code = error.code()
    call.cancel()
    assert code not in (Code.INTERNAL, Code.UNKNOWN, Code.UNAUTHENTICATED, Code.DEADLINE_EXCEEDED)
    return code is not Code.PERMISSION_DENIED


@pytest.mark.parametrize("server", SERVED)
async def test_every_rpc_is_for_its_row_of_the_table_alone(client: Client, server: str) -> None:
    """Every kind of person and every scope, also misspelt ones and lists of nothing, against every method."""
    callers = _callers(client)
    async with grpc.aio.insecure_channel(client.stack.environment[f"{server.upper()}_ADDR"]) as channel:
        for service in SERVED[server]:
            full_name = f"wedsync.broadcast.v1.{service}"
            for method in descriptor_pool.Default().FindServiceByName(full_name).methods:
                let_in = [await _is_let_in(channel, method, metadata) for metadata in callers.values()]
                admitted = frozenset(name for name, is_in in zip(callers, let_in, strict=True) if is_in)
                assert (method.name, TABLE[method.name]) == (method.name, admitted)


def _forgeries(client: Client) -> dict[str, str]:
    """Tokens that are wrong in one way each; the stack's own key signs those whose signature is not what is wrong."""
    keys = client.stack.state.keys
    own = cast(
        "Ed25519PrivateKey", serialization.load_pem_private_key((keys / "signing.pem").read_bytes(), None)
    )
    public = own.public_key().public_bytes_raw()
    key_id = jwt.get_unverified_header(client.token("admin"))["kid"]
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": _id("admin"), "exp": int(time.time()) + 600}

    def signed(claims: dict[str, object], by: Ed25519PrivateKey = own, kid: str = key_id) -> str:
        return jwt.encode(claims, by, algorithm="EdDSA", headers={"kid": kid})

    def by_hand(algorithm: str, sign: Callable[[bytes], bytes]) -> str:
        head = _base64(json.dumps({"alg": algorithm, "kid": key_id}).encode())
        body = head + b"." + _base64(json.dumps(good).encode())
        return (body + b"." + _base64(sign(body))).decode()

    return {
        "another key": signed(good, Ed25519PrivateKey.generate()),
        "an unknown key id": signed(good, kid="unknown"),
        "no algorithm": by_hand("none", lambda body: b""),
        "the public key as a secret": by_hand("HS256", lambda body: hmac.digest(public, body, "sha256")),
        "another audience": signed({**good, "aud": "elsewhere"}),
        "another issuer": signed({**good, "iss": "elsewhere"}),
        "no expiry": signed({name: value for name, value in good.items() if name != "exp"}),
        "not valid yet": signed({**good, "nbf": int(time.time()) + 600}),
        "a subject that is no UUID, without scopes": signed({**good, "sub": "admin"}),
        "scopes in a list": signed({**good, "sub": "billing", "scope": ["internal"]}),
    }


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


async def test_forged_tokens_are_refused_alike(client: Client) -> None:
    """No service takes one, and none says what is wrong with it."""
    for kind, token in _forgeries(client).items():
        for call in (
            client.sender.SendBroadcast(broadcast(), metadata=bearer(token), timeout=CALL_S),
            client.inbox.GetUnreadCount(GetUnreadCountRequest(), metadata=bearer(token), timeout=CALL_S),
            client.directory.GetRecipient(GetRecipientRequest(), metadata=bearer(token), timeout=CALL_S),
        ):
            code, details = await refusal(call)
            assert (kind, code, details.reason_name) == (kind, Code.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert details.message == "A valid bearer token is required."


async def test_scopes_in_a_persons_token_are_worth_nothing(client: Client) -> None:
    """A subject that is a UUID is a person, whatever else the token says."""
    token = client.service("internal", "broadcast.send", "directory.write", name=_id("florist"))
    code, _ = await refusal(client.sender.SendBroadcast(broadcast(), metadata=token, timeout=CALL_S))
    assert Code.PERMISSION_DENIED is code
