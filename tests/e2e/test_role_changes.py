"""Roles are read at each call: whoever is given one, or loses it, is treated so from the next call on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.message import Message
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.directory_pb2 import GetRecipientRequest, GetRecipientResponse
from wedsync.broadcast.v1.dispatcher_pb2 import GetDispatchRequest
from wedsync.broadcast.v1.inbox_pb2 import ListReceiptsRequest
from wedsync.broadcast.v1.sender_pb2 import (
    CancelBroadcastRequest,
    GetBroadcastRequest,
    PreviewAudienceRequest,
    WatchBroadcastRequest,
)

from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, Metadata, broadcast, refusal
from tests.e2e.screens import ENDS_WITHIN_S
from tests.e2e.two_weddings import Member, add_wedding, bring, tomorrow
from tests.e2e.wall_calls import Answer, Asking
from tests.e2e.wall_rules import UNSERVED

Code = grpc.StatusCode
ROLES = ("florist", "coordinator", "admin")
REFUSED, HIDDEN, SERVED = Code.PERMISSION_DENIED, Code.NOT_FOUND, Code.OK

EXPECTED = {
    # As a florist, as a coordinator, as an admin.
    "send to the team": (REFUSED, SERVED, SERVED),
    "send to all": (REFUSED, REFUSED, SERVED),
    "preview": (REFUSED, SERVED, SERVED),
    "read what is for the team": (REFUSED, SERVED, SERVED),
    "read what is for others": (REFUSED, HIDDEN, SERVED),
    "look at a plan that is not made": (REFUSED, REFUSED, HIDDEN),
    "look up a colleague": (HIDDEN, SERVED, SERVED),
    "look up a stranger": (HIDDEN, HIDDEN, SERVED),
}


@dataclass(frozen=True, slots=True)
class Somebody:
    """Whoever changes roles: on a team for which there is a broadcast for tomorrow, as there is one for others."""

    client: Client
    asking: Asking
    member: Member
    colleague: Member
    wedding_id: str
    inside: str
    outside: str
    metadata: Metadata

    @classmethod
    async def join(cls, client: Client, asking: Asking) -> "Somebody":
        """A florist, at first."""
        member, colleague = Member("florist", "florist"), Member("couple", "couple")
        await bring(client, [member, colleague])
        wedding_id = await add_wedding(client, member, colleague)
        later = tomorrow()
        inside = await client.send("admin", type="form.locked", wedding_id=wedding_id, scheduled_for=later)
        others = Targeting(roles=["astronaut"])
        outside = await client.send("admin", targeting=others, scheduled_for=later)
        metadata = client.person(member.user_id)
        return cls(client, asking, member, colleague, wedding_id, inside, outside, metadata)

    async def become(self, role: str) -> None:
        """From when this returns, the directory gives them this role."""
        await bring(self.client, [self.member], role)

    async def ask(self, rpc: str, request: Message) -> Answer:
        """What they are answered, with the token that they have had from the beginning."""
        return await self.asking.ask(rpc, self.metadata, request.SerializeToString())

    async def codes(self) -> dict[str, Code]:
        """How they are answered now, by what they do."""
        return {name: (await self.ask(*call)).code for name, call in self._calls().items()}

    def _calls(self) -> dict[str, tuple[str, Message]]:
        to_team = broadcast(type="form.locked", wedding_id=self.wedding_id, validate_only=True)
        preview = PreviewAudienceRequest(type="form.locked", wedding_id=self.wedding_id)
        return {
            "send to the team": ("SendBroadcast", to_team),
            "send to all": ("SendBroadcast", broadcast(validate_only=True)),
            "preview": ("PreviewAudience", preview),
            "read what is for the team": ("GetBroadcast", GetBroadcastRequest(broadcast_id=self.inside)),
            "read what is for others": ("GetBroadcast", GetBroadcastRequest(broadcast_id=self.outside)),
            "look at a plan that is not made": (
                "GetDispatch",
                GetDispatchRequest(broadcast_id=self.outside),
            ),
            "look up a colleague": (
                "GetRecipient",
                GetRecipientRequest(user_id=str(self.colleague.user_id)),
            ),
            "look up a stranger": ("GetRecipient", GetRecipientRequest(user_id=str(demo_id("venue")))),
        }


@pytest.fixture
async def somebody(client: Client) -> AsyncIterator[Somebody]:
    """Somebody new for each test."""
    async with Asking(client) as asking:
        yield await Somebody.join(client, asking)


async def test_a_role_holds_from_the_next_call_on(somebody: Somebody) -> None:
    """Given or taken, up or down, in every service that asks for one."""
    for role in ("florist", "coordinator", "admin", "florist", "admin", "coordinator", "florist"):
        await somebody.become(role)
        column = ROLES.index(role)
        assert (role, await somebody.codes()) == (
            role,
            {name: codes[column] for name, codes in EXPECTED.items()},
        )


async def test_who_sees_receipts_is_asked_at_each_call_too(somebody: Somebody) -> None:
    """Florists never do; coordinators and admins come as far as the answer, once there is one."""
    request = ListReceiptsRequest(broadcast_id=somebody.inside)
    for role in ("coordinator", "florist", "admin", "florist"):
        await somebody.become(role)
        code = (await somebody.ask("ListReceipts", request)).code
        may_be = {Code.UNIMPLEMENTED} if "ListReceipts" in UNSERVED else {SERVED}
        assert (role, code in (may_be if role != "florist" else {REFUSED})) == (role, True)


async def test_addresses_go_with_the_admin_role(somebody: Somebody) -> None:
    """An admin sees how people are reached, and a coordinator of the same wedding does not."""
    request = GetRecipientRequest(user_id=str(somebody.colleague.user_id))
    seen = {}
    for role in ("admin", "coordinator"):
        await somebody.become(role)
        answer = GetRecipientResponse.FromString((await somebody.ask("GetRecipient", request)).body)
        seen[role] = answer.recipient.email
    assert seen == {"admin": somebody.colleague.email, "coordinator": ""}


async def test_what_an_admin_sent_is_theirs_no_more_without_a_role(somebody: Somebody) -> None:
    """An ordinary person neither sees nor stops it, with any token; another admin stops it."""
    await somebody.become("admin")
    nobody = Targeting(roles=["astronaut"])
    own = await somebody.client.send(somebody.metadata, targeting=nobody, scheduled_for=tomorrow())
    await somebody.become("florist")
    for rpc, request in (
        ("GetBroadcast", GetBroadcastRequest(broadcast_id=own)),
        ("CancelBroadcast", CancelBroadcastRequest(broadcast_id=own)),
    ):
        assert (await somebody.ask(rpc, request)).code is REFUSED
    cancel = CancelBroadcastRequest(broadcast_id=own)
    admin = somebody.client.person("admin")
    await somebody.client.sender.CancelBroadcast(cancel, metadata=admin, timeout=CALL_S)


@pytest.mark.parametrize("role", ["coordinator", "admin"])
async def test_an_open_watch_ends_with_the_role_that_opened_it(somebody: Somebody, role: str) -> None:
    """Within half a minute, whatever it watches."""
    await somebody.become(role)
    request = WatchBroadcastRequest(broadcast_id=somebody.inside)
    watch = somebody.client.sender.WatchBroadcast(request, metadata=somebody.metadata)
    await watch.read()
    await somebody.become("florist")
    async with asyncio.timeout(ENDS_WITHIN_S):
        code, _ = await refusal(watch.read())
    assert code is REFUSED
