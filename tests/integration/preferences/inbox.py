"""The inbox as the preferences service meets it in its tests: keeps the teams that it is told, or is out of reach."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import add_DispatcherServiceServicer_to_server
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer, add_InboxServiceServicer_to_server
from wedsync.broadcast.v1.sender_pb2_grpc import add_SenderServiceServicer_to_server

from shared.audience import Audience
from tests.integration.preferences.pages import ToldDispatcher, a_page
from tests.integration.preferences.sender import ToldSender


@dataclass(frozen=True, slots=True)
class AppliedTeam:
    """A team as the inbox has it."""

    version: int
    members: frozenset[int]


@dataclass(slots=True)
class ToldInbox(InboxServiceServicer):
    """Truthful to the contract: a version that is not newer changes nothing. The others are at its address, too."""

    teams: dict[str, AppliedTeam] = field(default_factory=dict)
    erased: Counter[str] = field(default_factory=Counter)
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

    async def EraseInbox(
        self, request: inbox_pb2.EraseInboxRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.EraseInboxResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        self.erased[request.user_id] += 1
        return inbox_pb2.EraseInboxResponse()

    async def ExportInbox(
        self, request: inbox_pb2.ExportInboxRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.ExportInboxResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        records, token = a_page("inbox", request.page_token)
        return inbox_pb2.ExportInboxResponse(records=records, next_page_token=token)


@asynccontextmanager
async def told_inbox() -> AsyncIterator[ToldInbox]:
    """An inbox on a free port for the time of the block, with a sender beside it."""
    inbox, server = ToldInbox(), grpc.aio.server()
    add_InboxServiceServicer_to_server(inbox, server)
    add_SenderServiceServicer_to_server(inbox.sender, server)
    add_DispatcherServiceServicer_to_server(ToldDispatcher(), server)
    inbox.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield inbox
    await server.stop(None)
