"""Owns how services other than the sender put on record whom they refused at a wall: they tell the sender."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.sender_pb2 import (
    AUDIT_ACTION_WALL_REFUSED,
    RecordAuditEventsRequest,
    RecordedAuditEvent,
)
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from shared.wall_refusals import RefusedAttempts, Write


def report_to(sender: SenderServiceStub) -> Write:
    """What has the sender's audit log take in the attempts of a minute."""

    async def write(attempts: Sequence[RefusedAttempts]) -> None:
        await sender.RecordAuditEvents(RecordAuditEventsRequest(events=map(_event, attempts)))

    return write


def _event(attempts: RefusedAttempts) -> RecordedAuditEvent:
    minute = Timestamp()
    minute.FromDatetime(attempts.minute)
    return RecordedAuditEvent(
        event_id=str(attempts.event_id),
        time=minute,
        actor=attempts.caller,
        action=AUDIT_ACTION_WALL_REFUSED,
        method=attempts.method,
        attempts=attempts.attempts,
    )
