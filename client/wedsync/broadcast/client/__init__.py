"""The broadcast system for those who call it: one client, its errors, and the events of an inbox."""

from wedsync.broadcast.client.addresses import Addresses, Server
from wedsync.broadcast.client.audiences import audience, everyone
from wedsync.broadcast.client.client import BroadcastClient, SendResult
from wedsync.broadcast.client.errors import (
    BroadcastError,
    ConfigurationError,
    Conflict,
    DeadlineExceeded,
    Exhausted,
    FieldViolation,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaViolation,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from wedsync.broadcast.client.events import Added, Alert, Event, Retracted, Snapshot, Unread, Updated
from wedsync.broadcast.client.inbox import Inbox, InboxWatch
from wedsync.broadcast.client.resuming import OnInterruption
from wedsync.broadcast.client.retries import Retries
from wedsync.broadcast.client.security import Plaintext, Security, insecure, tls
from wedsync.broadcast.client.tokens import Token, TokenSource
from wedsync.broadcast.client.waiting import Waiting
from wedsync.broadcast.v1.common_pb2 import Action, BroadcastState, Priority, Targeting

__all__ = [
    "BroadcastClient",
    "Addresses",
    "Server",
    "insecure",
    "tls",
    "Plaintext",
    "Security",
    "Token",
    "TokenSource",
    "Retries",
    "Waiting",
    "everyone",
    "audience",
    "Action",
    "BroadcastState",
    "Priority",
    "Targeting",
    "SendResult",
    "Inbox",
    "InboxWatch",
    "OnInterruption",
    "Event",
    "Snapshot",
    "Added",
    "Alert",
    "Updated",
    "Retracted",
    "Unread",
    "BroadcastError",
    "ConfigurationError",
    "Unauthenticated",
    "PermissionDenied",
    "NotFound",
    "InvalidRequest",
    "FieldViolation",
    "Conflict",
    "Exhausted",
    "RateLimited",
    "QuotaViolation",
    "Overloaded",
    "Unavailable",
    "DeadlineExceeded",
]
