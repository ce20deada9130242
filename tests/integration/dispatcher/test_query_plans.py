"""How the dispatcher's hot queries find their chunks among many, with statistics and without."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from shared.queries import load
from tests.conftest import MakeSuite
from tests.integration.shared.query_plans import Filled, assert_only_by_index, filled, nodes, rows_read, scans

ROOT: Final = Path(__file__).parents[3]
QUERIES: Final = load(ROOT / "services" / "dispatcher" / "queries.sql")

# Of each broadcast so many chunks have been merged; of a few there are others that wait, are on their way or are held.
BROADCASTS, MERGED, OPEN, PENDING, LEASED, HELD = 4_000, 5, 20, 6, 2, 3
EACH: Final = MERGED + PENDING + LEASED + HELD
GROWING: Final = ("dispatches", "chunks", "tombstones", "plan_attempts", "dead_letters", "outbox")

FILL: Final = f"""
    INSERT INTO dispatches (
        broadcast_id, priority, state, type, category, essential, wall, directory_version, decide_time, targeted,
        begin_time, plan_time, close_time
    )
    SELECT gen_random_uuid(), 3, 'closed', 'feature.released', 'system', false, '{{}}', 1, now(), 1, now(), now(), now()
    FROM generate_series(1, {BROADCASTS});
    UPDATE dispatches SET state = 'dispatching', close_time = NULL
    WHERE broadcast_id IN (SELECT broadcast_id FROM dispatches ORDER BY broadcast_id LIMIT {OPEN});
    INSERT INTO chunks (
        broadcast_id, chunk, priority, kind, state, members, size, decided_version, decided_at, looked_at, epoch,
        lease_until, release_at
    )
    SELECT
        broadcast_id, chunk, 3, kind, draft.state, 'x', 1, 1, now(), now(), epoch,
        CASE draft.state WHEN 'leased' THEN now() + interval '1 hour' END,
        CASE draft.state WHEN 'held' THEN now() + interval '1 hour' END
    FROM dispatches
    CROSS JOIN LATERAL (
        SELECT place AS chunk, 'item' AS kind, 'done' AS state, 1 AS epoch FROM generate_series(1, {MERGED}) AS place
        UNION ALL
        SELECT 100 + place, 'item', 'pending', 0 FROM generate_series(1, {PENDING}) AS place
        WHERE dispatches.state = 'dispatching'
        UNION ALL
        SELECT 200 + place, 'item', 'leased', 1 FROM generate_series(1, {LEASED}) AS place
        WHERE dispatches.state = 'dispatching'
        UNION ALL
        SELECT 300 + place, 'alert', 'held', 0 FROM generate_series(1, {HELD}) AS place
        WHERE dispatches.state = 'dispatching'
    ) AS draft;
    INSERT INTO tombstones SELECT broadcast_id, now(), true, 0, 0, 0 FROM dispatches WHERE state = 'closed';
    INSERT INTO plan_attempts SELECT broadcast_id, 1, now() FROM dispatches WHERE state = 'closed';
    INSERT INTO dead_letters (subject, broadcast_id, error, at)
    SELECT 'broadcast.due.high', broadcast_id, 'DEFECT', now() FROM dispatches;
    INSERT INTO outbox (key, subject, payload, due_at, rank, settle, state)
    SELECT broadcast_id::text, 'broadcast.state.sent', 'x', now(), 2, 'ack', 'done' FROM dispatches
"""  # noqa: S608


@pytest.fixture(scope="module")
async def archive(make_suite: MakeSuite) -> AsyncIterator[Filled]:
    """Thousands of broadcasts, a few of which are on their way."""
    async with filled(await make_suite("dispatcher"), "dispatcher", FILL) as tables:
        yield tables


@pytest.fixture(params=["told", "untold"], autouse=True)
async def _statistics(archive: Filled, request: pytest.FixtureRequest) -> None:
    """With statistics, and with none."""
    await archive.know(told=request.param == "told")


@pytest.fixture
async def broadcast_id(archive: Filled) -> UUID:
    """One that is on its way."""
    found: UUID = await archive.admin.fetchval(
        "SELECT broadcast_id FROM dispatches WHERE state = 'dispatching' LIMIT 1"
    )
    return found


LEASE, LANES = timedelta(seconds=5), [1, 2, 3, 4]
BATCH: Final = 16


@pytest.mark.parametrize("members_lane", [None, 131_072], ids=["urgent", "bulk"])
async def test_the_next_chunks_are_leased_from_those_that_wait(
    archive: Filled, members_lane: int | None
) -> None:
    """A lane looks at what waits and at what is on its way, and at nothing that is over, however much there is."""
    arguments = (3, 2, 262_144, 48, members_lane, BATCH, LEASE, LEASE, 0)
    found = await archive.plans("worker", QUERIES["lease_chunks"], *arguments)
    assert_only_by_index(found, *GROWING)
    by = {node["Index Name"] for node in scans(found, "chunks")}
    assert by == {"pending_chunks", "leased_chunks", "chunks_pkey"}
    # For the broadcasts that wait, their chunks that do, those that are on their way, and what is leased.
    assert rows_read(found, "chunks") <= 4 * OPEN * (PENDING + LEASED)
    assert rows_read(found, "dispatches") <= 2 * OPEN


async def test_what_a_lane_looks_for_now_and_then_is_found_among_what_is_open(archive: Filled) -> None:
    """Leases that have ended, what is held, what has expired: each by an index that has nothing else in it."""
    for query, arguments, most in (
        ("lease_again", (LANES, LEASE, LEASE, 100), OPEN * LEASED),
        ("is_any_asleep", (LANES,), 1),
        ("find_oldest_decision", (LANES,), OPEN * HELD),
        ("find_coarse", (LANES, 0, 16), 0),
        ("lock_expired", (LANES,), OPEN * (PENDING + 1)),
    ):
        found = await archive.plans("worker", QUERIES[query], *arguments)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, *GROWING) <= most, query


@pytest.fixture
async def closed_id(archive: Filled, broadcast_id: UUID) -> AsyncIterator[UUID]:
    """One of which nothing is on its way any more, so that what is held of it can be let go."""
    await archive.admin.execute(
        "UPDATE dispatches SET state = 'closed', close_time = now() WHERE broadcast_id = $1", broadcast_id
    )
    yield broadcast_id
    await archive.admin.execute(
        "UPDATE dispatches SET state = 'dispatching', close_time = NULL WHERE broadcast_id = $1", broadcast_id
    )


async def test_what_is_let_go_is_found_among_what_is_held(archive: Filled, closed_id: UUID) -> None:
    """The next holds to end, those that have, and what is on its way: each by an index that has nothing else in it."""
    now = datetime.now(UTC)
    for moment, most in ((now, 4), (now + timedelta(hours=2), 4 + OPEN * HELD + HELD)):
        found = await archive.plans("worker", "SELECT released FROM let_go($1, $2, $3)", 5_000, 256, moment)
        assert_only_by_index(found, *GROWING)
        by = {node["Index Name"] for node in scans(found, "chunks")}
        assert by <= {"held_in_turn", "alerts_on_their_way", "chunks_pkey"}
        assert rows_read(found, "chunks") <= most
    assert any("own" in str(node.get("CTE Name")) for plan in found for node in nodes(plan)), (
        "some were let go"
    )


async def test_what_is_held_is_looked_through_along_its_index(archive: Filled) -> None:
    """A page at a time, none read twice, and nothing sorted."""
    start = (3, datetime(1, 1, 1, tzinfo=UTC), -1, UUID(int=0), -1, 64)
    found = await archive.plans("worker", QUERIES["list_asleep"], *start)
    assert {node["Index Name"] for node in scans(found, "chunks")} == {"held_in_turn"}
    assert rows_read(found, "chunks") <= OPEN * HELD


async def test_a_report_is_applied_by_key(archive: Filled, broadcast_id: UUID) -> None:
    """The dispatch, its chunk, and whether another one of it is still to come."""
    found = await archive.plans("worker", QUERIES["apply_reports"], [broadcast_id], [201], [1], ["merged"])
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "dispatches") == 2
    assert rows_read(found, "chunks") <= 2 + EACH
    found = await archive.plans("worker", QUERIES["close_finished"], [broadcast_id])
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, *GROWING) <= 1 + EACH


async def test_what_is_known_of_one_broadcast_is_found_by_its_key(
    archive: Filled, broadcast_id: UUID
) -> None:
    """As the worker decides again and begins anew, and as calls count and stop it: its own rows and no others'."""
    now = datetime.now(UTC)
    for role, query, *arguments in (
        ("worker", "read_rules", [broadcast_id]),
        ("worker", "confirm_decisions", broadcast_id, [101, 102], 2, now, timedelta(), "pending"),
        ("worker", "list_walls", [broadcast_id], [broadcast_id]),
        ("worker", "expire_chunks", [broadcast_id]),
        ("worker", "find_dispatch", broadcast_id),
        ("api", "count_dispatch", broadcast_id),
        ("api", "find_tombstone", broadcast_id),
        ("api", "lock_dispatch", broadcast_id),
        ("api", "cancel_waiting", broadcast_id),
        ("api", "count_in_flight", broadcast_id),
        ("api", "mark_stopped", broadcast_id),
    ):
        found = await archive.plans(role, QUERIES[query], *arguments, broadcast=broadcast_id)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, *GROWING) <= 1 + EACH, query
