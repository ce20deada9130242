"""The inbox's neighbours for its tests: small, truthful to the contract, and told by a test what they know."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import grpc
from wedsync.broadcast.v1 import audience_pb2, common_pb2, sender_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import (
    AudienceServiceServicer,
    add_AudienceServiceServicer_to_server,
)
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceServicer, add_SenderServiceServicer_to_server

from shared.audience import Audience
from shared.errors import DependencyUnavailable, NotFound, ServiceError

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Sender(SenderServiceServicer):
    """Knows what broadcasts say, counts how often it was asked, and keeps what it is told for the audit log."""

    def __init__(self) -> None:
        self.is_down = False
        self.orders: dict[str, sender_pb2.DispatchOrder] = {}
        self.asked: list[str] = []
        self.events: dict[str, sender_pb2.RecordedAuditEvent] = {}
        self.access: dict[tuple[str, str], sender_pb2.CheckBroadcastAccessResponse] = {}

    async def GetDispatchOrder(
        self, request: sender_pb2.GetDispatchOrderRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.GetDispatchOrderResponse:
        assert request.purpose == sender_pb2.DISPATCH_PURPOSE_CONTENT
        self.asked.append(request.broadcast_id)
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        if request.broadcast_id not in self.orders:
            await refuse(context, NotFound())
        return sender_pb2.GetDispatchOrderResponse(order=self.orders[request.broadcast_id])

    async def CheckBroadcastAccess(
        self, request: sender_pb2.CheckBroadcastAccessRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.CheckBroadcastAccessResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        asked = (request.broadcast_id, request.user_id)
        if asked not in self.access:
            await refuse(context, NotFound())
        return self.access[asked]

    async def RecordAuditEvents(
        self, request: sender_pb2.RecordAuditEventsRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.RecordAuditEventsResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        for event in request.events:
            self.events.setdefault(event.event_id, event)
        return sender_pb2.RecordAuditEventsResponse()


@dataclass(slots=True)
class Directory(AudienceServiceServicer):
    """Knows people by number and teams by version, and counts how often it was asked."""

    is_down: bool = False
    numbers: dict[str, int] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    teams: dict[str, tuple[int, Audience]] = field(default_factory=dict)
    asked: list[audience_pb2.LookupRecipientsRequest] = field(default_factory=list)

    async def LookupRecipients(
        self, request: audience_pb2.LookupRecipientsRequest, context: grpc.aio.ServicerContext
    ) -> audience_pb2.LookupRecipientsResponse:
        self.asked.append(request)
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        known = [each for each in request.user_ids if each in self.numbers]
        teams = [(each, *self.teams[each]) for each in request.wedding_ids if each in self.teams]
        users = {number: user_id for user_id, number in self.numbers.items()}
        named = [
            audience_pb2.RecipientNumber(
                user_id=users[each],
                number=each,
                role=self.roles.get(users[each], "couple"),
                display_name=f"Person {each}",
            )
            for each in request.numbers
            if each in users
        ]
        return audience_pb2.LookupRecipientsResponse(
            recipients=[
                *named,
                *(
                    audience_pb2.RecipientNumber(
                        user_id=each, number=self.numbers[each], role=self.roles.get(each, "couple")
                    )
                    for each in known
                ),
            ],
            teams=[
                audience_pb2.WeddingTeam(wedding_id=each, team_version=version, members=members.to_bytes())
                for each, version, members in teams
            ],
        )


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Both on one port."""

    sender: Sender
    directory: Directory
    address: str

    def broadcast(self, **fields: object) -> str:
        """A broadcast that the sender knows, with some fields otherwise; its id."""
        usual = {
            "broadcast_id": str(uuid4()),
            "type": "feature.released",
            "category": common_pb2.CATEGORY_SYSTEM,
            "priority": common_pb2.PRIORITY_NORMAL,
            "title": "New seating plans",
            "message": "Try them.",
        }
        order = sender_pb2.DispatchOrder(**(usual | fields))  # type: ignore[arg-type]
        self.sender.orders[order.broadcast_id] = order
        return order.broadcast_id


@asynccontextmanager
async def neighbours() -> AsyncIterator[Neighbours]:
    """Runs them for the time of the block."""
    sender, directory = Sender(), Directory()
    server = grpc.aio.server()
    add_SenderServiceServicer_to_server(sender, server)
    add_AudienceServiceServicer_to_server(directory, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Neighbours(sender, directory, f"127.0.0.1:{port}")
    await server.stop(None)


async def refuse(context: grpc.aio.ServicerContext, error: ServiceError) -> None:
    """Ends a call as the edge of a real service would."""
    status = error.to_rich_status()
    await context.abort(
        _CODES[error.status], status.message, ((_STATUS_DETAILS_KEY, status.SerializeToString()),)
    )
