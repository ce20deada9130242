"""Owns the way from a due broadcast to its committed snapshot: order, audience, chunks, and the first of them sent."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

import structlog

from services.dispatcher.courier import Courier
from services.dispatcher.domain import (
    ChunkState,
    Decided,
    DispatchState,
    Draft,
    InFlightLimit,
    Priority,
)
from services.dispatcher.figures import PLAN_SECONDS, tell_closed
from services.dispatcher.neighbours import Audiences, Orders
from services.dispatcher.snapshot import Snapshot, partition, verify
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Due, LeasedChunk, Order, Plan
from shared.clock import Clock

log = structlog.get_logger(__name__)

_DRAFTS_BETWEEN_TURNS: Final = 16


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """How much leaves at once, by its lane; how many are released in a second; how long a decision is fresh."""

    limits: Mapping[Priority, InFlightLimit]
    release_per_second: int
    fresh_s: float

    @property
    def part(self) -> int:
        """How many people go at a time: so few that a second is filled up, and no larger part of it goes at once."""
        return max(1, self.release_per_second // 10)


class Planner:
    """Plans broadcasts. Planning one twice is harmless: the first snapshot stands."""

    def __init__(
        self,
        store: DispatchStore,
        orders: Orders,
        audiences: Audiences,
        courier: Courier,
        terms: PlanTerms,
        clock: Clock,
    ) -> None:
        self._store = store
        self._orders = orders
        self._audiences = audiences
        self._courier = courier
        self._terms = terms
        self._clock = clock

    async def plan(self, due: Due) -> bool:
        """Commit the snapshot and send what may leave at once; whether a lane should look, because more may wait.

        Raises OrderRefused, UnknownOrder and UnresolvableAudience.
        """
        began = self._clock.monotonic()
        order, snapshot = await self._begin(due)
        plan = await self._draw_up(order, snapshot, began)
        planned = await self._store.plan(plan, self._clock.monotonic() - began)
        lane = order.rules.priority.slug
        PLAN_SECONDS.labels(lane).observe(self._clock.monotonic() - began)
        if not planned.is_new:
            log.info("dispatch_known", broadcast_id=str(due.broadcast_id), state=planned.state.value)
            return True
        if planned.closure is not None:
            tell_closed([planned.closure])
        await self._courier.send(first_wave(plan))
        return any(draft.state is ChunkState.PENDING for draft in plan.drafts)

    async def _begin(self, due: Due) -> tuple[Order, Snapshot | None]:
        """The order and its audience, found while the sender decides whether it may go; its refusal comes first.

        To decide takes the sender a question of its own about rights, as long as all the rest. What was looked for in
        the meantime is thrown away if it was something else than the sender then orders.
        """
        found, begun = await asyncio.gather(
            self._find(due), self._begin_order(due.broadcast_id), return_exceptions=True
        )
        if isinstance(begun, BaseException):
            raise begun
        if due.hint is not None and due.hint != begun:
            log.error("dispatch_order_differs", broadcast_id=str(due.broadcast_id))
            return begun, await self._resolve(begun)
        if isinstance(found, BaseException):
            raise found
        return begun, found

    async def _begin_order(self, broadcast_id: UUID) -> Order:
        """Have the sender hold it for being dispatched; what it says does not change any more then."""
        order = await self._orders.begin(broadcast_id)
        await self._courier.foretell(broadcast_id)
        return order

    async def _find(self, due: Due) -> Snapshot | None:
        """Who is meant, by what will probably be ordered."""
        return await self._resolve(due.hint or await self._orders.read(due.broadcast_id))

    async def _resolve(self, order: Order) -> Snapshot | None:
        """Who is meant; nobody is asked for when it has expired."""
        if order.expires_at is not None and order.expires_at <= self._clock.now():
            return None
        return await self._audiences.resolve(order)

    async def _draw_up(self, order: Order, snapshot: Snapshot | None, began: float) -> Plan:
        if snapshot is None:
            return Plan(
                order.rules, DispatchState.EXPIRED, order.expires_at, Decided(0, self._clock.now()), 0, ()
            )
        verify(snapshot)
        drafts = await self._cut(snapshot)
        has_work = any(draft.state is ChunkState.PENDING for draft in drafts)
        state = DispatchState.DISPATCHING if has_work else DispatchState.CLOSED
        # What has taken longer is decided again before it leaves, as if it had waited in its lane.
        is_fresh = self._clock.monotonic() - began < self._terms.fresh_s
        leased = lease_first(drafts, self._terms.limits[order.rules.priority]) if is_fresh else tuple(drafts)
        return Plan(order.rules, state, order.expires_at, snapshot.decided, snapshot.targeted, leased)

    async def _cut(self, snapshot: Snapshot) -> list[Draft]:
        """The chunks of a snapshot; a large one is cut in turns, so that others are not kept waiting."""
        drafts = []
        # Coarsely, because somebody waits for the plan; what is due soon is cut into parts in time.
        for draft in partition(snapshot.slices, self._terms.release_per_second):
            drafts.append(draft)
            if len(drafts) % _DRAFTS_BETWEEN_TURNS == 0:
                await asyncio.sleep(0)
        return drafts


def lease_first(drafts: Sequence[Draft], limit: InFlightLimit) -> tuple[Draft, ...]:
    """The same chunks, as many of the first pending ones leased as may be on their way together.

    In a lane with a bound of its own, a broadcast that cannot leave as a whole waits for its turn.
    """
    sizes = [len(draft.members) for draft in drafts if draft.state is ChunkState.PENDING]
    allowance = limit.allowance(sizes)
    if limit.lane_members is not None and allowance < len(sizes):
        allowance = 0
    leased = []
    for draft in drafts:
        if allowance and draft.state is ChunkState.PENDING:
            draft = replace(draft, state=ChunkState.LEASED)
            allowance -= 1
        leased.append(draft)
    return tuple(leased)


def first_wave(plan: Plan) -> list[LeasedChunk]:
    """What leaves as soon as the plan is committed, numbered as the store numbers it."""
    broadcast_id, priority = plan.rules.broadcast_id, plan.rules.priority
    return [
        LeasedChunk(broadcast_id, number, Priority(priority), draft.kind, 1, draft.members.to_bytes())
        for number, draft in enumerate(plan.drafts)
        if draft.state is ChunkState.LEASED
    ]
