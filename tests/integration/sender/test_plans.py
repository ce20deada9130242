"""How lists find their rows: pinned with statistics and without, because a wrong plan reads everything there is."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from services.sender.store import _QUERIES
from stack.provision import SuiteDatabase
from tests.integration.sender.records import NOON, Recorded, forget_all, put_on_record
from tests.integration.shared import query_plans
from tests.integration.shared.query_plans import Plan, forget_statistics, scans, walked

ME = str(uuid4())
WEDDINGS = [str(uuid4()) for _ in range(3)]
_BROADCASTS = 4_000
_PAGE = 11
# What list_visible_broadcasts asks, in its order.
_ASKED = {
    "caller": str(uuid4()),
    "reads_all": True,
    "weddings": [],
    "states": None,
    "types": None,
    "priorities": None,
    "author": None,
    "wedding": None,
    "created_from": None,
    "created_before": None,
    "due_from": None,
    "due_before": None,
    "after_time": None,
    "after_id": None,
    "page_size": _PAGE,
}


@pytest.fixture(scope="module")
async def many(sender_database: SuiteDatabase) -> AsyncIterator[asyncpg.Connection]:
    """Broadcasts, few of which are mine, about my weddings, failed, or of a rare type."""
    admin = await asyncpg.connect(sender_database.admin_url)
    await forget_all(admin)
    await put_on_record(
        admin,
        [
            Recorded(
                created_by=ME if number % 100 == 0 else "billing",
                created_at=NOON + timedelta(seconds=number),
                type="wedding.emergency" if number % 200 == 7 else "form.locked",
                state="failed" if number % 400 == 3 else "sent",
                wall=(WEDDINGS[number % 3],) if number % 50 == 1 else (str(uuid4()),),
                broadcast_id=UUID(int=number),
            )
            for number in range(_BROADCASTS)
        ],
    )
    yield admin
    await forget_all(admin)
    await admin.close()


@pytest.fixture(params=["told", "untold"])
async def look(
    many: asyncpg.Connection, sender_database: SuiteDatabase, request: pytest.FixtureRequest
) -> AsyncIterator["Look"]:
    """With statistics, and with none, as on a database that has just been filled."""
    if request.param == "told":
        await many.execute("ANALYZE sender.broadcasts, sender.walls")
    else:
        await forget_statistics(many, "sender")
    yield Look(sender_database.admin_url)
    await many.execute("ANALYZE sender.broadcasts, sender.walls")


class Look:
    """Looks at how a page is found."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self, **asked: object) -> list[Plan]:
        """The plans of a page for who may see all, unless it is asked otherwise."""
        assert asked.keys() <= _ASKED.keys()
        arguments = (_ASKED | asked).values()
        query = _QUERIES["list_visible_broadcasts"]
        return await query_plans.plans(self._url, "sender", "sender_api", query, *arguments)


async def test_a_page_of_everything_is_read_from_the_newest_on_and_no_further(look: Look) -> None:
    """Down the index of creation, as many as the page has; then each of them by its id."""
    assert walked(await look()) == {"broadcasts_by_creation": _PAGE, "broadcasts_pkey": _PAGE}


async def test_a_later_page_starts_where_it_is_wanted(look: Look) -> None:
    """The place of the page token is a condition of the index, so that what is above it is not read."""
    found = await look(after_time=NOON + timedelta(seconds=2_000), after_id=UUID(int=2_000))
    assert walked(found) == {"broadcasts_by_creation": _PAGE, "broadcasts_pkey": _PAGE}
    (walk,) = [node for node in scans(found, "broadcasts") if node["Index Name"] == "broadcasts_by_creation"]
    assert "ROW(created_at, broadcast_id) <" in walk["Index Cond"]


@pytest.mark.parametrize(
    ("asked", "index", "count"),
    [
        ({"states": ["failed"]}, "broadcasts_not_sent", 10),
        ({"states": ["failed", "awaiting_approval"]}, "broadcasts_not_sent", 10),
        ({"types": ["wedding.emergency"]}, "broadcasts_by_type", 20),
        ({"types": ["wedding.cancelled"]}, "broadcasts_by_type", 0),
        ({"author": ME}, "broadcasts_by_author", 40),
    ],
)
async def test_what_is_rare_is_found_by_its_index(
    look: Look, asked: dict[str, object], index: str, count: int
) -> None:
    """Only those are looked at, of which there are `count`, however many others lie between them."""
    found = walked(await look(**asked))
    assert found.pop("broadcasts_pkey", 0) == min(count, _PAGE)
    assert found.keys() <= {index}
    assert min(count, _PAGE) <= found.get(index, 0) <= count


async def test_what_is_about_a_wedding_is_found_by_the_wedding(look: Look) -> None:
    """Also for those who see all."""
    assert walked(await look(wedding=WEDDINGS[0])).keys() == {"walls_by_wedding", "broadcasts_pkey"}
    found = walked(await look(wedding=WEDDINGS[0], caller=ME, reads_all=False, weddings=WEDDINGS[:1]))
    assert found.keys() <= {"walls_by_wedding", "broadcasts_pkey", "walls_pkey"}


async def test_a_service_account_walks_its_own_only(look: Look) -> None:
    """As many as the page has."""
    found = walked(await look(caller="billing", reads_all=False))
    assert found == {"broadcasts_by_author": _PAGE, "broadcasts_pkey": _PAGE}


async def test_a_coordinator_walks_their_own_and_their_weddings(look: Look) -> None:
    """A page of their own, and what there is about their weddings: 80 of 4,000, of which 40 are theirs anyway."""
    looked = walked(await look(caller=ME, reads_all=False, weddings=WEDDINGS))
    assert looked.keys() <= {"broadcasts_by_author", "walls_by_wedding", "broadcasts_pkey", "walls_pkey"}
    assert looked["broadcasts_by_author"] == _PAGE
    assert sum(looked.values()) < 400


async def test_a_day_of_the_calendar_is_found_by_when_things_are_due(
    many: asyncpg.Connection, sender_database: SuiteDatabase
) -> None:
    """However long ago they were accepted, once Postgres knows how much there is."""
    await many.execute("ANALYZE sender.broadcasts, sender.walls")
    start = NOON + timedelta(seconds=1_000)
    found = walked(
        await Look(sender_database.admin_url)(due_from=start, due_before=start + timedelta(seconds=5))
    )
    assert found == {"broadcasts_by_schedule": 5, "broadcasts_pkey": 5}
