"""The sender as the preferences service meets it in its tests: keeps what it is told, or is away."""

from collections import Counter
from dataclasses import dataclass, field

import grpc
from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceServicer

from tests.integration.preferences.pages import a_page


@dataclass(slots=True)
class ToldSender(SenderServiceServicer):
    """Truthful to the contract: an event that is told again is one."""

    events: dict[str, sender_pb2.RecordedAuditEvent] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    is_down: bool = False
    calls: int = 0
    erased: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)

    async def RecordAuditEvents(
        self, request: sender_pb2.RecordAuditEventsRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.RecordAuditEventsResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        self.calls += 1
        for event in request.events:
            self.events.setdefault(event.event_id, event)
        return sender_pb2.RecordAuditEventsResponse()

    async def CountSegmentUses(
        self, request: sender_pb2.CountSegmentUsesRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.CountSegmentUsesResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return sender_pb2.CountSegmentUsesResponse(broadcasts=self.uses.get(request.segment_id, 0))

    async def ErasePerson(
        self, request: sender_pb2.ErasePersonRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.ErasePersonResponse:
        if self.is_down or request.user_id in self.refused:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        self.erased[request.user_id] += 1
        return sender_pb2.ErasePersonResponse()

    async def ExportPerson(
        self, request: sender_pb2.ExportPersonRequest, context: grpc.aio.ServicerContext
    ) -> sender_pb2.ExportPersonResponse:
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        records, token = a_page("sender", request.page_token)
        return sender_pb2.ExportPersonResponse(records=records, next_page_token=token)
