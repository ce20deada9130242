"""Owns the dispatcher's rows: a method a query, or a few that take effect together; rows in, domain values out."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from services.dispatcher import rows
from services.dispatcher.domain import Decided, DispatchState, InFlightLimit, Priority
from services.dispatcher.messages import state_payload
from services.dispatcher.snapshot import Redecision
from services.dispatcher.work import Closure, LeasedChunk, Plan, Report, Rules, WaitingChunk
from shared import subjects
from shared.database import Database, Queryable
from shared.failpoints import declare, failpoint
from shared.outbox import Outbox, OutboxEntry
from shared.queries import load

SCHEMA: Final = "dispatcher"

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))

declare(
    "dispatcher.plan.before_commit",
    "dispatcher.plan.after_commit",
    "dispatcher.lease.after_commit",
    "dispatcher.lease_again.after_commit",
    "dispatcher.redecide.before_commit",
    "dispatcher.redecide.after_commit",
    "dispatcher.expire.before_commit",
    "dispatcher.expire.after_commit",
    "dispatcher.report.before_commit",
    "dispatcher.report.after_commit",
)


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a chunk may be on its way at first and at most, and how old a decision may be when it leaves."""

    first_s: float
    ceiling_s: float
    fresh_s: float

    @property
    def first(self) -> timedelta:
        """The first lease."""
        return timedelta(seconds=self.first_s)

    def age(self, age_s: float) -> timedelta:
        """How old a decision counts as that was asked for so long ago.

        Never so old that nothing could leave while the directory takes long to answer: how long it may take is bounded
        where it is asked.
        """
        return timedelta(seconds=min(age_s, self.fresh_s / 2))


@dataclass(frozen=True, slots=True)
class Planned:
    """What became of a plan: committed now, or the state that was there before; and whether it closed at once."""

    is_new: bool
    state: DispatchState
    closure: Closure | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch of reports: verdicts in their order, the lanes with room again, and what is closed now."""

    verdicts: tuple[str, ...]
    priorities: frozenset[Priority]
    closures: tuple[Closure, ...]


class DispatchStore:
    """The worker's rows: plans, chunks and what is told to the sender."""

    def __init__(self, database: Database, terms: LeaseTerms, told: Callable[[], None]) -> None:
        """`database` is that of the worker login; `told` is called when something for the sender was committed."""
        self._database = database
        self._terms = terms
        self._told = told
        self._outbox = Outbox(database, SCHEMA)

    async def plan(self, plan: Plan, elapsed_s: float) -> Planned:
        """Commit a snapshot unless there is one already, or a cancel; `elapsed_s` is how long ago work on it began."""
        await failpoint("dispatcher.plan.before_commit")
        elapsed = timedelta(seconds=elapsed_s)
        arguments = (
            *(*rows.plan_columns(plan), elapsed, *rows.draft_columns(plan.drafts)),
            self._terms.first,
            rows.turn_column(plan.drafts),
        )
        if plan.state is DispatchState.DISPATCHING:
            outcome = await self._database.fetchval(_QUERIES["plan_dispatch"], *arguments)
            planned = _planned(plan, outcome)
        else:
            planned = await self._plan_closed(plan, arguments)
        await failpoint("dispatcher.plan.after_commit")
        return planned

    async def _plan_closed(self, plan: Plan, arguments: Sequence[object]) -> Planned:
        """Commit a plan with nothing to send together with the word of it to the sender."""
        async with self._database.transaction() as transaction:
            planned = _planned(plan, await transaction.fetchval(_QUERIES["plan_dispatch"], *arguments))
            if not planned.is_new:
                return planned
            row = await transaction.fetchrow(_QUERIES["find_dispatch"], plan.rules.broadcast_id)
            if row is None:
                raise LookupError("a dispatch that was just written is not there")
            closure = rows.closure(row)
            await self._tell(transaction, closure)
        self._told()
        return Planned(True, plan.state, closure)

    async def lease(
        self, priority: Priority, limit: InFlightLimit, batch: int, least_version: int = 0
    ) -> tuple[list[LeasedChunk], list[WaitingChunk]]:
        """What leaves this lane now, and what would if it had been decided more recently.

        That is lately, and at this version of the directory or a later one.
        """
        found = await self._database.fetch(
            _QUERIES["lease_chunks"],
            priority,
            limit.chunks,
            limit.members,
            limit.most_chunks,
            limit.lane_members,
            batch,
            self._terms.first,
            timedelta(seconds=self._terms.fresh_s),
            least_version,
        )
        leased = [rows.leased_chunk(row, priority) for row in found if row["is_leased"]]
        if leased:
            await failpoint("dispatcher.lease.after_commit")
        return leased, [rows.waiting_chunk(row) for row in found if not row["is_leased"]]

    async def lease_again(self, priorities: Collection[Priority], batch: int) -> list[LeasedChunk]:
        """Chunks that the inbox has not answered for in time, to be sent once more, unchanged."""
        ceiling = timedelta(seconds=self._terms.ceiling_s)
        found = await self._database.fetch(
            _QUERIES["lease_again"], list(priorities), self._terms.first, ceiling, batch
        )
        if found:
            await failpoint("dispatcher.lease_again.after_commit")
        return [rows.leased_chunk(row, Priority(row["priority"])) for row in found]

    async def rules(self, broadcast_ids: Collection[UUID]) -> dict[UUID, Rules]:
        """What decisions about these broadcasts' recipients depend on."""
        found = await self._database.fetch(_QUERIES["read_rules"], list(broadcast_ids))
        return {row["broadcast_id"]: rows.rules(row) for row in found}

    async def confirm(self, chunks: Sequence[WaitingChunk], decided: Decided, age_s: float) -> None:
        """These chunks of one broadcast, in one state, are as they should be; that was asked so long ago."""
        await self._database.execute(
            _QUERIES["confirm_decisions"],
            chunks[0].broadcast_id,
            [chunk.chunk for chunk in chunks],
            decided.directory_version,
            decided.time,
            self._terms.age(age_s),
            chunks[0].state,
        )

    async def redecide(
        self, changes: Sequence[tuple[WaitingChunk, Redecision]], decided: Decided, age_s: float
    ) -> list[Closure]:
        """Put chunks of one broadcast into their new form; what somebody else has changed meanwhile stays theirs."""
        age = self._terms.age(age_s)
        async with self._database.transaction() as transaction:
            for chunk, change in changes:
                await transaction.fetchval(
                    _QUERIES["redecide_chunk"], *rows.redecision_columns(chunk, change, decided), age
                )
            closures = await self._close_finished(transaction, {chunk.broadcast_id for chunk, _ in changes})
            await failpoint("dispatcher.redecide.before_commit")
        await failpoint("dispatcher.redecide.after_commit")
        return self._announced(closures)

    async def expire(self, priorities: Collection[Priority]) -> list[Closure]:
        """End what waits of broadcasts that have passed their expiry."""
        async with self._database.transaction() as transaction:
            found = await transaction.fetch(_QUERIES["lock_expired"], list(priorities))
            if not found:
                return []
            expired = [row["broadcast_id"] for row in found]
            await transaction.execute(_QUERIES["expire_chunks"], expired)
            closures = await self._close_finished(transaction, expired)
            await failpoint("dispatcher.expire.before_commit")
        await failpoint("dispatcher.expire.after_commit")
        return self._announced(closures)

    async def apply(self, reports: Sequence[Report]) -> Applied:
        """Take the inbox's word on chunks, close what is finished by it, and tell the sender."""
        async with self._database.transaction() as transaction:
            found = await transaction.fetch(
                _QUERIES["apply_reports"],
                [each.broadcast_id for each in reports],
                [each.chunk for each in reports],
                [each.size for each in reports],
                ["merged" if each.is_merged else "stopped" for each in reports],
            )
            applied = {
                reports[row["place"] - 1].broadcast_id: Priority(row["priority"])
                for row in found
                if row["verdict"] == "applied"
            }
            closures = await self._close_finished(transaction, applied.keys())
            await failpoint("dispatcher.report.before_commit")
        await failpoint("dispatcher.report.after_commit")
        closed = {closure.broadcast_id for closure in closures}
        verdicts = {row["place"]: row["verdict"] for row in found}
        return Applied(
            tuple(verdicts[place] for place in range(1, len(reports) + 1)),
            frozenset(priority for broadcast_id, priority in applied.items() if broadcast_id not in closed),
            tuple(self._announced(closures)),
        )

    async def find(self, broadcast_id: UUID) -> Closure | DispatchState | None:
        """The dispatch that is there: its state, and more when it is closed; None when there is none."""
        row = await self._database.fetchrow(_QUERIES["find_dispatch"], broadcast_id)
        if row is None:
            return None
        is_told = row["state"] in (DispatchState.CLOSED, DispatchState.EXPIRED)
        return rows.closure(row) if is_told else DispatchState(row["state"])

    async def tell_again(self, closure: Closure) -> None:
        """Say once more what a broadcast has come to, to a sender who seems not to have heard it."""
        await self._tell(self._database, closure)
        self._told()

    async def fail(
        self, broadcast_id: UUID, priority: Priority, time: datetime, error: str, letter: str
    ) -> None:
        """Tell the sender that a broadcast cannot be resolved, with `error`, and put its message aside as `letter`."""
        async with self._database.transaction() as transaction:
            await self._bury(transaction, subjects.broadcast_due(priority.slug), broadcast_id, None, letter)
            await transaction.execute(_QUERIES["forget_attempts"], broadcast_id)
            payload = state_payload(broadcast_id, "failed", time, error=error)
            await self._outbox.add(
                transaction,
                OutboxEntry(subjects.broadcast_state("failed"), payload, subjects.rank(priority.slug)),
            )
        self._told()

    async def begin_attempt(self, broadcast_id: UUID) -> int:
        """Count one more attempt at planning; how many there were that came to no orderly end, with this one."""
        return int(await self._database.fetchval(_QUERIES["begin_attempt"], broadcast_id))

    async def forget_attempts(self, broadcast_id: UUID) -> None:
        """The attempt came to an orderly end."""
        await self._database.execute(_QUERIES["forget_attempts"], broadcast_id)

    async def bury(self, subject: str, broadcast_id: UUID | None, chunk: int | None, letter: str) -> None:
        """Put aside a message that cannot be processed; `letter` is the cause in capitals."""
        await self._bury(self._database, subject, broadcast_id, chunk, letter)

    async def _bury(
        self, where: Queryable, subject: str, broadcast_id: UUID | None, chunk: int | None, letter: str
    ) -> None:
        await where.execute(_QUERIES["bury"], subject, broadcast_id, chunk, letter)

    async def _close_finished(self, transaction: Queryable, broadcast_ids: Collection[UUID]) -> list[Closure]:
        """Close those of which nothing is pending; their rows are locked."""
        if not broadcast_ids:
            return []
        found = await transaction.fetch(_QUERIES["close_finished"], list(broadcast_ids))
        closures = [rows.closure(row) for row in found]
        for closure in closures:
            await self._tell(transaction, closure)
        return closures

    def _announced(self, closures: list[Closure]) -> list[Closure]:
        """The same, once what was written about them is committed."""
        if closures:
            self._told()
        return closures

    async def _tell(self, transaction: Queryable, closure: Closure) -> None:
        """Write what the sender is to hear of a closed dispatch; of a stopped one it has told us."""
        told = {DispatchState.CLOSED: "sent", DispatchState.EXPIRED: "expired"}.get(closure.state)
        if told is not None:
            payload = state_payload(closure.broadcast_id, told, closure.time, targeted=closure.targeted)
            rank = subjects.rank(closure.priority.slug)
            await self._outbox.add(transaction, OutboxEntry(subjects.broadcast_state(told), payload, rank))


def _planned(plan: Plan, outcome: str) -> Planned:
    if outcome == "planned":
        return Planned(True, plan.state)
    return Planned(False, DispatchState(outcome))
