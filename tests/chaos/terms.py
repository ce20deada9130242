"""Owns what a run is told: how long, how hard, with which seed, and how patient the suite is set to be."""

from dataclasses import dataclass, replace
from typing import Final

from shared.streams import STREAMS, Stream

CALL_S: Final = 4.0
"""How long a caller waits for one answer before it asks again."""
RELAY_LEASE_S: Final = 2.0
RELAY_LEASE_CEILING_S: Final = 4.0
CHUNK_LEASE_S: Final = 1.0
CHUNK_LEASE_CEILING_S: Final = 4.0
POLL_S: Final = 1.0
"""The longest pause of a loop that looks by itself: reconcilers, and the lanes of an idle dispatcher."""
DEDUPE_WINDOW_S: Final = 2.0
"""Two minutes in production; short here, so that an outage can outlast it."""
RECOVERY_BOUND_S: Final = max(RELAY_LEASE_S, CHUNK_LEASE_S) + POLL_S
"""The lease plus one poll."""
SHORT_CALM_S: Final = 1.5
HEALING_LIMIT_S: Final = 90.0
SHOWN_S: Final = 15.0
"""How long streams may take at the end to show what they have not shown yet."""

SENDING_ACCOUNT: Final = "chaos"
"""The service account that sends what is too much for one person in an hour."""

SETTINGS: Final = {
    "sender": {
        "SENDER_REUSE_PORT": "1",
        "SENDER_SERVICE_QUOTAS": f"{SENDING_ACCOUNT}:*=1000000,1000000",
        "SENDER_RELAY_LEASE_S": str(RELAY_LEASE_S),
        "SENDER_RELAY_LEASE_CEILING_S": str(RELAY_LEASE_CEILING_S),
        # Counted often, so that it is often being done when something dies.
        "SENDER_TALLY_S": "1",
    },
    "preferences": {"PREFERENCES_TEAM_RETRY_S": "1"},
    "dispatcher": {
        "DISPATCHER_REUSE_PORT": "1",
        "DISPATCHER_LEASE_S": str(CHUNK_LEASE_S),
        "DISPATCHER_LEASE_CEILING_S": str(CHUNK_LEASE_CEILING_S),
        # One chunk of a broadcast at a time and decisions that age fast, so that lanes lease and decide again often.
        "DISPATCHER_CHUNKS_IN_FLIGHT": "1",
        "DISPATCHER_MEMBERS_IN_FLIGHT": "1",
        "DISPATCHER_FRESH_S": "0.2",
    },
    "inbox": {"INBOX_REUSE_PORT": "1"},
}


@dataclass(frozen=True, slots=True)
class Terms:
    """One run. Faults go on for `storm_s`, and then until each has happened, but not past `storm_most_s`."""

    seed: int
    storm_s: float
    storm_most_s: float
    recipients: int = 2_000
    sends_per_second: float = 5.0
    drain_s: float = 60.0
    look_s: float = 120.0
    """How long those who look at the end may take together; what they have not seen then is told."""
    lists_all: bool = True
    """Whether everybody's inbox is read through gRPC at the end, or a sample's."""
    solitary_kills: int = 0
    """Kills one by one after the storm, each of which must be recovered from within the bound."""

    @property
    def storm_limit_s(self) -> float:
        """When a storm is broken off in which something does not come to an end."""
        return 30.0 + self.storm_most_s

    @property
    def calm_s(self) -> float:
        """How long the calm after the storm takes."""
        return RECOVERY_BOUND_S * (self.solitary_kills + 1) if self.solitary_kills else SHORT_CALM_S

    @property
    def count_limit_s(self) -> float:
        """How long it takes to count everything once more: the longer a storm, the more there is."""
        return self.drain_s + self.storm_most_s / 4

    @property
    def limit_s(self) -> float:
        """What a run takes at most: starting, each part of its course up to its own limit, looking, and letting go."""
        course_s = (
            self.storm_limit_s + HEALING_LIMIT_S + 2 * self.calm_s + 2 * self.drain_s + self.count_limit_s
        )
        return 100.0 + course_s + SHOWN_S + self.look_s + 60.0


def streams() -> tuple[Stream, ...]:
    """The suite's streams with the run's own window for repeated message ids."""
    return tuple(replace(stream, duplicate_window_s=DEDUPE_WINDOW_S) for stream in STREAMS)


def short(seed: int) -> Terms:
    """Once through every failpoint and every fault: what `make test` runs."""
    # Half a minute is enough where nothing else runs.
    return Terms(seed, storm_s=0.0, storm_most_s=240.0)


def long(seed: int, minutes: float, recipients: int, sends_per_second: float) -> Terms:
    """As long as somebody wants: what `make chaos` runs."""
    return Terms(
        seed,
        storm_s=60 * minutes,
        storm_most_s=60 * minutes + 90,
        recipients=recipients,
        sends_per_second=sends_per_second,
        lists_all=False,
        solitary_kills=int(min(20, 4 * minutes)),
    )
