"""How the hot queries find their rows: pinned with statistics and without, because a wrong plan is an outage."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from services.inbox.domain import ArrivalKind, Chunk, ReceiptAction
from services.inbox.store import QUERIES
from services.inbox.work_store import ChunkRows, ReceiptCall, _MergeArguments
from shared.audience import Audience
from shared.queries import load
from tests.integration.inbox.oracle import a_content
from tests.integration.inbox.stores import Stores
from tests.integration.shared import query_plans
from tests.integration.shared.query_plans import Plan, forget_statistics, indexes, nodes, scans
from tests.integration.shared.schemas import SQL

_BROADCASTS = 300
# Nobody who has been told nothing plans a hash join over what may be large.
GROWING = {
    "blocks",
    "direct",
    "broadcasts",
    "receipts",
    "watermarks",
    "changes",
    "team_members",
    "arrivals",
    "retractions",
    "requests",
    "arrangements",
}

_LOWEST = """
    SELECT min(position) + 5 FROM (
        SELECT position FROM blocks WHERE block = $1 >> 12
        UNION SELECT position FROM direct WHERE recipient_number = $1
    ) AS mine
"""


@pytest.fixture(scope="module")
async def crowd(stores: Stores) -> int:
    """A recipient with a large inbox, half by blocks and half by rows, among others with more."""
    number = stores.new_number()
    ids: list[UUID] = []
    for place in range(_BROADCASTS):
        content = a_content(uuid4(), title=f"Number {place}")
        await stores.arrive(
            content, [number, *range(number + 1, number + 1 + random.Random(place).choice((0, 40)))]
        )
        ids.append(content.broadcast_id)
    for other in range(number, number + 40):
        await stores.work.record_receipts([ReceiptCall(other, tuple(ids[:100]), ReceiptAction.READ, None)])
    return number


@pytest.fixture(params=["told", "untold"])
async def analyzed(stores: Stores, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """With statistics, and with none, as on a database that has just been filled."""
    if request.param == "told":
        await stores.admin.execute("ANALYZE")
    else:
        await forget_statistics(stores.admin, "inbox")
    yield request.param
    await stores.admin.execute("ANALYZE")


async def plans(
    stores: Stores, role: str, query: str, *arguments: object, settings: Mapping[str, object] | None = None
) -> list[Plan]:
    """The plans of a query and all that it calls, once they are the generic ones."""
    return await query_plans.plans(stores.admin_url, "inbox", role, query, *arguments, settings=settings)


def assert_only_by_index(found: list[Plan], partial: Sequence[str] = ()) -> None:
    """Nothing reads a table that grows from end to end, not even by an index, but for those that hold what is due."""
    query_plans.assert_only_by_index(found, *GROWING, partial=partial)


async def test_a_page_is_read_from_the_newest_on_and_no_further(
    stores: Stores, crowd: int, analyzed: str
) -> None:
    """Both kinds of arrivals by their index, backwards and merged; as many as the page has, and their texts by key."""
    badge = (await stores.admin.fetchval("SELECT position FROM log_head"), 5, 5, None, 0, 0)
    found = await plans(
        stores,
        "inbox_api",
        QUERIES["list_items"],
        crowd,
        False,
        None,
        None,
        None,
        None,
        None,
        False,
        False,
        None,
        None,
        0,
        20,
        10,
        *badge,
    )
    assert_only_by_index(found)
    (page,) = [node for plan in found for node in nodes(plan) if node.get("Subplan Name") == "CTE page"]
    (merge,) = [node for node in nodes(page) if node["Node Type"] == "Merge Append"]
    assert merge["Actual Rows"] == 10
    arrivals = [node for node in nodes(merge) if node.get("Relation Name") in ("blocks", "direct")]
    assert {(node["Index Name"], node["Scan Direction"]) for node in arrivals} == {
        ("blocks_pkey", "Backward"),
        ("direct_pkey", "Backward"),
    }
    assert sum(node["Actual Rows"] for node in arrivals) <= 12
    assert [
        node["Node Type"] for node in nodes(page) if node["Node Type"] in ("Sort", "Hash", "Materialize")
    ] == []


async def test_a_later_page_starts_where_it_is_wanted(stores: Stores, crowd: int, analyzed: str) -> None:
    """The position of the page token is a condition of the index, so that what is above it is not read."""
    below = await stores.admin.fetchval(_LOWEST, crowd)
    found = await plans(
        stores,
        "inbox_api",
        QUERIES["list_items"],
        crowd,
        False,
        None,
        None,
        None,
        None,
        None,
        False,
        False,
        below,
        [],
        0,
        20,
        10,
        *[None] * 6,
    )
    (page,) = [node for plan in found for node in nodes(plan) if node.get("Subplan Name") == "CTE page"]
    arrivals = [node for node in nodes(page) if node.get("Relation Name") in ("blocks", "direct")]
    assert all("position" in node["Index Cond"] for node in arrivals)
    assert sum(node["Actual Rows"] for node in arrivals) <= 6


async def test_a_badge_reads_only_what_lies_beyond_the_last(
    stores: Stores, crowd: int, analyzed: str
) -> None:
    """By the index on positions; with nothing new, nothing is read."""
    head = await stores.admin.fetchval("SELECT position FROM log_head")
    found = await plans(stores, "inbox_api", QUERIES["count_items"], crowd, head, 5, 5, None, 0, 0)
    assert_only_by_index(found)
    arrivals = [*scans(found, "blocks"), *scans(found, "direct")]
    assert sum(node["Actual Rows"] for node in arrivals) == 0
    assert all("position" in node["Index Cond"] for node in arrivals)


async def test_a_badge_from_nothing_looks_each_item_up_by_key(
    stores: Stores, crowd: int, analyzed: str
) -> None:
    """Receipts by recipient and broadcast, never all of either."""
    found = await plans(stores, "inbox_api", QUERIES["count_items"], crowd, *[None] * 6)
    assert_only_by_index(found)
    (receipts,) = scans(found, "receipts")
    assert receipts["Index Name"] == "receipts_pkey"
    assert "broadcast_id" in receipts["Index Cond"]


async def test_an_item_is_found_by_its_broadcast(stores: Stores, crowd: int) -> None:
    """Not by walking the inbox, once Postgres knows how large it is."""
    await stores.admin.execute("ANALYZE")
    broadcast_id = await stores.admin.fetchval(
        "SELECT broadcast_id FROM direct WHERE recipient_number = $1 LIMIT 1", crowd
    )
    found = await plans(stores, "inbox_api", QUERIES["get_item"], crowd, broadcast_id)
    assert_only_by_index(found)
    assert {node["Index Name"] for node in [*scans(found, "blocks"), *scans(found, "direct")]} == {
        "blocks_by_broadcast",
        "direct_by_broadcast",
    }


async def test_receipts_find_each_item_by_key(stores: Stores, crowd: int, analyzed: str) -> None:
    """Visibility by broadcast and block, what was known by recipient and broadcast."""
    ids = [
        row["broadcast_id"]
        for row in await stores.admin.fetch(
            "SELECT broadcast_id FROM direct WHERE recipient_number = $1 LIMIT 20", crowd
        )
    ]
    columns = ([0] * len(ids), [crowd] * len(ids), ids, ["acknowledged"] * len(ids), [None] * len(ids))
    found = await plans(stores, "inbox_worker", QUERIES["record_receipts"], *columns)
    assert_only_by_index(found)
    assert {node["Index Name"] for node in scans(found, "blocks")} == {"blocks_by_broadcast"}
    assert {node["Index Name"] for node in scans(found, "receipts")} == {"receipts_pkey"}


async def arranged(stores: Stores, number: int) -> None:
    """A few snoozes and pins of this recipient, many of others."""
    await stores.admin.execute("DELETE FROM arrangements WHERE recipient_number <> 0")
    for recipient, most in ((number, 8), *((number + 1_000 + other, 40) for other in range(40))):
        await stores.admin.execute(
            "INSERT INTO arrangements (recipient_number, broadcast_id, position, snoozed_until, pinned_at) "
            "SELECT $1::integer, broadcast_id, position, now() + interval '1 hour' * (position % 2), now() "
            "FROM (SELECT broadcast_id, position FROM direct WHERE recipient_number = $2 LIMIT $3) AS item",
            recipient,
            number,
            most,
        )


async def test_pins_and_snoozes_are_found_by_their_owner(stores: Stores, crowd: int, analyzed: str) -> None:
    """And pinned items by their place in the inbox, of which no more is walked for them."""
    await arranged(stores, crowd)
    if analyzed == "told":
        await stores.admin.execute("ANALYZE arrangements")
    query = QUERIES["list_items"]
    page = (crowd, False, None, None, None, None, None, False, False, None, None, 0, 20, 10, *[None] * 6)
    found = await plans(stores, "inbox_api", query, *page)
    assert_only_by_index(found)
    (top,) = [node for plan in found for node in nodes(plan) if node.get("Subplan Name") == "CTE top"]
    arrivals = [node for node in nodes(top) if node.get("Relation Name") in ("blocks", "direct")]
    assert all("position" in node["Index Cond"] for node in arrivals)
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in arrivals) <= 8
    assert indexes(found, "arrangements") == {"arrangements_pkey"}
    found = await plans(stores, "inbox_api", QUERIES["count_items"], crowd, *[None] * 6)
    assert_only_by_index(found)
    assert indexes(found, "arrangements") == {"arrangements_pkey"}
    item = await stores.admin.fetchrow(
        "SELECT broadcast_id FROM arrangements WHERE recipient_number = $1 LIMIT 1", crowd
    )
    change = (*a_request(), crowd, item["broadcast_id"], "unpinned", None, 20)
    assert_only_by_index(await plans(stores, "inbox_worker", QUERIES["arrange_item"], *change))
    change = (*[None] * 4, crowd, item["broadcast_id"], "pinned", None, 20)
    assert_only_by_index(await plans(stores, "inbox_worker", QUERIES["arrange_item"], *change))


async def test_what_is_over_is_found_by_its_time(stores: Stores, crowd: int, analyzed: str) -> None:
    """Of all snoozes and expiries the few that are; when there is nothing, nothing is read."""
    await arranged(stores, crowd)
    soon = a_content(uuid4(), expires_at=datetime.now(UTC) + timedelta(hours=1))
    await stores.arrive(soon, [crowd])
    await stores.admin.execute(
        "UPDATE arrangements SET snoozed_until = now() - interval '1 s' WHERE recipient_number = $1", crowd
    )
    if analyzed == "told":
        await stores.admin.execute("ANALYZE arrangements, broadcasts")
    found = await plans(stores, "inbox_worker", QUERIES["pass_time"], 3)
    assert_only_by_index(found, partial=("snoozes", "untold_expiries"))
    await stores.admin.execute("SELECT pass_time(1000)")
    found = await plans(stores, "inbox_worker", QUERIES["pass_time"], 3)
    assert_only_by_index(found, partial=("snoozes", "untold_expiries"))
    assert sum(node["Actual Rows"] for node in scans(found, "arrangements")) <= 1


async def test_receipts_by_person_are_found_by_key(stores: Stores, crowd: int, analyzed: str) -> None:
    """Of the people of one page, whoever else has the broadcast or has done something."""
    broadcast_id = await stores.admin.fetchval(
        "SELECT broadcast_id FROM receipts WHERE recipient_number = $1 LIMIT 1", crowd
    )
    asked = (broadcast_id, list(range(crowd, crowd + 40)))
    for unacknowledged_only in (False, True):
        found = await plans(stores, "inbox_worker", QUERIES["list_receipts"], *asked, unacknowledged_only, 10)
        assert_only_by_index(found)
        assert indexes(found, "receipts") == {"receipts_pkey"}
        assert indexes(found, "blocks") == {"blocks_by_broadcast"}
    found = await plans(stores, "inbox_worker", QUERIES["find_reached"], broadcast_id)
    assert_only_by_index(found)


def a_request() -> tuple[object, ...]:
    """Caller, method, id and body of a call that is new."""
    return str(uuid4()), "RecordReceipts", uuid4(), bytes(32)


async def keep_some(stores: Stores) -> list[tuple[object, ...]]:
    """Thousands of answers, of which two are named, and half of which hold no longer."""
    named = [a_request() for _ in range(2)]
    insert = (
        "INSERT INTO requests (caller, method, request_id, body_hash, response, is_whole, at) "
        "SELECT {}, {}, {}, $1, 'x', true, now() - interval '1 minute' * n FROM generate_series(1, $2::integer) AS n"
    )
    many = insert.format("gen_random_uuid()::text", "'RecordReceipts'", "gen_random_uuid()")  # fmt: skip
    await stores.admin.execute(many, bytes(32), 2 * 24 * 60)
    for caller, method, request_id, _ in named:
        one = insert.format(f"'{caller}'", f"'{method}'", f"'{request_id}'::uuid")
        await stores.admin.execute(one, bytes(32), 1)
    return named


async def test_calls_with_a_request_id_find_it_by_key(stores: Stores, crowd: int, analyzed: str) -> None:
    """New ones and repeated ones, when they are taken, when they are answered, and when they are looked for."""
    ids = [
        row["broadcast_id"]
        for row in await stores.admin.fetch(
            "SELECT broadcast_id FROM direct WHERE recipient_number = $1 LIMIT 3", crowd
        )
    ]
    named = await keep_some(stores)
    if analyzed == "told":
        await stores.admin.execute("ANALYZE requests")
    calls = [named[0], a_request(), (None,) * 4]
    items = ([1, 2, 3], [crowd, crowd + 1, crowd + 2], ids, ["acknowledged"] * 3, [None] * 3)
    requests = [list(column) for column in zip(*calls, strict=True)]
    found = await plans(stores, "inbox_worker", QUERIES["record_receipts_once"], *requests, *items)
    assert_only_by_index(found)
    assert {node["Index Name"] for node in scans(found, "requests")} == {"requests_pkey"}
    shared = load(SQL / "requests.sql", schema="inbox")
    columns = [[each[column] for each in named] for column in range(3)]
    for query, arguments in (
        (shared["complete"], (*columns, [b"y", b"z"])),
        (shared["find"], named[0][:3]),
        (shared["remove_old"], (timedelta(hours=24), 10)),
    ):
        assert_only_by_index(await plans(stores, "inbox_worker", query, *arguments))


async def test_a_merge_reads_nothing_but_keys(stores: Stores, crowd: int, analyzed: str) -> None:
    """Tombstones, arrivals and those who may have it already, for the second chunk of a broadcast as well."""
    content = a_content(uuid4())
    await stores.arrive(content, range(7_000_000, 7_000_020))
    arguments = _MergeArguments()
    members = Audience.of([*range(7_100_000, 7_100_020), 7_200_000])
    arguments.add(ChunkRows.of(Chunk(content.broadcast_id, 9, ArrivalKind.ITEM, members)))
    found = await plans(stores, "inbox_worker", QUERIES["merge_chunks"], None, *arguments.columns())
    assert_only_by_index(found)


async def test_all_read_and_readers_go_by_index(stores: Stores, crowd: int, analyzed: str) -> None:
    """One recipient's arrivals beyond their last watermark; one broadcast's receipts, and watermarks by its blocks."""
    mark = QUERIES["mark_all_read"]
    assert_only_by_index(await plans(stores, "inbox_worker", mark, *[None] * 4, crowd))
    assert_only_by_index(await plans(stores, "inbox_worker", mark, *a_request(), crowd))
    broadcast_id = await stores.admin.fetchval(
        "SELECT broadcast_id FROM blocks WHERE block = $1 >> 12 LIMIT 1", crowd
    )
    assert_only_by_index(
        await plans(stores, "inbox_worker", QUERIES["find_readers"], broadcast_id, [crowd >> 12])
    )
    assert_only_by_index(await plans(stores, "inbox_worker", QUERIES["count_engagement"], [broadcast_id]))


async def test_a_day_is_counted_from_what_belongs_to_its_broadcasts(
    stores: Stores, crowd: int, analyzed: str
) -> None:
    """Their arrivals, receipts and members by broadcast; what people have marked a block or a person at a time."""
    broadcast_id = await stores.admin.fetchval(
        "SELECT broadcast_id FROM direct WHERE recipient_number = $1 LIMIT 1", crowd
    )
    until = await stores.admin.fetchval("SELECT now()")
    found = await plans(
        stores, "inbox_worker", QUERIES["count_engagement_until"], [broadcast_id, uuid4()], until
    )
    assert_only_by_index(found)
    for table in ("receipts", "blocks", "direct"):
        assert indexes(found, table) == {f"{table}_by_broadcast"}
    assert all("recipient_number" in node["Index Cond"] for node in scans(found, "watermarks"))


async def test_a_team_and_a_retraction_go_by_index(stores: Stores, crowd: int, analyzed: str) -> None:
    """Whatever else there is."""
    assert_only_by_index(await plans(stores, "inbox_worker", QUERIES["apply_team"], uuid4(), 1, [crowd]))
    assert_only_by_index(await plans(stores, "inbox_worker", QUERIES["retract_broadcast"], uuid4(), True))
