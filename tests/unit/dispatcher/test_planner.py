"""Which chunks leave together with their plan."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from services.dispatcher.domain import (
    Category,
    Channel,
    ChunkState,
    Decided,
    DispatchState,
    Draft,
    InFlightLimit,
    Kind,
    Priority,
    Reason,
)
from services.dispatcher.planner import first_wave, lease_first
from services.dispatcher.work import LeasedChunk, Plan, Rules
from shared.audience import Audience

LIMIT = InFlightLimit(chunks=2, members=100, most_chunks=5)
SLEEPER = Draft(
    Kind.ALERT, ChunkState.HELD, Audience.of([1]), release_at=datetime(2026, 11, 23, 8, tzinfo=UTC)
)
MUTED = Draft(
    Kind.NONE,
    ChunkState.SUPPRESSED,
    Audience.of([2]),
    channel=Channel.REALTIME,
    reason=Reason.CATEGORY_MUTED,
)


def loud(size: int) -> Draft:
    """A chunk that could leave."""
    return Draft(Kind.ITEM, ChunkState.PENDING, Audience.of(range(size)))


def test_only_what_is_pending_is_leased_and_only_as_much_as_may_leave() -> None:
    """Held and suppressed chunks keep their state, and so do those for which there is no room."""
    leased = lease_first([loud(200), SLEEPER, loud(200), MUTED, loud(200)], LIMIT)
    assert [draft.state for draft in leased] == [
        ChunkState.LEASED,
        ChunkState.HELD,
        ChunkState.LEASED,
        ChunkState.SUPPRESSED,
        ChunkState.PENDING,
    ]


def test_a_large_broadcast_waits_for_its_turn_in_a_lane_with_a_bound() -> None:
    """A small one leaves at once there too."""
    bulk = replace(LIMIT, lane_members=100)
    large = lease_first([loud(200), loud(200), loud(200)], bulk)
    assert {draft.state for draft in large} == {ChunkState.PENDING}
    small = lease_first([loud(200), loud(200), MUTED], bulk)
    assert [draft.state for draft in small] == [ChunkState.LEASED, ChunkState.LEASED, ChunkState.SUPPRESSED]


def test_the_first_wave_has_the_numbers_that_the_rows_have() -> None:
    """A chunk's number is its place among all of the plan."""
    rules = Rules(uuid4(), Priority.HIGH, "feature.released", Category.SYSTEM, False, None, ())
    drafts = lease_first([SLEEPER, loud(3), MUTED, loud(4)], LIMIT)
    plan = Plan(rules, DispatchState.DISPATCHING, None, Decided(1, datetime.now(UTC)), 9, drafts)
    assert first_wave(plan) == [
        LeasedChunk(rules.broadcast_id, 1, Priority.HIGH, Kind.ITEM, 1, Audience.of(range(3)).to_bytes()),
        LeasedChunk(rules.broadcast_id, 3, Priority.HIGH, Kind.ITEM, 1, Audience.of(range(4)).to_bytes()),
    ]
