"""Owns a lane: the loop that leases the chunks of one priority and sends them, the least served broadcast first."""

import asyncio
from typing import Final

import structlog

from services.dispatcher.courier import Courier
from services.dispatcher.courtesy import Courtesy
from services.dispatcher.domain import InFlightLimit, Priority
from services.dispatcher.neighbours import Audiences
from services.dispatcher.review import Reviewer, Rounds
from services.dispatcher.store import DispatchStore
from shared.backoff import backoff_s
from shared.clock import Clock
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_BATCH: Final = 16
_NO_VERSION: Final = 2**62
_SHORTEST_PAUSE_S: Final = 0.02
_BUSY_PAUSE_S: Final = 0.1
_IDLE_PAUSE_S: Final = 1.0
_BUSY_FOR_S: Final = 10.0
_RETRY_FIRST_S: Final = 0.1
_RETRY_CEILING_S: Final = 1.0
"""No more than the pause of an idle lane: when an outage ends, what it has left waiting leaves within one poll."""


class Lane:
    """One priority's way out. Any number may run, in any number of processes.

    It is woken by plans and reports of its own process. When another process applies the reports, nobody wakes it: then
    it looks by itself, after 20 ms at first and ever more slowly while nothing happens.
    """

    def __init__(
        self,
        priority: Priority,
        store: DispatchStore,
        reviewer: Reviewer,
        courier: Courier,
        limit: InFlightLimit,
        clock: Clock,
        *,
        heads: Audiences,
        hears_reports: bool,
        courtesy: Courtesy | None = None,
    ) -> None:
        """`courtesy` is for a lane of bulk."""
        self.priority = priority
        self._courtesy = courtesy
        self._store = store
        self._courier = courier
        self._limit = limit
        self._clock = clock
        self._pauses = Pauses(clock, hears_reports=hears_reports)
        self._wake = asyncio.Event()
        self._rounds = Rounds(reviewer, priority.slug, self._note_decided, self._wake.set)
        self._heads = heads
        self._least_version = 0
        self._has_decided = False
        self._stopping = False

    def wake(self) -> None:
        """Look at once: there is something to send, or room for more."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return once what it has leased is sent."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Send until `stop`."""
        failures = 0
        while not self._stopping:
            self._wake.clear()
            try:
                if await self.advance():
                    continue
                failures = 0
                pause_s = self._pauses.next_s()
            except DependencyUnavailable as error:
                failures += 1
                pause_s = backoff_s(failures, _RETRY_FIRST_S, _RETRY_CEILING_S)
                log.warning("lane_interrupted", lane=self.priority.slug, failures=failures, error=str(error))
            except Exception:
                # A defect that one broadcast provokes must not end the lane for all the others.
                failures += 1
                pause_s = backoff_s(failures, _RETRY_FIRST_S, _RETRY_CEILING_S)
                log.exception("lane_failed", lane=self.priority.slug, failures=failures)
            await wait_for_hint(self._wake, pause_s)
        await self._rounds.end()

    async def step_aside(self) -> None:
        """Let what is urgent go first, if this lane is one of bulk."""
        if self._courtesy is not None:
            await self._courtesy.step_aside()

    async def advance(self) -> bool:
        """Send what may leave, and have decided again what waited too long; whether more may leave at once."""
        self._courier.require_connection()
        await self.step_aside()
        least_version = await self._take_up()
        leased, stale = await self._store.lease(self.priority, self._limit, _BATCH, least_version)
        await self._courier.send(leased)
        self._rounds.begin(stale)
        if leased:
            self._pauses.note_progress()
        # A batch that was not full had all that there was room for.
        return len(leased) == _BATCH

    async def _take_up(self) -> int:
        """The directory version from which on a decision counts: what was accepted before now binds what leaves now.

        After a review it is the one from before that, because in a directory that changes all the time nothing would
        ever leave otherwise. When nobody can be asked, nothing counts, and so everything is decided again.
        """
        if self._has_decided:
            self._has_decided = False
            return self._least_version
        try:
            self._least_version = await self._heads.head()
        except DependencyUnavailable:
            return _NO_VERSION
        return self._least_version

    def _note_decided(self) -> None:
        self._has_decided = True
        self._wake.set()


class Pauses:
    """How long a lane that nobody wakes waits before it looks by itself."""

    def __init__(self, clock: Clock, *, hears_reports: bool) -> None:
        self._clock = clock
        self._shortest_s = _IDLE_PAUSE_S if hears_reports else _SHORTEST_PAUSE_S
        self._last_progress = clock.monotonic() - _BUSY_FOR_S
        self._pause_s = _IDLE_PAUSE_S

    def note_progress(self) -> None:
        """Something was sent: its reports may be soon."""
        self._last_progress = self._clock.monotonic()
        self._pause_s = self._shortest_s / 2

    def next_s(self) -> float:
        """Twice as long as before; at most 0.1 s while there was progress within the last 10 s, else 1 s."""
        is_busy = self._clock.monotonic() - self._last_progress < _BUSY_FOR_S
        ceiling_s = max(self._shortest_s, _BUSY_PAUSE_S if is_busy else _IDLE_PAUSE_S)
        self._pause_s = min(ceiling_s, self._pause_s * 2)
        return self._pause_s
