"""Adds up in memory who was refused at a wall, by caller, method and minute, so that nobody can fill the audit log.

How much is kept apart is bounded: a minute has so many lines of single callers, and one line a method for all others.
What a minute has become is written once it is over. A crash loses the minute that runs, and what was not yet written.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID, uuid4

import structlog

from shared.clock import Clock
from shared.errors import ServiceError
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

OTHERS: Final = ""
"""Stands for all callers of a minute that are not kept apart."""

_MINUTE: Final = timedelta(minutes=1)
_LARGEST_BATCH: Final = 200
_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class RefusedAttempts:
    """How often one caller was refused by one method in one minute; `event_id` is the same whenever it is told."""

    event_id: UUID
    minute: datetime
    caller: str
    method: str
    attempts: int


@dataclass(slots=True)
class _Line:
    event_id: UUID
    attempts: int = 0


_Key: TypeAlias = tuple[datetime, str, str]
Write: TypeAlias = Callable[[Sequence[RefusedAttempts]], Awaitable[object]]


class WallRefusals:
    """The attempts that are not on record yet."""

    def __init__(self, clock: Clock, *, apart_a_minute: int = 100, apart: int = 1_000) -> None:
        """Of a minute `apart_a_minute` lines are of single callers, and `apart` of all that wait to be written."""
        self._clock = clock
        self._apart_a_minute = apart_a_minute
        self._apart = apart
        self._lines: dict[_Key, _Line] = {}
        self._minute: datetime | None = None
        self._apart_now = 0
        self._apart_in_all = 0

    def note(self, caller: str, method: str) -> None:
        """One more attempt was refused."""
        minute = self._begin_minute()
        line = self._lines.get((minute, caller, method))
        if line is None:
            line = self._new_line(minute, caller, method)
        line.attempts += 1

    def over(self) -> list[RefusedAttempts]:
        """What has been added up of minutes that are over."""
        minute = self._begin_minute()
        return [_attempts(key, line) for key, line in self._lines.items() if key[0] < minute]

    def all(self) -> list[RefusedAttempts]:
        """What has been added up, also of the minute that runs, which gets no more once nobody calls any more."""
        return [_attempts(key, line) for key, line in self._lines.items()]

    def forget(self, written: Sequence[RefusedAttempts]) -> None:
        """These are on record."""
        for each in written:
            if self._lines.pop((each.minute, each.caller, each.method), None) and each.caller != OTHERS:
                self._apart_in_all -= 1

    def seconds_left(self) -> float:
        """How long the minute that runs still does."""
        now = self._clock.now()
        return (_minute_of(now) + _MINUTE - now).total_seconds()

    def _begin_minute(self) -> datetime:
        """The minute that runs; one that is over does not come again, whatever becomes of the clock."""
        minute = _minute_of(self._clock.now())
        if self._minute is None or minute > self._minute:
            self._minute, self._apart_now = minute, 0
        return self._minute

    def _new_line(self, minute: datetime, caller: str, method: str) -> _Line:
        if self._apart_now >= self._apart_a_minute or self._apart_in_all >= self._apart:
            caller = OTHERS
        else:
            self._apart_now += 1
            self._apart_in_all += 1
        return self._lines.setdefault((minute, caller, method), _Line(uuid4()))


class RefusalKeeper:
    """Puts on record what was added up, a minute at a time."""

    def __init__(self, refusals: WallRefusals, write: Write) -> None:
        """`write` takes up to 200 at once, and may be given the same again."""
        self.refusals = refusals
        self._write = write
        self._ended = asyncio.Event()
        self._writing = asyncio.Lock()

    def stop(self) -> None:
        """Make `run` return once all is written, if that can be; nobody may be refused any more."""
        self._ended.set()

    async def run(self) -> None:
        """Write each minute when it is over, until `stop`."""
        while not self._ended.is_set():
            is_written = await self._attempt(self.refusals.over)
            pause_s = self.refusals.seconds_left()
            await wait_for_hint(self._ended, pause_s if is_written else min(pause_s, _RETRY_S))
        await self.finish()

    async def finish(self) -> None:
        """Write all that there is; nobody may be refused any more."""
        self._ended.set()
        await self._attempt(self.refusals.all)

    async def _attempt(self, added_up: Callable[[], Sequence[RefusedAttempts]]) -> bool:
        """Whether all of it is on record; what is not stays."""
        async with self._writing:
            attempts = added_up()
            try:
                for start in range(0, len(attempts), _LARGEST_BATCH):
                    batch = attempts[start : start + _LARGEST_BATCH]
                    await self._write(batch)
                    self.refusals.forget(batch)
            except ServiceError as error:
                log.warning("wall_refusals_unwritten", waiting=len(attempts), reason=error.reason_name)
                return False
            return True


def _minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _attempts(key: _Key, line: _Line) -> RefusedAttempts:
    minute, caller, method = key
    return RefusedAttempts(line.event_id, minute, caller, method, line.attempts)
