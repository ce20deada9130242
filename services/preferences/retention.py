"""Owns forgetting: how far back the directory's log goes.

Whatever follows it can do with less. The set indexes are read anew when the log does not go back to where they are, and
a decision that is older than it is made again for everybody it is about. So this is long enough for what is held over
a weekend to be decided again for those few who have changed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from services.preferences.store import SCHEMA
from shared import cleaning, replays
from shared.cleaning import Cleaner
from shared.clock import Clock
from shared.database import Database
from shared.ordered_log import OrderedLog
from shared.outbox import Outbox
from shared.settings import Environment


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How far back the log goes, and how often to look for what is older."""

    log: timedelta
    interval_s: float

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Reads the PREFERENCES_RETENTION_ settings."""
        return cls(
            log=cleaning.days(env, "PREFERENCES_RETENTION_LOG_DAYS", 7, least=1),
            interval_s=cleaning.interval_s(env, "PREFERENCES"),
        )


def own_cleaner(worked: Database, worker_url: str, terms: RetentionTerms, clock: Clock) -> Cleaner:
    """What removes, in this order, what is kept beside the directory itself; `worker_url` is where `worked` leads."""
    chores = (
        OrderedLog(worked, SCHEMA).retention(terms.log),
        Outbox(worked, SCHEMA).retention(),
        replays.retention(worked, SCHEMA),
    )
    return Cleaner(chores, cleaning.opening(worker_url, SCHEMA), clock, terms.interval_s)
