"""The dispatcher's edge to NATS: broadcasts that are due, and the inbox's word on chunks."""

import asyncio
from collections.abc import Mapping
from typing import Final
from uuid import UUID

import structlog

from services.dispatcher.domain import DispatchState, Priority
from services.dispatcher.figures import DEAD_LETTERS, REPORTS, tell_closed
from services.dispatcher.lanes import Lane
from services.dispatcher.messages import BrokenMessage, due_of, reports
from services.dispatcher.neighbours import OrderRefused, UnknownOrder, UnresolvableAudience
from services.dispatcher.planner import Planner
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Closure, Due, Report
from shared import subjects
from shared.clock import Clock
from shared.errors import DependencyUnavailable
from shared.messaging import Messaging
from shared.pull_worker import Delivery, Poison, PullWorker
from shared.streams import DISPATCHER_DUE, DISPATCHER_REPORT

log = structlog.get_logger(__name__)

_MOST_ATTEMPTS: Final = 20
_REPORTS_AT_ONCE: Final = 256


class DueConsumer:
    """Plans what is due in one lane."""

    def __init__(self, lane: Lane, planner: Planner, store: DispatchStore, clock: Clock) -> None:
        self._lane = lane
        self._planner = planner
        self._store = store
        self._clock = clock

    async def handle(self, delivery: Delivery) -> None:
        """Plan the broadcast that a message names, unless that was done before."""
        try:
            due = due_of(delivery.payload)
        except BrokenMessage as error:
            raise Poison("BROKEN_MESSAGE") from error
        broadcast_id, is_repeated = due.broadcast_id, delivery.attempt > 1 or due.announced > 1
        if is_repeated and (await self._is_known(broadcast_id) or await self._is_hopeless(broadcast_id)):
            return
        await self._lane.step_aside()
        try:
            await self._plan(due)
        except DependencyUnavailable:
            # That something was out of reach is not this message's fault.
            if is_repeated:
                await self._store.forget_attempts(broadcast_id)
            raise
        if is_repeated:
            await self._store.forget_attempts(broadcast_id)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Put a message aside that cannot be planned."""
        try:
            broadcast_id = due_of(delivery.payload).broadcast_id
        except BrokenMessage:
            broadcast_id = None
        cause = reason if reason in ("BROKEN_MESSAGE", "UNKNOWN_BROADCAST") else "DEFECT"
        DEAD_LETTERS.labels(cause).inc()
        await self._store.bury(delivery.subject, broadcast_id, None, cause)

    async def _plan(self, due: Due) -> None:
        try:
            if await self._planner.plan(due):
                self._lane.wake()
        except OrderRefused as refusal:
            log.info("dispatch_refused", broadcast_id=str(due.broadcast_id), reason=str(refusal))
        except UnknownOrder as error:
            raise Poison("UNKNOWN_BROADCAST") from error
        except UnresolvableAudience as error:
            await self._fail(due.broadcast_id, str(error), "UNRESOLVABLE_AUDIENCE")

    async def _is_known(self, broadcast_id: UUID) -> bool:
        """Whether there is a dispatch; then see to it that it moves on, or that the sender hears of its end."""
        found = await self._store.find(broadcast_id)
        if found is None:
            return False
        if isinstance(found, Closure):
            await self._store.tell_again(found)
        elif found is DispatchState.DISPATCHING:
            self._lane.wake()
        return True

    async def _is_hopeless(self, broadcast_id: UUID) -> bool:
        """Count this attempt; after too many that ended in a crash or a defect, say that it failed."""
        if await self._store.begin_attempt(broadcast_id) <= _MOST_ATTEMPTS:
            return False
        await self._fail(broadcast_id, "INTERNAL: It could not be dispatched after many attempts.", "DEFECT")
        return True

    async def _fail(self, broadcast_id: UUID, error: str, cause: str) -> None:
        log.error("broadcast_failed", broadcast_id=str(broadcast_id), cause=cause)
        DEAD_LETTERS.labels(cause).inc()
        await self._store.fail(broadcast_id, self._lane.priority, self._clock.now(), error, cause)


class ReportConsumer:
    """Applies reports in groups: whatever has come while one group was being committed is the next."""

    def __init__(self, store: DispatchStore, lanes: Mapping[Priority, Lane]) -> None:
        self._store = store
        self._lanes = lanes
        self._waiting: list[tuple[Report, asyncio.Future[str]]] = []
        self._applying: asyncio.Task[None] | None = None

    async def handle(self, delivery: Delivery) -> None:
        """Return once all that a message reports is committed."""
        try:
            said = reports(delivery.payload)
        except BrokenMessage as error:
            raise Poison("BROKEN_MESSAGE") from error
        verdicts = await asyncio.gather(*map(self._ask, said))
        for each, verdict in zip(said, verdicts, strict=True):
            REPORTS.labels(verdict).inc()
            if verdict in ("unknown", "size"):
                await self._bury_report(each, verdict)

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """Put a message aside that is no report."""
        cause = reason if reason == "BROKEN_MESSAGE" else "DEFECT"
        DEAD_LETTERS.labels(cause).inc()
        await self._store.bury(delivery.subject, None, None, cause)

    def _ask(self, said: Report) -> "asyncio.Future[str]":
        """What becomes of a report, once its group is committed."""
        settled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((said, settled))
        if self._applying is None:
            self._applying = asyncio.create_task(self._apply_waiting())
        return settled

    async def _apply_waiting(self) -> None:
        try:
            while self._waiting:
                group = self._waiting[:_REPORTS_AT_ONCE]
                del self._waiting[:_REPORTS_AT_ONCE]
                await self._apply(group)
        finally:
            self._applying = None

    async def _apply(self, group: list[tuple[Report, "asyncio.Future[str]"]]) -> None:
        try:
            applied = await self._store.apply([said for said, _ in group])
        except Exception as error:  # noqa: BLE001  # each waiting message is settled by what became of its group
            for _, settled in group:
                if not settled.done():
                    settled.set_exception(error)
            return
        for (_, settled), verdict in zip(group, applied.verdicts, strict=True):
            if not settled.done():
                settled.set_result(verdict)
        for priority in applied.priorities & self._lanes.keys():
            self._lanes[priority].wake()
        tell_closed(applied.closures)

    async def _bury_report(self, said: Report, verdict: str) -> None:
        """The inbox speaks of a chunk that is not ours, or not as it was sent: a defect, which time does not heal."""
        cause = "UNKNOWN_CHUNK" if verdict == "unknown" else "SIZE_DIFFERS"
        log.error(
            "report_not_applied",
            broadcast_id=str(said.broadcast_id),
            chunk=said.chunk,
            size=said.size,
            cause=cause,
        )
        DEAD_LETTERS.labels(cause).inc()
        await self._store.bury(subjects.DELIVERY_REPORT, said.broadcast_id, said.chunk, cause)


def due_workers(
    nats: Messaging,
    lanes: Mapping[Priority, Lane],
    planner: Planner,
    store: DispatchStore,
    clock: Clock,
    planners_per_lane: int,
) -> dict[str, PullWorker]:
    """The consumers of due messages by name: one a lane, each with planners of its own."""
    workers = {}
    for lane in lanes.values():
        due, declared = DueConsumer(lane, planner, store, clock), DISPATCHER_DUE[lane.priority.slug]
        workers[declared.name] = PullWorker(
            nats, declared, due.handle, bury=due.bury, concurrency=planners_per_lane, ack_sync=True
        )
    return workers


def report_worker(
    nats: Messaging, lanes: Mapping[Priority, Lane], store: DispatchStore
) -> dict[str, PullWorker]:
    """The consumer of reports by name."""
    reports = ReportConsumer(store, lanes)
    worker = PullWorker(
        nats,
        DISPATCHER_REPORT,
        reports.handle,
        bury=reports.bury,
        concurrency=_REPORTS_AT_ONCE,
        ack_sync=True,
    )
    return {DISPATCHER_REPORT.name: worker}
