"""How analytics find their rows, which are kept for good: pinned with statistics and without."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.sender.analytics_store import _QUERIES
from stack.provision import SuiteDatabase
from tests.conftest import MakeSuite
from tests.integration.sender.records import Recorded, forget_all, put_on_record
from tests.integration.shared import query_plans
from tests.integration.shared.query_plans import Plan, forget_statistics, scans, walked

ME = str(uuid4())
WEDDING = uuid4()
FIRST = date(2026, 1, 1)
_BROADCASTS, _DAYS, _PAGE = 400, 10, 11
_ASKED = {
    "caller": str(uuid4()),
    "reads_all": True,
    "weddings": [],
    "first_day": FIRST,
    "last_day": FIRST + timedelta(days=_DAYS - 1),
    "ids": None,
    "types": None,
    "priorities": None,
    "author": None,
    "wedding": None,
}
_ADD = """
    INSERT INTO sender.daily_analytics (
        broadcast_id, day, type, priority, created_by, targeted, delivered, read, acknowledged, clicked, time_to_read_us
    )
    VALUES ($1, $2, 'form.locked', 3, $3, 10, 1, 0, 0, 0, 0)
"""


@pytest.fixture(scope="module")
async def database(make_suite: MakeSuite) -> SuiteDatabase:
    """One of their own: what others have left behind is part of what a plan is made from."""
    return await make_suite("sender")


@pytest.fixture(scope="module")
async def many(database: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """Four hundred broadcasts of ten days each by many, one in a hundred mine, and as many about my wedding."""
    admin = await asyncpg.connect(database.admin_url)
    # Nobody else tells the planner anything meanwhile.
    for table in ("daily_analytics", "analytics_walls", "tallies"):
        await admin.execute(f"ALTER TABLE sender.{table} SET (autovacuum_enabled = false)")
    await admin.executemany(
        _ADD,
        [
            (UUID(int=number), FIRST + timedelta(days=day), ME if number % 100 == 0 else f"{number % 50}")
            for number in range(_BROADCASTS)
            for day in range(_DAYS)
        ],
    )
    await admin.executemany(
        "INSERT INTO sender.analytics_walls VALUES ($1, $2)",
        [(UUID(int=number), WEDDING if number % 100 == 1 else uuid4()) for number in range(_BROADCASTS)],
    )
    yield admin
    await admin.close()


@pytest.fixture(params=["told", "untold"])
async def url(
    many: asyncpg.Connection, database: SuiteDatabase, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """Where to look: with statistics, and with none, as on a database that has just been filled."""
    if request.param == "told":
        await many.execute("ANALYZE sender.daily_analytics, sender.analytics_walls")
    else:
        await forget_statistics(many, "sender")
    yield database.admin_url
    await many.execute("ANALYZE sender.daily_analytics, sender.analytics_walls")


async def by_broadcast(url: str, *after: object, **asked: object) -> list[Plan]:
    """The plans of a page for who may see all, unless it is asked otherwise."""
    assert asked.keys() <= _ASKED.keys()
    arguments = (*(_ASKED | asked).values(), *(after or (None, None)), _PAGE)
    return await query_plans.plans(url, "sender", "sender_api", _QUERIES["list_analytics"], *arguments)


async def test_a_page_is_read_from_the_newest_day_on_and_no_further(url: str) -> None:
    """As many rows as it has; a later one begins where it is wanted, whatever came before it."""
    assert walked(await by_broadcast(url)) == {"daily_analytics_by_day": _PAGE}
    found = await by_broadcast(url, FIRST + timedelta(days=5), UUID(int=200))
    assert walked(found) == {"daily_analytics_by_day": _PAGE}
    (walk,) = scans(found, "daily_analytics")
    assert "ROW(day, broadcast_id) <" in walk["Index Cond"]


async def test_a_broadcast_is_found_by_its_id(url: str) -> None:
    """Its days, and nobody else's."""
    assert walked(await by_broadcast(url, ids=[UUID(int=7)])) == {"daily_analytics_pkey": _DAYS}


async def test_a_coordinator_is_led_to_what_is_theirs(url: str) -> None:
    """By author and wedding, then by id: four and four broadcasts of four hundred, alone and in sums."""
    mine = {"caller": ME, "reads_all": False, "weddings": [WEDDING]}
    looked = walked(await by_broadcast(url, **mine))
    assert looked.pop("daily_analytics_by_day", 0) + looked.pop("daily_analytics_pkey", 0) <= 80
    assert looked.keys() == {"daily_analytics_by_author", "analytics_walls_by_wedding"}
    assert sum(looked.values()) < 100
    grouped = (*(_ASKED | mine).values(), True, None, None, _PAGE)
    query = _QUERIES["sum_analytics"]
    looked = walked(await query_plans.plans(url, "sender", "sender_api", query, *grouped))
    assert looked.pop("daily_analytics_pkey") == 80
    assert looked.keys() <= {
        "daily_analytics_by_author",
        "analytics_walls_by_wedding",
        "analytics_walls_pkey",
    }
    assert sum(looked.values()) < 150


async def test_what_is_to_be_counted_is_found_by_when_it_is_due(
    many: asyncpg.Connection, database: SuiteDatabase
) -> None:
    """A look takes on what has been due longest; and how far all are counted is looked up, not worked out."""
    await put_on_record(many, recorded := [Recorded("billing") for _ in range(400)])
    await many.executemany(
        "INSERT INTO sender.tallies (broadcast_id, due_at) VALUES ($1, now() + $2)",
        [
            (each.broadcast_id, timedelta(hours=1 if place % 40 else -1))
            for place, each in enumerate(recorded)
        ],
    )
    await many.execute("ANALYZE sender.tallies")
    url = database.admin_url
    found = await query_plans.plans(url, "sender", "sender_worker", _QUERIES["claim_tallies"], 5, 60.0)
    assert walked(found)["tallies_due"] <= 10
    found = await query_plans.plans(url, "sender", "sender_api", _QUERIES["find_counted_through"])
    assert walked(found) == {"tallies_by_day": 1}
    await forget_all(many)
