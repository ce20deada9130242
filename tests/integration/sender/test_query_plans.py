"""How the sender's hot queries find their rows among many, with statistics and without: a wrong plan is an outage."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from shared.queries import load
from tests.conftest import MakeSuite
from tests.integration.shared.query_plans import (
    BY_INDEX,
    Filled,
    assert_only_by_index,
    filled,
    indexes,
    plans,
    rows_read,
    scans,
)

ROOT: Final = Path(__file__).parents[3]
QUERIES: Final = load(ROOT / "services" / "sender" / "queries.sql")
OUTBOX: Final = load(ROOT / "shared" / "sql" / "outbox.sql", schema="sender")
REQUESTS: Final = load(ROOT / "shared" / "sql" / "requests.sql", schema="sender")

BROADCASTS, WEDDINGS, SCHEDULED, DUE, ANNOUNCED = 20_000, 500, 5_000, 50, 50
WINDOW: Final = 128
GROWING: Final = ("broadcasts", "walls", "requests", "outbox", "counted_sends")

# All is over but for one broadcast. In the outbox a part is scheduled, little is due, or announced and not reported.
FILL: Final = f"""
    INSERT INTO broadcasts (
        broadcast_id, type, priority, title, message, everyone, user_ids, roles, tiers, segment_ids, wedding_ids,
        scheduled_for, created_by, created_by_service, created_at, targeted, state, sent_at
    )
    SELECT
        gen_random_uuid(), 'form.locked', 3, 't', 'm', true, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', now(),
        'person ' || number % 50, false, now(), 1, 'sent', now()
    FROM generate_series(1, {BROADCASTS}) AS number;
    INSERT INTO walls
    SELECT broadcast_id, lpad((row_number() OVER () % {WEDDINGS})::text, 32, '0')::uuid FROM broadcasts;
    INSERT INTO requests (caller, method, request_id, body_hash, response)
    SELECT created_by, 'Send', broadcast_id, decode(repeat('00', 32), 'hex'), 'x' FROM broadcasts;
    INSERT INTO counted_sends (caller, type, priority, wedding_id, at, ordinal, request_id)
    SELECT
        'person ' || number % 50, 'form.locked', 3, '00000000-0000-0000-0000-000000000000',
        now() - number * interval '20 seconds', {BROADCASTS} + 1 - number, gen_random_uuid()
    FROM generate_series(1, {BROADCASTS}) AS number;
    INSERT INTO outbox (key, subject, payload, due_at, rank, settle, state)
    SELECT broadcast_id::text, 'broadcast.due.normal', 'x', now(), 2, 'report', 'done' FROM broadcasts;
    UPDATE outbox SET state = 'pending' WHERE id <= {DUE};
    UPDATE outbox SET state = 'published', epoch = 1, lease_until = now() + interval '1 hour'
    WHERE id > {DUE} AND id <= {DUE + ANNOUNCED};
    UPDATE outbox SET state = 'pending', due_at = now() + interval '1 month' WHERE id > {BROADCASTS - SCHEDULED};
    UPDATE broadcasts SET state = 'dispatching', sent_at = NULL
    WHERE broadcast_id = (SELECT broadcast_id FROM broadcasts LIMIT 1)
"""  # noqa: S608


@pytest.fixture(scope="module")
async def archive(make_suite: MakeSuite) -> AsyncIterator[Filled]:
    """Twenty thousand broadcasts, one of which is on its way."""
    async with filled(await make_suite("sender"), "sender", FILL) as tables:
        yield tables


@pytest.fixture(params=["told", "untold"], autouse=True)
async def _statistics(archive: Filled, request: pytest.FixtureRequest) -> None:
    """With statistics, and with none."""
    await archive.know(told=request.param == "told")


@pytest.fixture
async def broadcast_id(archive: Filled) -> UUID:
    """The one that is on its way."""
    found: UUID = await archive.admin.fetchval(
        "SELECT broadcast_id FROM broadcasts WHERE state = 'dispatching'"
    )
    return found


ME, MINE = "person 1", [UUID(int=1), UUID(int=2)]


async def test_a_broadcast_is_shown_by_its_key_whoever_asks(archive: Filled, broadcast_id: UUID) -> None:
    """Policies are looked at for the one row that was asked for, and of walls its own or those of the caller's."""
    found = await archive.plans("api", QUERIES["find_visible_broadcast"], ME, False, MINE, broadcast_id)
    assert_only_by_index(found, *GROWING)
    assert {node["Index Name"] for node in scans(found, "broadcasts")} == {"broadcasts_pkey"}
    assert rows_read(found, "broadcasts") == 1
    assert rows_read(found, "walls") <= len(MINE) * BROADCASTS // WEDDINGS


async def test_what_a_call_needs_of_a_broadcast_is_found_by_its_key(
    archive: Filled, broadcast_id: UUID
) -> None:
    """An earlier answer, a wall, a cancel, the order, the beginning and the end."""
    stoppable = ["dispatching", "sent"]
    for role, query, *arguments in (
        ("api", "find_request", ME, "Send", broadcast_id),
        ("api", "find_wall", broadcast_id),
        ("api", "request_cancel", ME, True, broadcast_id, stoppable, "reason", False),
        ("worker", "find_broadcast", broadcast_id),
        ("worker", "begin_dispatch", broadcast_id, ["dispatching"], None, None),
        ("worker", "conclude_broadcast", broadcast_id, ["dispatching"], "sent", datetime.now(UTC), ""),
        ("worker", "decide_broadcast", "another", broadcast_id, ["dispatching"], "pending", "", "due", b""),
        ("worker", "finish_cancel", broadcast_id, ["dispatching"], 0, 0, False),
    ):
        found = await archive.plans(role, QUERIES[query], *arguments)
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, *GROWING) <= 3, query


async def test_the_relay_claims_what_is_due_and_looks_at_nothing_else(archive: Filled) -> None:
    """Neither what is over nor what is scheduled is read, however much there is of it."""
    found = await archive.plans("worker", OUTBOX["claim"], 64, 30.0, 240.0, WINDOW)
    assert_only_by_index(found, *GROWING)
    assert indexes(found, "outbox") == {"outbox_pending", "outbox_leased", "outbox_pkey"}
    # What is due once to be chosen and once to be claimed, and what is under way to be counted.
    assert rows_read(found, "outbox") == 2 * DUE + ANNOUNCED
    found = await archive.plans("worker", OUTBOX["seconds_until_next"])
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "outbox") <= 2


async def test_what_waits_is_counted_without_what_is_scheduled(archive: Filled) -> None:
    """Four times a second while somebody sends: it reads what is due or announced, which is what it counts."""
    found = await archive.plans("worker", QUERIES["count_waiting"])
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "outbox") == DUE + ANNOUNCED


async def test_cancels_that_are_not_finished_are_found_among_themselves(archive: Filled) -> None:
    """By an index that has nobody else in it."""
    found = await archive.plans("worker", QUERIES["list_unfinished_cancels"], 5.0, 100)
    assert_only_by_index(found, *GROWING, partial=["unfinished_cancels"])
    assert rows_read(found, "broadcasts") == 0


async def test_a_limit_is_counted_by_looking_at_few_rows(archive: Filled) -> None:
    """However many were sent in a day: two rows for each window, where there is room."""
    found = await archive.plans(
        "api", QUERIES["find_standing"], ME, "form.locked", 3, None, 1_000_000, 1_000_000
    )
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "counted_sends") <= 6


TERMS = (timedelta(days=30), timedelta(days=90))
BEFORE_ALL = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
FEW = 5


@pytest.fixture
async def old(archive: Filled) -> AsyncIterator[list[UUID]]:
    """A few broadcasts and answers that are old, for the time of a test."""
    rows = await archive.admin.fetch("SELECT broadcast_id FROM broadcasts WHERE state = 'sent' LIMIT $1", FEW)
    ids = [row["broadcast_id"] for row in rows]
    year = timedelta(days=365)
    await archive.admin.execute("UPDATE broadcasts SET ended_at = now()")
    aged = "UPDATE broadcasts SET ended_at = now() - $1::interval WHERE broadcast_id = ANY ($2)"
    await archive.admin.execute(aged, year, ids)
    await archive.admin.execute(
        "UPDATE requests SET at = at - $1::interval WHERE request_id = ANY ($2)", year, ids
    )
    await archive.admin.execute("VACUUM broadcasts, requests")
    yield ids
    await archive.admin.execute("UPDATE broadcasts SET ended_at = now() WHERE broadcast_id = ANY ($1)", ids)
    await archive.admin.execute("UPDATE requests SET at = now() WHERE request_id = ANY ($1)", ids)


async def test_what_is_old_is_found_by_its_age_and_removed_by_its_key(
    archive: Filled, old: list[UUID]
) -> None:
    """As many are looked at as there are, of twenty thousand; and of each its own walls."""
    found = await archive.plans("worker", QUERIES["find_over"], *TERMS, *BEFORE_ALL, 100)
    assert_only_by_index(found, *GROWING)
    assert rows_read(found, "broadcasts") == FEW
    past = await plans(
        archive.suite.admin_url,
        "sender",
        "sender_worker",
        QUERIES["remove_past_sends"],
        timedelta(hours=25),
        100,
        settings=BY_INDEX,
    )
    assert_only_by_index(past, *GROWING)
    assert {node["Index Name"] for node in scans(past, "counted_sends")} == {"counted_sends_by_age"}
    assert rows_read(past, "counted_sends") == 2 * 100
    for query, arguments in (
        (QUERIES["remove_over"], (*TERMS, old)),
        (REQUESTS["remove_old"], (timedelta(hours=24), 64)),
    ):
        found = await plans(
            archive.suite.admin_url, "sender", "sender_worker", query, *arguments, settings=BY_INDEX
        )
        assert_only_by_index(found, *GROWING)
        assert rows_read(found, *GROWING) <= 4 * FEW, query


async def test_uses_of_a_segment_are_found_among_what_is_still_to_go_out(archive: Filled) -> None:
    """By an index that has only what names a segment and waits, of twenty thousand a few."""
    segment_id, other = UUID(int=7), UUID(int=8)
    rows = await archive.admin.fetch(
        "SELECT broadcast_id FROM broadcasts WHERE state = 'sent' LIMIT $1", 2 * FEW
    )
    ids = [row["broadcast_id"] for row in rows]
    named = (
        "UPDATE broadcasts SET everyone = false, segment_ids = $2, state = $3, sent_at = $4"
        " WHERE broadcast_id = ANY ($1)"
    )
    await archive.admin.execute(named, ids[:FEW], [other, segment_id], "pending", None)
    await archive.admin.execute(named, ids[FEW:], [segment_id], "sent", datetime.now(UTC))
    try:
        found = await archive.plans("worker", QUERIES["count_segment_uses"], segment_id)
        assert_only_by_index(found, *GROWING, partial=["broadcasts_waiting_for_segments"])
        assert rows_read(found, "broadcasts") == FEW
    finally:
        usual = "UPDATE broadcasts SET everyone = true, segment_ids = '{}', state = 'sent', sent_at = now()"
        await archive.admin.execute(f"{usual} WHERE broadcast_id = ANY ($1)", ids)
