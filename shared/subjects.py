"""Owns every name on NATS: subjects, streams and consumers. A literal of one anywhere else is a defect.

The parts of a subject come from closed sets, so that nothing a user typed can become one. No subject carries an id.
"""

from collections.abc import Collection
from typing import Final

PRIORITIES: Final = ("critical", "high", "normal", "low")
"""First things first; a lane, a consumer and workers of its own for each."""

STATES: Final = ("sent", "failed", "expired")
"""What a dispatcher can report that a broadcast has come to."""

EXTERNAL_CHANNELS: Final = ("email", "sms", "push")
"""The channels whose deliveries leave the system."""

DELIVERY_REPORT: Final = "delivery.report"
DIRECTORY_CHANGED: Final = "directory.changed"
LIVE_INBOX: Final = "live.inbox"
LIVE_DISPATCH: Final = "live.dispatch"
"""These two are on core NATS and not on JetStream: hints that may be lost."""

BROADCAST_DUE_STREAM: Final = "BROADCAST_DUE"
BROADCAST_STATE_STREAM: Final = "BROADCAST_STATE"
DELIVERY_INBOX_STREAM: Final = "DELIVERY_INBOX"
DELIVERY_REPORT_STREAM: Final = "DELIVERY_REPORT"
DIRECTORY_STREAM: Final = "DIRECTORY"

SENDER_STATE: Final = "sender_state"
DISPATCHER_REPORT: Final = "dispatcher_report"
INBOX_DIRECTORY: Final = "inbox_directory"


class BadSubject(ValueError):
    """A part of a subject is not one of those that it may be."""


def rank(priority: str) -> int:
    """0 for critical to 3 for low: the order in which an outbox publishes."""
    if priority not in PRIORITIES:
        raise BadSubject(f"{priority!r} is none of {', '.join(PRIORITIES)}")
    return PRIORITIES.index(priority)


def broadcast_due(priority: str) -> str:
    """The subject of a broadcast whose time has come; `*` is every priority."""
    return f"broadcast.due.{_one_of(priority, PRIORITIES)}"


def broadcast_state(state: str) -> str:
    """The subject of what a broadcast has come to; `*` is every state."""
    return f"broadcast.state.{_one_of(state, STATES)}"


def delivery_inbox(priority: str) -> str:
    """The subject of chunks for the inbox, which alone may read it; `*` is every priority."""
    return f"delivery.inbox.{_one_of(priority, PRIORITIES)}"


def delivery_external(channel: str, priority: str) -> str:
    """The subject of deliveries that a provider takes; `*` is every channel or priority."""
    return f"delivery.external.{_one_of(channel, EXTERNAL_CHANNELS)}.{_one_of(priority, PRIORITIES)}"


def dispatcher_due(priority: str) -> str:
    """The consumer of a dispatcher's lane."""
    return f"dispatcher_due_{_one_of(priority, PRIORITIES)}"


def inbox_delivery(priority: str) -> str:
    """The consumer of an inbox's lane."""
    return f"inbox_delivery_{_one_of(priority, PRIORITIES)}"


def inbox_prefix(user: str) -> str:
    """Where a user's replies come: apart from everybody else's, so that nobody can listen in."""
    return f"_INBOX_{user}"


def next_request(stream: str, consumer: str) -> str:
    """The subject on which JetStream is asked for a consumer's next messages."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def acknowledgements(stream: str, consumer: str) -> str:
    """The subjects on which a consumer's messages are acknowledged."""
    return f"$JS.ACK.{stream}.{consumer}.>"


def _one_of(part: str, allowed: Collection[str]) -> str:
    if part != "*" and part not in allowed:
        raise BadSubject(f"{part!r} is none of {', '.join(allowed)}")
    return part
