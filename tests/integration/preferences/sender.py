"""The sender as the preferences service meets it in its tests: keeps what it is told, or is away."""

from dataclasses import dataclass, field

import grpc
from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceServicer


@dataclass(slots=True)
class ToldSender(SenderServiceServicer):
    """Truthful to the contract: an event that is told again is one."""

    events: dict[str, sender_pb2.RecordedAuditEvent] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    is_down: bool = False
    calls: int = 0

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
