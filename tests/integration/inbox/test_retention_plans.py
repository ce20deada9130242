"""How retention finds what is to go: by an index, and no more of it than a batch takes, whatever the statistics say."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.inbox.domain import ReceiptAction
from services.inbox.retention import RetentionTerms
from services.inbox.store import QUERIES
from services.inbox.work_store import ReceiptCall
from shared.settings import Environment
from tests.integration.inbox.aging import age, clean_up
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.stores import Stores
from tests.integration.inbox.test_plans import GROWING, analyzed, crowd, plans
from tests.integration.shared.query_plans import BY_INDEX, Plan, assert_only_by_index, scans

__all__ = ["analyzed", "crowd"]

TERMS = RetentionTerms.read(Environment({}))
BOTH = (TERMS.items, TERMS.expired)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def old(stores: Stores, crowd: int) -> list[UUID]:
    """Three old broadcasts among hundreds that are young, with items of both kinds, receipts and an "all read"."""
    await clean_up(stores)
    # Postgres reads a table of a page or two from end to end, and is right.
    await stores.admin.execute(
        "INSERT INTO retractions (broadcast_id, retracted_at)"
        " SELECT gen_random_uuid(), now() FROM generate_series(1, 2000)"
    )
    ids = []
    for _ in range(3):
        content = a_content(uuid4())
        await stores.arrive(content, [crowd, *range(crowd + 100, crowd + 120)])
        await stores.work.record_receipts(
            [ReceiptCall(crowd, (content.broadcast_id,), ReceiptAction.READ, None)]
        )
        ids.append(content.broadcast_id)
    await age(stores.admin, 91, ids)
    return ids


def assert_no_table_is_looked_through(found: list[Plan]) -> None:
    """Each scan has a condition for its index, or is of one that holds nothing else or gives its first entries."""
    whole = ("leaving_broadcasts", "arrivals_position_key")
    assert_only_by_index(found, *GROWING, "log", "recipients", partial=whole)


async def test_what_is_to_leave_is_found_by_its_age(stores: Stores, old: list[UUID], analyzed: str) -> None:
    """Of hundreds, the few that are old enough are looked at."""
    found = await plans(stores, "inbox_worker", QUERIES["find_next_leaving"], *BOTH)
    assert_no_table_is_looked_through(found)
    looked_at = [node["Actual Rows"] for node in scans(found, "broadcasts")]
    assert sum(looked_at) <= 2 * len(old)


async def test_one_is_taken_out_by_its_key(stores: Stores, old: list[UUID], analyzed: str) -> None:
    """Whether its time is over is looked up for this one alone."""
    taken = (old[0], b"", *BOTH)
    found = await plans(stores, "inbox_worker", QUERIES["take_out"], *taken, settings=BY_INDEX)
    assert_no_table_is_looked_through(found)
    looked_at = [node["Actual Rows"] for node in scans(found, "broadcasts")]
    assert sum(looked_at) <= 3


async def test_rows_are_removed_by_their_broadcast(stores: Stores, old: list[UUID], analyzed: str) -> None:
    """As many are read as are removed; those of others are not touched."""
    for each in old:
        await stores.admin.execute("SELECT take_out($1, '', $2, $3)", each, *BOTH)
    found = await plans(stores, "inbox_worker", QUERIES["empty_broadcasts"], 64, settings=BY_INDEX)
    assert_no_table_is_looked_through(found)
    for table, rows in (("blocks", 3), ("direct", 0), ("receipts", 3)):
        read = scans(found, table)
        assert sum(node["Actual Rows"] for node in read if node["Node Type"] == "Tid Scan") == rows
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 2 * rows


async def test_marks_are_found_by_their_place(stores: Stores, old: list[UUID], analyzed: str) -> None:
    """Those before every arrival, and none that stays."""
    number = stores.new_number() + 4_000_000
    await stores.admin.execute(
        "INSERT INTO watermarks SELECT $1::integer + n % 500, 1_000_000 + n, now() FROM generate_series(1, 20000) AS n",
        number,
    )
    if analyzed == "told":
        await stores.admin.execute("ANALYZE watermarks")
    found = await plans(stores, "inbox_worker", QUERIES["remove_old_marks"], 64, settings=BY_INDEX)
    await stores.admin.execute("DELETE FROM watermarks WHERE recipient_number >= $1", number)
    await stores.admin.execute("VACUUM watermarks")
    assert_no_table_is_looked_through(found)
    read = scans(found, "watermarks")
    assert {node.get("Index Name", node["Node Type"]) for node in read} == {"watermarks_by_age", "Tid Scan"}


async def test_texts_are_found_by_when_they_were_emptied(
    stores: Stores, old: list[UUID], analyzed: str
) -> None:
    """And their strays by their key."""
    await clean_up(stores)
    await stores.admin.execute(
        "UPDATE broadcasts SET left_at = left_at - interval '1 hour', emptied_at = emptied_at - interval '1 hour'"
        " WHERE emptied_at IS NOT NULL"
    )
    found = await plans(
        stores, "inbox_worker", QUERIES["remove_emptied_texts"], MINUTE, 64, settings=BY_INDEX
    )
    assert_no_table_is_looked_through(found)
