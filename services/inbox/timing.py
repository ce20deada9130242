"""Owns what happens by itself when its time comes: snoozes end and broadcasts expire, each at a place in the log.

Lists and counts go by the clock of the database and wait for nobody; by the log, streams are told.
"""

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from services.inbox.store import QUERIES
from services.inbox.waking import Waking
from shared.backoff import backoff_s
from shared.database import Database
from shared.errors import DependencyUnavailable
from shared.failpoints import declare, failpoint

log = structlog.get_logger(__name__)

BEFORE_COMMIT, AFTER_COMMIT = declare("inbox.time.before_commit", "inbox.time.after_commit")

# Of one transaction, in which nothing arrives.
_TOGETHER: Final = 20
# Something may have been snoozed, on any node, for less than the next that is known.
_LONGEST_PAUSE: Final = timedelta(seconds=1)
_RETRY_FIRST_S: Final = 0.2
_RETRY_CEILING_S: Final = 5.0


class Timing:
    """Looks what is over by now, on every node: whichever comes first does it."""

    def __init__(self, worked: Database, waking: Waking) -> None:
        self._worked = worked
        self._waking = waking

    async def run(self) -> None:
        """Let time pass, for good."""
        failures = 0
        while True:
            try:
                pause_s = (await self._pass()).total_seconds()
                failures = 0
            except Exception as error:  # screens that follow late must not cost this node its calls
                failures += 1
                is_defect = not isinstance(error, DependencyUnavailable)
                log.warning("timing_interrupted", failures=failures, error=str(error), exc_info=is_defect)
                pause_s = backoff_s(failures, _RETRY_FIRST_S, _RETRY_CEILING_S)
            await asyncio.sleep(pause_s)

    async def _pass(self) -> timedelta:
        """Say in the log what is over; for how long nothing will be, as far as is known."""
        await failpoint(BEFORE_COMMIT)
        row = await self._worked.fetchrow(QUERIES["pass_time"], _TOGETHER)
        if row is None:
            raise LookupError("pass_time answers exactly one row")
        await failpoint(AFTER_COMMIT)
        if row["log_position"] is not None:
            await self._waking.announce(row["log_position"])
        if row["is_more"]:
            return timedelta()
        next_in: timedelta = _LONGEST_PAUSE if row["next_in"] is None else row["next_in"]
        return max(timedelta(), min(next_in, _LONGEST_PAUSE))
