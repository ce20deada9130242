"""Owns what operators see of dispatching: its figures, and the line about each broadcast that is finished."""

from collections.abc import Iterable
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from services.dispatcher.work import Closure

log = structlog.get_logger(__name__)

PLAN_SECONDS: Final = Histogram(
    "wedsync_dispatcher_plan_seconds",
    "Time from a due message to its committed snapshot.",
    ["lane"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
DISPATCH_SECONDS: Final = Histogram(
    "wedsync_dispatcher_dispatch_seconds",
    "Time from a due message to the moment when nothing of the broadcast is pending.",
    ["lane"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0),
)
CHUNKS_SENT: Final = Counter(
    "wedsync_dispatcher_chunks_sent_total", "Chunks given to JetStream.", ["lane", "kind"]
)
CHUNKS_SENT_AGAIN: Final = Counter(
    "wedsync_dispatcher_chunks_sent_again_total", "Chunks whose lease ended without a report.", ["lane"]
)
REPORTS: Final = Counter(
    "wedsync_dispatcher_reports_total", "Reports of the inbox by what became of them.", ["verdict"]
)
REVIEWED: Final = Counter(
    "wedsync_dispatcher_reviewed_chunks_total", "Chunks that were decided again, by outcome.", ["outcome"]
)
LET_GO: Final = Counter(
    "wedsync_dispatcher_let_go_total", "Alerts let go whose quiet hours had ended, in people."
)
DEAD_LETTERS: Final = Counter(
    "wedsync_dispatcher_dead_letters_total", "Messages put aside, by cause.", ["cause"]
)


def tell_closed(closures: Iterable[Closure]) -> None:
    """One line for each broadcast of which nothing is pending any more."""
    for closure in closures:
        DISPATCH_SECONDS.labels(closure.priority.slug).observe(closure.seconds)
        log.info(
            "broadcast_dispatched" if closure.targeted else "broadcast_without_recipients",
            broadcast_id=str(closure.broadcast_id),
            priority=closure.priority.slug,
            state=closure.state.value,
            recipients=closure.targeted,
            ms=round(closure.seconds * 1e3, 1),
        )
