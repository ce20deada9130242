"""Owns forgetting: how long it is known what became of deliveries."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from services.dispatcher.store import SCHEMA
from shared import cleaning
from shared.cleaning import Cleaner, RowChore
from shared.clock import Clock
from shared.database import Database
from shared.outbox import Outbox
from shared.queries import load
from shared.settings import Environment

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How long deliveries are kept after their dispatch was closed, and how often to look for old ones."""

    deliveries: timedelta
    interval_s: float

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Reads the DISPATCHER_RETENTION_ settings."""
        return cls(
            deliveries=cleaning.days(env, "DISPATCHER_RETENTION_DELIVERY_DAYS", 90),
            interval_s=cleaning.interval_s(env, "DISPATCHER"),
        )


def own_cleaner(worked: Database, worker_url: str, terms: RetentionTerms, clock: Clock) -> Cleaner:
    """What removes, in this order, what the dispatcher keeps; `worker_url` is where `worked` leads."""
    chores = [
        RowChore(
            what, terms.deliveries, worked, _QUERIES[f"count_old_{name}"], _QUERIES[f"remove_old_{name}"]
        )
        for what, name in (
            ("dispatches", "dispatches"),
            ("tombstones", "tombstones"),
            ("dead letters", "letters"),
            ("planning attempts", "attempts"),
        )
    ]
    chores.append(Outbox(worked, SCHEMA).retention())
    return Cleaner(chores, cleaning.opening(worker_url, SCHEMA), clock, terms.interval_s)
