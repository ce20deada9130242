"""How long it is known what became of deliveries, and that nothing is removed that waits, or by halves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import asyncpg
import pytest
from wedsync.broadcast.v1 import dispatcher_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub

from services.dispatcher.call_store import CallStore
from services.dispatcher.domain import InFlightLimit
from services.dispatcher.retention import _QUERIES as QUERIES
from services.dispatcher.retention import RetentionTerms, own_cleaner
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Report
from shared.audience import Audience
from shared.cleaning import Cleaned, Cleaner, Hasty
from shared.clock import SystemClock
from shared.database import Database, connect
from shared.errors import NotFound
from shared.settings import Environment
from stack.provision import SuiteDatabase
from tests.integration.dispatcher.plans import NONE_LEASED, held, items, plan, suppressed
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import now_on_both
from tests.integration.dispatcher.test_schema import ATTEMPT, DISPATCH, LETTER, TOMBSTONE, insert
from tests.integration.shared.polling import until_equal
from tests.integration.shared.query_plans import (
    BY_INDEX,
    assert_only_by_index,
    forget_statistics,
    plans,
    scans,
)

LATER = datetime(2100, 1, 1, tzinfo=UTC)
ALL_AT_ONCE = InFlightLimit(chunks=64, members=1_000_000, most_chunks=64)
TERMS = RetentionTerms.read(Environment({}))


@pytest.fixture
def cleaner(worker: Database, suite: SuiteDatabase, empty: None) -> Cleaner:
    """The dispatcher's own. What takes long is not broken off: machines that test may be busy."""
    url = suite.url("dispatcher", "worker")
    own = own_cleaner(worker, url, TERMS, SystemClock())
    own._opening = partial(connect, url, application_name="test")
    return own


async def clean_up(cleaner: Cleaner, *, dry_run: bool = False) -> dict[str, int]:
    """Clean up once; how much of each kind."""
    cleaned: list[Cleaned] = await cleaner.clean_up(dry_run=dry_run)
    assert [each for each in cleaned if each.error] == []
    return {each.what: each.count for each in cleaned}


async def age(admin: asyncpg.Connection, days: float, *ids: UUID) -> None:
    """These were dispatched so long ago."""
    await admin.execute(
        "UPDATE dispatches SET begin_time = begin_time - $1::interval, plan_time = plan_time - $1::interval,"
        " close_time = close_time - $1::interval WHERE broadcast_id = ANY ($2)",
        timedelta(days=days),
        list(ids),
    )


async def closed(store: DispatchStore, *sizes: int) -> UUID:
    """A dispatch of which everything has arrived."""
    done = plan(*items(*sizes), suppressed(9_000_000, 3), limit=ALL_AT_ONCE)
    await store.plan(done, 0.0)
    broadcast_id = done.rules.broadcast_id
    await store.apply([Report(broadcast_id, chunk, size, is_merged=True) for chunk, size in enumerate(sizes)])
    return broadcast_id


async def left(admin: asyncpg.Connection, broadcast_id: UUID) -> tuple[int, int]:
    """How many rows there are: dispatches, chunks."""
    row = await admin.fetchrow(
        "SELECT (SELECT count(*) FROM dispatches WHERE broadcast_id = $1),"
        " (SELECT count(*) FROM chunks WHERE broadcast_id = $1)",
        broadcast_id,
    )
    return tuple(row)


async def test_deliveries_are_known_for_ninety_days(
    store: DispatchStore, calls: CallStore, cleaner: Cleaner, admin: asyncpg.Connection
) -> None:
    """From the day on which the last of them was decided; then nobody knows that there was a dispatch."""
    old, young = await closed(store, 5, 5), await closed(store, 5)
    await age(admin, 90.01, old)
    await age(admin, 89.99, young)
    assert (await clean_up(cleaner))["dispatches"] == 1
    assert (await left(admin, old), await left(admin, young)) == ((0, 0), (1, 2))
    with pytest.raises(NotFound):
        await calls.get(old)
    assert (await calls.get(young)).targeted == 5


async def test_what_waits_is_never_removed(
    store: DispatchStore, cleaner: Cleaner, admin: asyncpg.Connection
) -> None:
    """Neither what is pending nor what is on its way or held, however old its dispatch is."""
    pending, on_its_way = plan(*items(5), limit=NONE_LEASED), plan(*items(5))
    quiet = plan(*items(5), held(100, 5, LATER))
    for each in (pending, on_its_way, quiet):
        await store.plan(each, 0.0)
    ids = [each.rules.broadcast_id for each in (pending, on_its_way, quiet)]
    await store.apply([Report(ids[2], 0, 5, is_merged=True)])
    await age(admin, 400, *ids)
    assert (await clean_up(cleaner, dry_run=True))["dispatches"] == 0
    assert (await clean_up(cleaner))["dispatches"] == 0
    assert [await left(admin, each) for each in ids] == [(1, 1), (1, 1), (1, 2)]


async def test_a_ledger_is_whole_or_it_is_not_there(
    store: DispatchStore, calls: CallStore, cleaner: Cleaner, worker: Database, admin: asyncpg.Connection
) -> None:
    """A run that was broken off halfway leaves no half of the truth; the next one finishes it first."""
    old = await closed(store, *[5] * 8)
    await age(admin, 91, old)
    hasty = Hasty(worker, SystemClock())
    dispatches = cleaner._chores[0]
    steps = []
    while not (batch := await dispatches.remove(hasty, 3)).is_last:
        steps.append(await left(admin, old))
        with pytest.raises(NotFound):
            await calls.get(old)
        assert (batch.removed, (await clean_up(cleaner, dry_run=True))["dispatches"]) == (0, 1)
    assert [*steps, await left(admin, old)] == [(1, 6), (1, 3), (1, 0), (0, 0)]


async def test_what_a_dry_run_counts_is_what_a_run_removes(
    store: DispatchStore, cleaner: Cleaner, admin: asyncpg.Connection
) -> None:
    """Of every kind; what is young stays."""
    old = [await closed(store, *[5] * count) for count in range(1, 5)]
    young = await closed(store, 5)
    await age(admin, 95, *old)
    for days in (95, 80):
        at = datetime.now(UTC) - timedelta(days=days)
        await insert(admin, "tombstones", {**TOMBSTONE, "broadcast_id": uuid4(), "at": at})
        await insert(admin, "plan_attempts", {**ATTEMPT, "broadcast_id": uuid4(), "at": at})
        await insert(admin, "dead_letters", {**LETTER, "broadcast_id": uuid4(), "at": at})
    await admin.execute("UPDATE outbox SET state = 'done', created_at = now() - interval '8 days'")
    counted = await clean_up(cleaner, dry_run=True)
    assert await clean_up(cleaner, dry_run=True) == counted
    assert await clean_up(cleaner) == counted
    assert counted == {
        "dispatches": 4,
        "tombstones": 1,
        "dead letters": 1,
        "planning attempts": 1,
        "outbox": 5,
    }
    assert await clean_up(cleaner) == dict.fromkeys(counted, 0)
    assert await left(admin, young) == (1, 2)
    assert await admin.fetchval("SELECT count(*) FROM tombstones") == 1


async def test_no_batch_removes_more_than_it_may(
    store: DispatchStore, cleaner: Cleaner, worker: Database, admin: asyncpg.Connection
) -> None:
    """Of a large dispatch and of small ones: about as many rows as are asked for, and no more."""
    ids = [await closed(store, 5) for _ in range(20)] + [await closed(store, *[5] * 60)]
    await age(admin, 91, *ids)
    hasty, before, batches, is_last = Hasty(worker, SystemClock()), 0, [], False
    query = "SELECT (SELECT count(*) FROM chunks) + (SELECT count(*) FROM dispatches)"
    before = await admin.fetchval(query)
    while not is_last:
        is_last = (await cleaner._chores[0].remove(hasty, 16)).is_last
        after = await admin.fetchval(query)
        batches.append(before - after)
        before = after
    assert (sum(batches), before) == (20 * 3 + 61 + 1, 0)
    assert max(batches) <= 16


@pytest.mark.parametrize("is_told", [True, False])
async def test_what_is_old_is_found_by_an_index(
    store: DispatchStore, suite: SuiteDatabase, admin: asyncpg.Connection, *, is_told: bool
) -> None:
    """A few among thousands, with statistics and without; and no more of it is read than is removed."""
    ids = [await closed(store, 5, 5) for _ in range(3)]
    for table, columns, values in (
        (
            "dispatches",
            DISPATCH,
            "gen_random_uuid(), 3, 'dispatching', 'a.b', 'system', false, '{}', 1, now(), 5, now(), now()",
        ),
        ("tombstones", TOMBSTONE, "gen_random_uuid(), now(), false, 0, 0, 0"),
        ("plan_attempts", ATTEMPT, "gen_random_uuid(), 1, now()"),
        ("dead_letters", LETTER, "'broadcast.due.high', gen_random_uuid(), 'DEFECT', now()"),
    ):
        await admin.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM generate_series(1, 3000)"  # noqa: S608
        )
    await admin.execute(
        "INSERT INTO chunks (broadcast_id, chunk, priority, kind, state, members, size, decided_version, decided_at,"
        " looked_at, epoch) SELECT broadcast_id, 0, 3, 'item', 'pending', 'x', 5, 1, now(), now(), 0 FROM dispatches"
        " WHERE state = 'dispatching'"
    )
    await age(admin, 91, *ids)
    if is_told:
        await admin.execute("ANALYZE")
    else:
        await forget_statistics(admin, "dispatcher")
    for name in ("dispatches", "tombstones", "letters", "attempts"):
        removes = QUERIES[f"remove_old_{name}"]
        arguments = (TERMS.deliveries, 64)
        found = await plans(
            suite.admin_url, "dispatcher", "dispatcher_worker", removes, *arguments, settings=BY_INDEX
        )
        tables = ("dispatches", "chunks", "tombstones", "plan_attempts", "dead_letters")
        assert_only_by_index(found, *tables, partial=("forgotten_dispatches",))
        chunks = scans(found, "chunks")
        assert sum(node["Actual Rows"] for node in chunks if node["Node Type"] == "Tid Scan") in (0, 9)
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in chunks) <= 20
    await admin.execute("ANALYZE")


@pytest.fixture(scope="module")
async def dispatcher(surroundings: Site) -> AsyncIterator[Caller]:
    """A dispatcher with all lanes."""
    async with surroundings.dispatching() as caller:
        yield caller


@pytest.mark.usefixtures("empty")
async def test_another_service_has_it_clean_up(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """By a call: what was sent is gone, and said to be."""
    sent = await surroundings.send(now_on_both(Audience.of(range(10))))
    query = "SELECT state FROM dispatches WHERE broadcast_id = $1"
    await until_equal("closed", lambda: admin.fetchval(query, sent))
    await age(admin, 91, sent)
    for dry_run in (True, False):
        request = dispatcher_pb2.CleanUpDispatchesRequest(dry_run=dry_run)
        stub = DispatcherServiceStub(dispatcher.channel)
        answer = await stub.CleanUpDispatches(request, metadata=dispatcher.bearer("internal"))
        cleaned = {each.what: each for each in answer.cleaned}
        assert (cleaned["dispatches"].count, cleaned["dispatches"].error) == (1, "")
        assert cleaned["dispatches"].kept_for.ToTimedelta() == timedelta(days=90)
    assert await left(admin, sent) == (0, 0)
