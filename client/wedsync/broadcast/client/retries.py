"""Owns when gRPC itself makes a call again: its service config, with a budget that an outage soon uses up."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from wedsync.broadcast.client.errors import ConfigurationError

PACKAGE: Final = "wedsync.broadcast.v1"
SERVICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sender": ("SenderService",),
    "inbox": ("InboxService",),
    "preferences": ("PreferencesService", "DirectoryService"),
    "dispatcher": ("DispatcherService",),
}
"""The gRPC services of each server."""
_MOST_ATTEMPTS: Final = 5  # gRPC makes no more of one call
# gRPC has been seen to forget a call whose pause is about a millisecond, until its deadline.
_SHORTEST_S: Final = 0.01
# Half of the tokens may be used up by calls that fail, so 500 in a row: enough for a restart of a service that is
# called a hundred times a second. In an outage each call is made once from there on, until answers have paid for more.
_BUDGET: Final = {"maxTokens": 1000, "tokenRatio": 0.5}
# Calls that come to a gRPC server between its decision to leave and its caller's knowing of it end as CANCELLED. What a
# caller cancels itself is never made again.
_CUT_OFF: Final = ("UNAVAILABLE", "CANCELLED")
# Whoever holds a stream goes on from where it was, which a repeated call would not.
_STREAMS: Final = (
    ("SenderService", "WatchBroadcast"),
    ("InboxService", "WatchInbox"),
    ("InboxService", "ConnectInboxes"),
)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call that was cut off is made, and the pauses between: `first_s`, times `multiplier`, each.

    That is any UNAVAILABLE, also one by which a service says when to come again: gRPC does not read that.
    That is safe because whatever changes something has a request_id, which stays. With `waits` a call does not fail
    while nobody can be reached: it waits, until its deadline.
    """

    attempts: int = 5
    first_s: float = 0.2
    ceiling_s: float = 2.0
    multiplier: int = 3
    waits: bool = True

    PATIENT: ClassVar[Self]
    """No call fails because a process of the suite is replaced."""
    BRISK: ClassVar[Self]
    """Half a second, for somebody who would rather be told."""

    def __post_init__(self) -> None:
        if not 2 <= self.attempts <= _MOST_ATTEMPTS:
            raise ConfigurationError(f"Retries.attempts must be from 2 to {_MOST_ATTEMPTS}.")
        if not _SHORTEST_S <= self.first_s <= self.ceiling_s:
            raise ConfigurationError(f"Retries.first_s must be from {_SHORTEST_S:g} to ceiling_s.")

    def service_config(self) -> str:
        """As gRPC takes it: JSON, for the option `grpc.service_config` of any of its libraries.

        It asks for no health checks: those of gRPC's C core end the process with a segmentation fault when a connection
        is lost just as it stands (all versions from 1.65 to 1.85).
        """
        policy = {
            "maxAttempts": self.attempts,
            "initialBackoff": f"{self.first_s:g}s",
            "maxBackoff": f"{self.ceiling_s:g}s",
            "backoffMultiplier": self.multiplier,
            "retryableStatusCodes": list(_CUT_OFF),
        }
        services = [f"{PACKAGE}.{name}" for names in SERVICES.values() for name in names]
        config = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "retryThrottling": _BUDGET,
            "methodConfig": [
                {
                    "name": [{"service": service} for service in services],
                    "waitForReady": self.waits,
                    "retryPolicy": policy,
                },
                {
                    "name": [{"service": f"{PACKAGE}.{name}", "method": method} for name, method in _STREAMS],
                    "waitForReady": False,
                },
            ],
        }
        return json.dumps(config)


Retries.PATIENT = Retries()
Retries.BRISK = Retries(attempts=4, first_s=0.05, ceiling_s=0.5, multiplier=2, waits=False)
