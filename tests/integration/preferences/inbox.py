"""The inbox as the preferences service meets it in its tests: keeps the teams that it is told, or is out of reach."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer, add_InboxServiceServicer_to_server
from wedsync.broadcast.v1.sender_pb2_grpc import add_SenderServiceServicer_to_server

from shared.audience import Audience
from tests.integration.preferences.sender import ToldSender


@dataclass(frozen=True, slots=True)
class AppliedTeam:
    """A team as the inbox has it."""

    version: int
    members: frozenset[int]


@dataclass(slots=True)
class ToldInbox(InboxServiceServicer):
    """Truthful to the contract: a version that is not newer changes nothing. The sender is at its address, too."""

    teams: dict[str, AppliedTeam] = field(default_factory=dict)
    is_down: bool = False
    address: str = ""
    sender: ToldSender = field(default_factory=ToldSender)

    async def ApplyTeamChange(
        self, request: inbox_pb2.ApplyTeamChangeRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.ApplyTeamChangeResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        known = self.teams.get(request.wedding_id)
        if known is None or known.version < request.team_version:
            members = frozenset(Audience.from_bytes(request.members).to_list())
            known = self.teams[request.wedding_id] = AppliedTeam(request.team_version, members)
        return inbox_pb2.ApplyTeamChangeResponse(team_version=known.version)


@asynccontextmanager
async def told_inbox() -> AsyncIterator[ToldInbox]:
    """An inbox on a free port for the time of the block, with a sender beside it."""
    inbox, server = ToldInbox(), grpc.aio.server()
    add_InboxServiceServicer_to_server(inbox, server)
    add_SenderServiceServicer_to_server(inbox.sender, server)
    inbox.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield inbox
    await server.stop(None)
