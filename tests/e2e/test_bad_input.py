"""What is wrong with a request: every kind of broken field, list and byte, through a real channel."""

from collections.abc import Awaitable, Callable
from typing import cast
from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1.common_pb2 import Action, Priority, Targeting
from wedsync.broadcast.v1.sender_pb2 import (
    Escalation,
    SendBroadcastRequest,
)

from shared.errors import ServiceError
from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, broadcast, fields_of, refusal, refused_send

WEDDING = str(demo_id("wedding-1"))
NOWHERE = "00000000-0000-4000-8000-000000000000"
Code = grpc.StatusCode


async def _send(
    client: Client, request: SendBroadcastRequest, who: str = "admin"
) -> tuple[Code, ServiceError]:
    return await refusal(client.sender.SendBroadcast(request, metadata=client.person(who), timeout=CALL_S))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "two\nlines"}, "title"),
        ({"message": ""}, "message"),
        ({"message": "x" * 1_001}, "message"),
        ({"message": "bell\x07"}, "message"),
        ({"title": "nul\x00"}, "title"),
        ({"type": ""}, "type"),
        ({"type": "wedding.party"}, "type"),
        ({"type": "feature.released", "priority": Priority.PRIORITY_CRITICAL}, "priority"),
        ({"priority": 99}, "priority"),
        ({"request_id": "not-a-uuid"}, "request_id"),
        ({"type": "timeline.changed"}, "wedding_id"),
        ({"wedding_id": "not-a-uuid"}, "wedding_id"),
        ({"targeting": None}, "targeting"),
        ({"targeting": Targeting()}, "targeting"),
        ({"targeting": Targeting(everyone=True, roles=["florist"])}, "targeting.everyone"),
        ({"targeting": Targeting(user_ids=["x"])}, "targeting.user_ids[0]"),
        ({"targeting": Targeting(roles=["Not A Slug"])}, "targeting.roles[0]"),
        ({"action": Action(label="", url="/x")}, "action.label"),
        ({"action": Action(label="Open", url="javascript:alert(1)")}, "action.url"),
        ({"action": Action(label="Open", url="//evil.example")}, "action.url"),
        ({"action": Action(label="Open", url="https://user:secret@example.com/")}, "action.url"),
        ({"escalation": Escalation()}, "escalation"),
    ],
)
async def test_a_broken_field_is_named(client: Client, changed: dict[str, object], field: str) -> None:
    """INVALID_ARGUMENT names the field and the rule, and nothing is sent."""
    code, details = await refused_send(client, broadcast(**changed))
    assert (code, details.reason_name) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in fields_of(details)
    assert all(violation.description for violation in details.violations)


async def test_all_broken_fields_are_named_at_once(client: Client) -> None:
    """One answer has them all, those of the contract's rules and those of the domain."""
    request = broadcast(title="", message="x" * 1_001, type="wedding.party", priority=99)
    _, details = await refused_send(client, request)
    assert {"title", "message", "type", "priority"} <= set(fields_of(details))


async def test_times_are_checked(client: Client) -> None:
    """More than a minute in the past, more than a year ahead, and an expiry before the schedule are refused."""
    past, far, expired = broadcast(), broadcast(), broadcast()
    for request in (past, far, expired):
        request.scheduled_for.GetCurrentTime()
    past.scheduled_for.seconds -= 120
    far.scheduled_for.seconds += 367 * 86_400
    expired.scheduled_for.seconds += 3_600
    expired.expires_at.GetCurrentTime()
    expired.expires_at.seconds += 1_800
    for request, field in ((past, "scheduled_for"), (far, "scheduled_for"), (expired, "expires_at")):
        code, details = await refused_send(client, request)
        assert (Code.INVALID_ARGUMENT, [field]) == (code, fields_of(details))


async def test_too_long_a_list_is_refused_before_it_is_read(client: Client) -> None:
    """1,001 user ids are too large, and the answer names the list."""
    request = broadcast(targeting=Targeting(user_ids=[str(uuid4()) for _ in range(1_001)]))
    code, details = await refused_send(client, request)
    assert (Code.RESOURCE_EXHAUSTED, ["targeting.user_ids"]) == (code, fields_of(details))


async def test_an_oversized_message_is_refused(client: Client) -> None:
    """What is larger than a server takes ends the call, and the next one is served."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.sender.SendBroadcast(
            broadcast(message="x" * 5_000_000), metadata=client.person("admin"), timeout=CALL_S
        )
    assert Code.RESOURCE_EXHAUSTED is refused.value.code()
    assert await client.items("admin") is not None


@pytest.mark.parametrize(
    "body",
    [
        b"\x22\x03\xed\xa0\x80",  # title: a lone surrogate
        b"\x22\x02\xc3\x28",  # title: broken UTF-8
        b"\x22\x7f",  # title: longer than the message
        b"\xff\xff\xff\xff",  # no message at all
    ],
)
async def test_a_broken_message_is_refused(client: Client, body: bytes) -> None:
    """Bytes that are no valid message are INVALID_ARGUMENT with details, not INTERNAL."""
    address = client.stack.environment["SENDER_ADDR"]
    async with grpc.aio.insecure_channel(address) as channel:
        call: Callable[..., object] = channel.unary_unary("/wedsync.broadcast.v1.SenderService/SendBroadcast")
        code, details = await refusal(
            cast("Awaitable[object]", call(body, metadata=client.person("admin"), timeout=CALL_S))
        )
    assert (code, details.reason_name) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_lone_surrogate_cannot_leave_the_client() -> None:
    """The library refuses it before it is sent, so no bytes of it can be stored."""
    with pytest.raises(UnicodeEncodeError):
        broadcast(title="\ud800").SerializeToString()
