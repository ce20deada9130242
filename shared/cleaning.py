"""Owns how what is too old goes: now and then, in small batches that keep nobody waiting.

A batch is one statement and so one transaction, on a connection where the server itself breaks off what takes too long:
no lock is held for 100 ms, whatever a batch meets. Batches grow and shrink by the time that they take. Any number of
processes may clean at once: who comes second finds the rows gone. There is no failpoint in it, because a crash leaves a
batch done or not done, and doing the rest is what the next run does anyway.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

import asyncpg
import structlog
from google.protobuf.duration_pb2 import Duration
from prometheus_client import Counter, Histogram
from wedsync.broadcast.v1.common_pb2 import CleanedUp

from shared.clock import Clock
from shared.database import Database, connect
from shared.errors import DependencyUnavailable, Internal, ServiceError
from shared.settings import Environment
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

LEAST_DAYS: Final = 7
"""No setting keeps what people see for less: nothing that JetStream still carries is about anything older."""

_BROKEN_OFF_AFTER_S: Final = 0.08
_AIM_S: Final = 0.02
_FIRST_BATCH: Final = 64
_LARGEST_BATCH: Final = 10_000
_SHORTEST_REST_S: Final = 0.005
_UNEVENNESS: Final = 0.25

CLEANED: Final = Counter("wedsync_cleaned_total", "What retention has removed, by kind.", ["what"])
BATCH_SECONDS: Final = Histogram(
    "wedsync_cleaning_batch_seconds",
    "How long each batch of retention took, and so held its locks.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch has removed; the last one leaves nothing that is due."""

    removed: int
    is_last: bool


class Chore(Protocol):
    """One kind of thing that is kept for a time and then removed."""

    @property
    def what(self) -> str:
        """The kind, in the words of those who read what was removed."""

    @property
    def kept_for(self) -> timedelta:
        """How long it is kept."""

    async def count(self) -> int:
        """How many `remove` would remove until its last batch. Takes no lock."""

    async def remove(self, hasty: "Hasty", size: int) -> Batch:
        """Remove about as many as `size`."""


class Hasty:
    """The connection for batches. Postgres breaks off what takes longer than a batch may, and nothing of it is done."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """`database` is what `opening` opens."""
        self._database = database
        self._clock = clock
        self.last_s = 0.0
        self.longest_s = 0.0

    async def run(self, query: str, *arguments: object) -> Batch:
        """One batch: a statement that answers `removed` and `is_last`. Raises DependencyUnavailable, or TookTooLong."""
        started = self._clock.monotonic()
        try:
            row = await self._database.fetchrow(query, *arguments)
        except DependencyUnavailable as error:
            if isinstance(error.__cause__, asyncpg.QueryCanceledError):
                raise TookTooLong from error
            raise
        finally:
            self.last_s = self._clock.monotonic() - started
            self.longest_s = max(self.longest_s, self.last_s)
            BATCH_SECONDS.observe(self.last_s)
        if row is None:
            raise LookupError("a batch answers what it has removed")
        return Batch(row["removed"], row["is_last"])


class TookTooLong(Exception):
    """A batch would have held its locks for too long, and was broken off."""


@dataclass(slots=True)
class BatchSize:
    """How many rows a batch should take, by the time that those before it took."""

    rows: int = _FIRST_BATCH

    def note(self, seconds: float) -> None:
        """A batch of this size took so long."""
        if seconds > 2 * _AIM_S:
            self.rows = max(1, self.rows // 2)
        elif seconds < _AIM_S / 2:
            self.rows = min(_LARGEST_BATCH, self.rows * 2)

    def note_broken_off(self) -> bool:
        """A batch of this size took too long; whether a smaller one is left to try."""
        was_larger = self.rows > 1
        self.rows = max(1, self.rows // 4)
        return was_larger


@dataclass(frozen=True, slots=True)
class RowChore:
    """Rows that two statements know: `counts` those that are due, `removes` them, up to as many as its last argument.

    Both take the time that such rows are kept, unless `counted_by` or `removed_by` are other arguments.
    """

    what: str
    kept_for: timedelta
    database: Database
    counts: str
    removes: str
    counted_by: tuple[object, ...] | None = None
    removed_by: tuple[object, ...] | None = None

    async def count(self) -> int:
        """How many are due."""
        arguments = (self.kept_for,) if self.counted_by is None else self.counted_by
        return int(await self.database.fetchval(self.counts, *arguments))

    async def remove(self, hasty: Hasty, size: int) -> Batch:
        """Remove some."""
        arguments = (self.kept_for,) if self.removed_by is None else self.removed_by
        return await hasty.run(self.removes, *arguments, size)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of one chore: how much was removed, or would be, and why the rest was left, if it was."""

    what: str
    kept_for: timedelta
    count: int
    longest_s: float | None = None
    error: str = ""

    def message(self) -> CleanedUp:
        """As the contract has it."""
        kept_for = Duration()
        kept_for.FromTimedelta(self.kept_for)
        message = CleanedUp(what=self.what, kept_for=kept_for, count=self.count, error=self.error)
        if self.longest_s is not None:
            message.longest_batch.FromNanoseconds(round(self.longest_s * 1e9))
        return message


class Cleaner:
    """Does a service's chores, in their order: by itself now and then, and whenever it is asked to."""

    def __init__(
        self,
        chores: Sequence[Chore],
        opening: Callable[[], Awaitable[Database]],
        clock: Clock,
        every_s: float,
        *,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`opening` opens the connection for batches, for the time of a run; see the function of that name."""
        self._chores = chores
        self._opening = opening
        self._clock = clock
        self._every_s = every_s
        self._rest = rest
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return once the batch in hand is done."""
        self._ended.set()

    async def run(self) -> None:
        """Clean up again and again until `stop`; not at the same moment as the processes that started with this one."""
        pause_s = self._every_s * random.random()
        while not self._ended.is_set():
            await wait_for_hint(self._ended, pause_s)
            if not self._ended.is_set():
                await self.clean_up()
            pause_s = self._every_s * random.uniform(1 - _UNEVENNESS, 1 + _UNEVENNESS)

    async def clean_up(self, *, dry_run: bool = False) -> list[Cleaned]:
        """Do every chore, or with `dry_run` count what is due; one that cannot be done now keeps no other back."""
        async with self._turn:
            started = self._clock.monotonic()
            cleaned = await (self._count_all() if dry_run else self._remove_all())
        failed = [each.what for each in cleaned if each.error]
        (log.warning if failed else log.info)(
            "cleanup_finished",
            dry_run=dry_run,
            removed={each.what: each.count for each in cleaned},
            failed=failed,
            longest_batch_ms=round(max((each.longest_s or 0.0 for each in cleaned), default=0.0) * 1e3, 1),
            ms=round((self._clock.monotonic() - started) * 1e3),
        )
        return cleaned

    async def _count_all(self) -> list[Cleaned]:
        return [await self._count(chore) for chore in self._chores]

    async def _count(self, chore: Chore) -> Cleaned:
        try:
            return Cleaned(chore.what, chore.kept_for, await chore.count())
        except Exception as error:  # noqa: BLE001  # one thing that cannot be counted keeps no other from being counted
            return Cleaned(chore.what, chore.kept_for, 0, error=_reason(chore, error))

    async def _remove_all(self) -> list[Cleaned]:
        try:
            database = await self._opening()
        except DependencyUnavailable as error:
            return [Cleaned(chore.what, chore.kept_for, 0, error=error.reason_name) for chore in self._chores]
        try:
            return [await self._remove(chore, Hasty(database, self._clock)) for chore in self._chores]
        finally:
            await database.close()

    async def _remove(self, chore: Chore, hasty: Hasty) -> Cleaned:
        removed, size, error = 0, BatchSize(), ""
        try:
            while not self._ended.is_set():
                batch = await self._next_batch(chore, hasty, size)
                removed += batch.removed
                CLEANED.labels(chore.what).inc(batch.removed)
                if batch.is_last:
                    break
                # As long again as it took: the disk and the others have at least half of the time.
                await self._rest(max(hasty.last_s, _SHORTEST_REST_S))
            else:
                # Who asked for it is not told that all is gone.
                error = DependencyUnavailable().reason_name
        except Exception as failure:  # noqa: BLE001  # as above
            error = _reason(chore, failure)
        return Cleaned(chore.what, chore.kept_for, removed, hasty.longest_s, error)

    async def _next_batch(self, chore: Chore, hasty: Hasty, size: BatchSize) -> Batch:
        """One batch, in a size that fits; DependencyUnavailable when not even the smallest does."""
        while True:
            try:
                batch = await chore.remove(hasty, size.rows)
            except TookTooLong as error:
                if not size.note_broken_off():
                    raise DependencyUnavailable("The database takes too long for a single row.") from error
                continue
            size.note(hasty.last_s)
            return batch


def opening(url: str, schema: str) -> Callable[[], Awaitable[Database]]:
    """What opens the connection for batches to a schema, under the login of its worker.

    What a crash of Postgres forgets of them is removed again, so none waits for the disk; and each finds its rows by an
    index, whatever the statistics say of a table that has just been filled, or emptied.
    """
    return partial(
        connect,
        url,
        application_name=f"{schema}-cleaning",
        max_size=1,
        statement_timeout_s=_BROKEN_OFF_AFTER_S,
        session={"synchronous_commit": "off", "enable_seqscan": "off"},
    )


def days(env: Environment, name: str, usual: int, *, least: int = LEAST_DAYS) -> timedelta:
    """A setting in whole days: how long something is kept."""
    return timedelta(days=env.integer(name, usual, least=least, most=3_650))


def interval_s(env: Environment, prefix: str) -> float:
    """Reads `<prefix>_RETENTION_INTERVAL_S`: how often to look for what is too old, on average."""
    return env.seconds(f"{prefix}_RETENTION_INTERVAL_S", 3_600.0, least=1, most=86_400)


def _reason(chore: Chore, error: Exception) -> str:
    """Why a chore was left, as an ErrorReason; a defect is told with its traceback."""
    if isinstance(error, ServiceError):
        log.warning("cleanup_interrupted", what=chore.what, error=str(error))
        return error.reason_name
    log.error("cleanup_failed", what=chore.what, exc_info=error)
    return Internal().reason_name
