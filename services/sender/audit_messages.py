"""Translates between the contract's messages and the values of the audit log."""

from datetime import UTC
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1 import sender_pb2

from services.sender.audit import (
    BEGINNING,
    AuditAction,
    AuditEntry,
    AuditEvent,
    AuditQuery,
    Checkpoint,
    FlawKind,
    Verified,
)
from services.sender.messages import author_name, period_of, time_message

# By word: what somebody has written into the log by hand may be none of ours.
_ACTIONS: Final = {
    each.value: sender_pb2.AuditAction.Value(f"AUDIT_ACTION_{each.name}") for each in AuditAction
}
_ACTIONS_TOLD: Final = {number: AuditAction(each) for each, number in _ACTIONS.items()}
_FLAWS: Final = {each: sender_pb2.AuditFlawKind.Value(f"AUDIT_FLAW_KIND_{each.name}") for each in FlawKind}


def query_message(request: sender_pb2.ListAuditEventsRequest) -> AuditQuery:
    """Which entries a request asks for. The order of what is listed makes no difference."""
    return AuditQuery(
        actions=tuple(sorted({_ACTIONS_TOLD[number] for number in request.actions})),
        actor=author_name(request.actor) or None,
        broadcast_id=_id(request.broadcast_id),
        user_id=_id(request.user_id),
        wedding_id=_id(request.wedding_id),
        time=period_of(request.time),
    )


def entry_message(entry: AuditEntry) -> sender_pb2.AuditEvent:
    """An entry as its readers see it."""
    event = entry.event
    return sender_pb2.AuditEvent(
        position=entry.position,
        event_id=str(event.event_id),
        time=time_message(event.at),
        record_time=time_message(entry.recorded_at),
        source=event.source,
        actor=event.actor,
        action=_ACTIONS.get(event.action, sender_pb2.AUDIT_ACTION_UNSPECIFIED),
        broadcast_id=_text(event.broadcast_id),
        broadcast_type=event.broadcast_type or "",
        targeted=event.targeted,
        retract=event.retract,
        stopped=event.stopped,
        already_sent=event.already_sent,
        user_id=_text(event.user_id),
        wedding_id=_text(event.wedding_id),
        role_before=event.role_before or "",
        role_after=event.role_after or "",
        method=event.method or "",
        attempts=event.attempts or 0,
        segment_id=_text(event.segment_id),
        hash=entry.hash,
    )


def event_of(message: sender_pb2.RecordedAuditEvent, source: str) -> AuditEvent:
    """What another service has seen. Its rules have been checked."""
    return AuditEvent(
        event_id=UUID(message.event_id),
        at=message.time.ToDatetime(UTC),
        source=source,
        actor=message.actor,
        action=_ACTIONS_TOLD[message.action],
        user_id=_id(message.user_id),
        wedding_id=_id(message.wedding_id),
        role_before=message.role_before or None,
        role_after=message.role_after or None,
        method=message.method or None,
        attempts=message.attempts or None,
        segment_id=_id(message.segment_id),
    )


def checkpoint_of(message: sender_pb2.AuditCheckpoint) -> Checkpoint:
    """A checkpoint that a caller has kept; the beginning when it is none."""
    return Checkpoint(message.position, message.hash) if message.position else BEGINNING


def verified_message(verified: Verified) -> sender_pb2.VerifyAuditLogResponse:
    """What was found, with a checkpoint to keep."""
    response = sender_pb2.VerifyAuditLogResponse(checked=verified.checked, complete=verified.is_complete)
    if verified.through.position:
        response.through.position, response.through.hash = verified.through.position, verified.through.hash
    if verified.flaw is not None:
        response.flaw.kind, response.flaw.position = _FLAWS[verified.flaw.kind], verified.flaw.position
    return response


def _id(text: str) -> UUID | None:
    return UUID(text) if text else None


def _text(value: UUID | None) -> str:
    return "" if value is None else str(value)
