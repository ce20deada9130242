"""Owns the transactional outbox: rows that say what to publish and when, and the relay that publishes them.

The table and its functions are in `sql/outbox_template.sql`, which the owning schema's migration copies.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog

from shared.backoff import backoff_s
from shared.cleaning import RowChore
from shared.database import Database, Queryable
from shared.errors import DependencyUnavailable
from shared.failpoints import declare, failpoint
from shared.queries import load
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

Settle = Literal["ack", "report"]

_SQL: Final = Path(__file__).parent / "sql" / "outbox.sql"
_RETRY_FIRST_S: Final = 0.1
_RETRY_CEILING_S: Final = 5.0
# A look costs the database little, and what an outage has left waiting leaves soon after it.
_OUTAGE_CEILING_S: Final = 1.0
_OVERDUE_PAUSE_S: Final = 0.01
_KEPT_FOR: Final = timedelta(days=7)
# What has no room in the window waits for something else to be settled.
_CROWDED_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """Something to publish.

    `due_at` None is at once. `rank` is 0 for critical to 3 for low. With `settle` "ack" it is done when JetStream has
    it; with "report" it is published again, under a new epoch, whenever a lease ends before `Outbox.settle(key)`.
    """

    subject: str
    payload: bytes
    rank: int
    key: str | None = None
    due_at: datetime | None = None
    settle: Settle = "ack"


@dataclass(frozen=True, slots=True)
class ClaimedEntry:
    """A row that a relay has claimed: epoch counts claims from 1, attempts those that JetStream did not take."""

    id: int
    key: str | None
    subject: str
    payload: bytes
    due_at: datetime
    rank: int
    settle: Settle
    epoch: int
    attempts: int

    @property
    def message_id(self) -> str:
        """What JetStream knows a repetition by: each epoch has its own, so that one after a lease is not dropped."""
        return f"{self.key or self.id}:{self.epoch}"


class Publisher(Protocol):
    """Hands a message to JetStream."""

    @property
    def is_connected(self) -> bool:
        """Whether it makes sense to try."""

    async def publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """Return once it is stored. Raises DependencyUnavailable."""


class Outbox:
    """The owner's side: adds rows in its own transactions, settles and cancels them."""

    def __init__(self, database: Database, schema: str) -> None:
        self._database = database
        self._queries = load(_SQL, schema=schema)

    async def add(self, transaction: Queryable, entry: OutboxEntry) -> int:
        """Add a row in the caller's transaction; its id. A key that is there already breaks `outbox_key_once`."""
        return int(
            await transaction.fetchval(
                self._queries["add"],
                entry.key,
                entry.subject,
                entry.payload,
                entry.due_at,
                entry.rank,
                entry.settle,
            )
        )

    async def add_many(self, transaction: Queryable, entries: Sequence[OutboxEntry]) -> None:
        """Add rows in the caller's transaction, in one statement; a key that is there breaks `outbox_key_once`."""
        await transaction.execute(
            self._queries["add_many"],
            [entry.key for entry in entries],
            [entry.subject for entry in entries],
            [entry.payload for entry in entries],
            [entry.due_at for entry in entries],
            [entry.rank for entry in entries],
            [entry.settle for entry in entries],
        )

    async def settle(self, transaction: Queryable, key: str) -> bool:
        """What the row asked for has happened; False when there is no such row, or it has ended before."""
        return bool(await transaction.fetchval(self._queries["settle"], key))

    async def cancel(self, transaction: Queryable, key: str) -> bool:
        """What the row asks for is not wanted any more; False when there is no such row, or it has ended before."""
        return bool(await transaction.fetchval(self._queries["cancel"], key))

    def retention(self) -> RowChore:
        """Removes rows that have ended, a week after they were added: until then one can see what was said when."""
        counts, removes = self._queries["count_finished"], self._queries["remove_finished"]
        return RowChore("outbox", _KEPT_FOR, self._database, counts, removes)


class OutboxRelay:
    """Publishes what is due in one schema's outbox. Any number may run, in any number of processes."""

    def __init__(
        self,
        database: Database,
        schema: str,
        publisher: Publisher,
        *,
        lease_s: float = 30.0,
        lease_ceiling_s: float = 240.0,
        poll_s: float = 0.2,
        batch: int = 100,
        window: int | None = None,
        encode: Callable[[ClaimedEntry], bytes] | None = None,
    ) -> None:
        """A row's first lease is `lease_s` long, each further one twice that, at most `lease_ceiling_s`.

        With a `window`, a row waits while so many that are as urgent or more have been published and are not settled,
        each until its first lease ends; so what is less urgent does not begin while much that is more so is under way.
        Several relays that claim at the same moment may each fill it.

        `encode` makes the message of a row, for one that must carry its epoch; without it the payload is sent.
        """
        self._database = database
        self._schema = schema
        self._publisher = publisher
        self._lease_s = lease_s
        self._lease_ceiling_s = max(lease_s, lease_ceiling_s)
        self._poll_s = poll_s
        self._batch = batch
        self._window = window
        self._overdue_pause_s = _OVERDUE_PAUSE_S if window is None else _CROWDED_PAUSE_S
        self._encode = encode or (lambda entry: entry.payload)
        self._queries = load(_SQL, schema=schema)
        self._wake = asyncio.Event()
        self._stopping = False
        self._names = _RelayFailpoints.of(schema)

    def wake(self) -> None:
        """Look at once: a transaction that added a row has just committed."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return once what it has claimed is published."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Relay until `stop`: at every `wake`, when the next row is due, and every `poll_s` in any case."""
        failures = 0
        while not self._stopping:
            self._wake.clear()
            try:
                pause_s = await self._turn()
                failures = 0
            except DependencyUnavailable as error:
                failures += 1
                pause_s = backoff_s(failures, _RETRY_FIRST_S, _OUTAGE_CEILING_S)
                log.warning("outbox_interrupted", schema=self._schema, failures=failures, error=str(error))
            if pause_s and not self._stopping:
                await wait_for_hint(self._wake, pause_s)

    async def _turn(self) -> float:
        """Relay a batch; how long there is nothing to do then. Without a connection rows are left as they are."""
        if not self._publisher.is_connected:
            return self._poll_s
        claimed = await self.relay_due()
        return 0.0 if claimed >= self._batch else await self._until_next()

    async def relay_due(self) -> int:
        """Claim one batch of what is due and publish it; how many rows that were."""
        await failpoint(self._names.before_claim)
        rows = await self._database.fetch(
            self._queries["claim"], self._batch, self._lease_s, self._lease_ceiling_s, self._window
        )
        if not rows:
            return 0
        await failpoint(self._names.after_claim)
        entries = sorted((ClaimedEntry(*row) for row in rows), key=lambda entry: (entry.rank, entry.due_at))
        published = await asyncio.gather(*(self._publish(entry) for entry in entries))
        await failpoint(self._names.before_mark)
        await self._mark(list(zip(entries, published, strict=True)))
        await failpoint(self._names.after_mark)
        return len(entries)

    async def _publish(self, entry: ClaimedEntry) -> bool:
        """Whether JetStream has the message. Whatever is wrong with one must not keep back its neighbours."""
        try:
            await failpoint(self._names.before_publish)
            await self._publisher.publish(entry.subject, self._encode(entry), entry.message_id)
            await failpoint(self._names.after_publish)
        except Exception as error:  # see above; a defect is told with its traceback
            log.warning(
                "outbox_publish_failed",
                schema=self._schema,
                subject=entry.subject,
                message_id=entry.message_id,
                attempts=entry.attempts + 1,
                error=str(error),
                exc_info=None if isinstance(error, DependencyUnavailable) else error,
            )
            return False
        return True

    async def _mark(self, outcomes: Sequence[tuple[ClaimedEntry, bool]]) -> None:
        taken = [entry for entry, is_published in outcomes if is_published]
        refused = [entry for entry, is_published in outcomes if not is_published]
        if taken:
            await self._database.execute(
                self._queries["mark_acknowledged"],
                [entry.id for entry in taken],
                [entry.epoch for entry in taken],
            )
        if refused:
            await self._database.execute(
                self._queries["return_unpublished"],
                [entry.id for entry in refused],
                [entry.epoch for entry in refused],
                [backoff_s(entry.attempts + 1, _RETRY_FIRST_S, _RETRY_CEILING_S) for entry in refused],
            )

    async def _until_next(self) -> float:
        """Seconds to sleep: until the next row is due or a lease ends, at most `poll_s`."""
        seconds = await self._database.fetchval(self._queries["seconds_until_next"])
        if seconds is None:
            return self._poll_s
        # What is overdue and was not claimed is in somebody else's hands for a moment, or has no room in the window.
        return min(self._poll_s, seconds if seconds > 0 else self._overdue_pause_s)


@dataclass(frozen=True, slots=True)
class _RelayFailpoints:
    """The places where a relay may be hit: before and after its commits and its publishing."""

    before_claim: str
    after_claim: str
    before_publish: str
    after_publish: str
    before_mark: str
    after_mark: str

    @classmethod
    def of(cls, schema: str) -> "_RelayFailpoints":
        places = (
            "before_claim",
            "after_claim",
            "before_publish",
            "after_publish",
            "before_mark",
            "after_mark",
        )
        return cls(*declare(*(f"{schema}.relay.{place}" for place in places)))
