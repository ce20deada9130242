"""Answers on a real Postgres: taken once, kept with the work, held a day by the database's clock, then forgotten."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, MarkAllReadResponse

from shared.auth import Identity, SubjectKind, _caller
from shared.cleaning import Batch, Hasty
from shared.clock import SystemClock
from shared.database import Database, Transaction, connect
from shared.errors import PermissionDenied, RequestIdReused
from shared.replays import Answer, KeptAnswers, OnceOnly, Request, retention
from tests.integration.shared.schemas import make_schema

METHOD = "MarkAllRead"
DAY = timedelta(hours=24)
MOMENT = timedelta(microseconds=1)
PERSON = UUID(int=1)


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection in the schema `desk`, which has no answers and one table to work on."""
    connection = await asyncpg.connect(database_url)
    await make_schema(connection, "desk", "requests_template.sql")
    await connection.execute("SET search_path TO desk")
    await connection.execute("CREATE TABLE done (text text)")
    yield connection
    await connection.close()


@pytest.fixture
async def database(admin: asyncpg.Connection, database_url: str) -> AsyncIterator[Database]:
    """A pool on that schema's database."""
    database = await connect(database_url, application_name="test", max_size=12)
    yield database
    await database.close()


@pytest.fixture
def once(database: Database) -> Iterator[OnceOnly]:
    """What does the work of calls, for a person who calls until the test is over."""
    person = Identity(str(PERSON), SubjectKind.USER, PERSON, frozenset(), datetime.max.replace(tzinfo=UTC))
    before = _caller.set((person, None))
    yield OnceOnly(database, "desk")
    _caller.reset(before)


def a_request(caller: str = "billing", body: bytes = bytes(32)) -> Request:
    """A request that nobody has made before."""
    return Request(caller, METHOD, str(uuid4()), body)


async def kept(once: KeptAnswers, database: Database, request: Request, response: bytes) -> None:
    """Take an id and keep its whole answer."""
    async with database.transaction() as transaction:
        assert await once.take(transaction, request) is None
        await once.keep(transaction, request, response, is_whole=True)


async def write(transaction: Transaction, text: str) -> None:
    """The work that tests have done."""
    await transaction.execute("INSERT INTO desk.done VALUES ($1)", text)


async def works(admin: asyncpg.Connection) -> list[str]:
    """The work that was done."""
    return [row["text"] for row in await admin.fetch("SELECT text FROM done ORDER BY text")]


async def test_an_answer_is_found_by_its_caller_method_and_id(database: Database, once: OnceOnly) -> None:
    """With the body that it was given to; whatever differs is another request."""
    request = a_request()
    await kept(once, database, request, b"first")
    assert await once.find(request) == Answer(request.body_hash, b"first")
    for other in (
        Request("forms", request.method, request.request_id, request.body_hash),
        Request(request.caller, "Other", request.request_id, request.body_hash),
        Request(request.caller, request.method, str(uuid4()), request.body_hash),
    ):
        assert await once.find(other) is None


async def test_an_answer_holds_for_a_day_to_the_microsecond(
    admin: asyncpg.Connection, database: Database, once: OnceOnly
) -> None:
    """By the clock of the database: found a microsecond before, free from the moment on, deleted or not."""
    request = a_request()
    await kept(once, database, request, b"first")
    arguments = (request.caller, request.method, request.request_id)
    found = "SELECT known_response FROM find_request($1, $2, $3)"
    take = "SELECT known_response FROM take_requests(ARRAY[$1], ARRAY[$2], ARRAY[$3::uuid], ARRAY[$4::bytea])"
    async with admin.transaction():
        # In one transaction now() stands still.
        await admin.execute("UPDATE requests SET at = now() - $1::interval", DAY - MOMENT)
        assert await admin.fetchval(found, *arguments) == b"first"
        assert await admin.fetchval(take, *arguments, bytes(32)) == b"first"
        await admin.execute("UPDATE requests SET at = now() - $1::interval", DAY)
        assert await admin.fetchval(found, *arguments) is None
        assert await admin.fetch(take, *arguments, b"1" * 32) == []
        row = await admin.fetchrow("SELECT body_hash, response, is_whole, at = now() AS is_new FROM requests")
        assert tuple(row or ()) == (b"1" * 32, b"", False, True)


async def test_old_answers_are_removed_in_small_parts(
    admin: asyncpg.Connection, database: Database, once: OnceOnly
) -> None:
    """The oldest first, and nothing that still holds."""
    requests = [a_request() for _ in range(5)]
    for age, request in enumerate(requests):
        await kept(once, database, request, b"x")
        await admin.execute(
            "UPDATE requests SET at = now() - $2::interval WHERE request_id = $1",
            request.request_id,
            DAY + timedelta(hours=1.5) - timedelta(hours=age),
        )

    async def left() -> set[str]:
        return {str(row["request_id"]) for row in await admin.fetch("SELECT request_id FROM requests")}

    chore, hasty = retention(database, "desk"), Hasty(database, SystemClock())
    assert await chore.count() == 2
    assert await chore.remove(hasty, 1) == Batch(1, is_last=False)
    assert await left() == {each.request_id for each in requests[1:]}
    assert await chore.remove(hasty, 10) == Batch(1, is_last=True)
    assert await left() == {each.request_id for each in requests[2:]}
    assert await chore.count() == 0


async def test_whoever_comes_meanwhile_waits_and_gets_the_answer(
    admin: asyncpg.Connection, database: Database, once: OnceOnly
) -> None:
    """Fifty calls with one id over many connections: the work is done once, and all are answered the same."""
    message = MarkAllReadRequest(request_id=str(uuid4()))

    async def call(number: int) -> MarkAllReadResponse:
        async def work(transaction: Transaction) -> MarkAllReadResponse:
            await write(transaction, f"work {number}")
            return MarkAllReadResponse(unread_count=number)

        return await once.do(METHOD, message, MarkAllReadResponse, work)

    answers = await asyncio.gather(*(call(number) for number in range(50)))
    assert len({answer.unread_count for answer in answers}) == 1
    assert await works(admin) == [f"work {answers[0].unread_count}"]


async def test_whoever_comes_after_one_that_is_refused_does_the_work(
    admin: asyncpg.Connection, database: Database, once: OnceOnly
) -> None:
    """The refusal leaves nothing: neither the id nor the work that was begun."""
    message = MarkAllReadRequest(request_id=str(uuid4()))
    began, go_on = asyncio.Event(), asyncio.Event()

    async def refused(transaction: Transaction) -> MarkAllReadResponse:
        await write(transaction, "refused")
        began.set()
        await go_on.wait()
        raise PermissionDenied

    async def work(transaction: Transaction) -> MarkAllReadResponse:
        await write(transaction, "done")
        return MarkAllReadResponse(unread_count=7)

    first = asyncio.create_task(once.do(METHOD, message, MarkAllReadResponse, refused))
    await began.wait()
    second = asyncio.create_task(once.do(METHOD, message, MarkAllReadResponse, work))
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'test' AND wait_event_type = 'Lock'"
    )
    while not await admin.fetchval(waiting):
        assert not second.done()
    go_on.set()
    with pytest.raises(PermissionDenied):
        await first
    assert (await second).unread_count == 7
    assert await works(admin) == ["done"]


async def test_another_body_is_refused_and_does_nothing(admin: asyncpg.Connection, once: OnceOnly) -> None:
    """Whether it comes by `do` or by `find`."""
    message = MarkAllReadRequest(request_id=str(uuid4()))

    async def work(transaction: Transaction) -> MarkAllReadResponse:
        await write(transaction, "done")
        return MarkAllReadResponse()

    await once.do(METHOD, message, MarkAllReadResponse, work)
    other = MarkAllReadRequest.FromString(message.SerializeToString() + b"\x50\x01")
    with pytest.raises(RequestIdReused):
        await once.do(METHOD, other, MarkAllReadResponse, work)
    with pytest.raises(RequestIdReused):
        await once.replay(METHOD, MarkAllReadResponse)(other)
    assert await works(admin) == ["done"]


async def test_calls_without_an_id_are_each_done_and_none_is_kept(
    admin: asyncpg.Connection, once: OnceOnly
) -> None:
    """Also in two steps."""

    async def work(transaction: Transaction) -> MarkAllReadResponse:
        await write(transaction, "done")
        return MarkAllReadResponse(unread_count=1)

    await once.do(METHOD, MarkAllReadRequest(), MarkAllReadResponse, work)
    begun = await once.begin(METHOD, MarkAllReadRequest(), MarkAllReadResponse, work)
    assert (begun.is_whole, begun.is_repeated) == (False, False)
    assert await once.finish(METHOD, MarkAllReadRequest(), begun.response) is begun.response
    assert await works(admin) == ["done", "done"]
    assert await admin.fetchval("SELECT count(*) FROM requests") == 0


async def test_an_answer_in_two_steps_is_whole_after_the_second(
    admin: asyncpg.Connection, once: OnceOnly
) -> None:
    """In between a repetition does no work, finds no answer and may finish it; the first to finish stands."""
    message = MarkAllReadRequest(request_id=str(uuid4()))

    async def work(transaction: Transaction) -> MarkAllReadResponse:
        await write(transaction, "done")
        return MarkAllReadResponse(unread_count=1)

    async def begin() -> tuple[bool, bool]:
        done = await once.begin(METHOD, message, MarkAllReadResponse, work)
        assert done.response.unread_count == (2 if done.is_whole else 1)
        return done.is_whole, done.is_repeated

    find = once.replay(METHOD, MarkAllReadResponse)
    assert (await begin(), await find(message)) == ((False, False), None)
    assert (await begin(), await find(message)) == ((False, True), None)
    second = await once.finish(METHOD, message, MarkAllReadResponse(unread_count=2))
    third = await once.finish(METHOD, message, MarkAllReadResponse(unread_count=3))
    assert second == third == await find(message) == MarkAllReadResponse(unread_count=2)
    assert await begin() == (True, True)
    assert await works(admin) == ["done"]


async def test_many_are_answered_at_once_each_with_what_stands(database: Database, once: OnceOnly) -> None:
    """Ones that are whole already keep their answers; simultaneous ones of one request agree."""
    old, new = a_request("billing"), a_request("forms")
    await kept(once, database, old, b"first")
    async with database.transaction() as transaction:
        await once.take(transaction, new)
    standing = await once.complete([(old, b"second"), (new, b"one"), (new, b"two")])
    assert standing[0] == b"first"
    assert standing[1] == standing[2] in (b"one", b"two")
    assert await once.complete([(new, b"three")]) == standing[1:2]


async def test_who_takes_many_waits_in_the_same_order_as_others(
    admin: asyncpg.Connection, database: Database, once: OnceOnly
) -> None:
    """Two transactions that take the same ids in opposite orders both come to their end, and share them."""
    requests = [a_request(f"caller {number}") for number in range(20)]
    take = "SELECT place FROM desk.take_requests($1, $2, $3, $4)"

    async def take_all(wanted: list[Request]) -> int:
        columns = (
            [each.caller for each in wanted],
            [each.method for each in wanted],
            [each.request_id for each in wanted],
            [each.body_hash for each in wanted],
        )
        async with database.transaction() as transaction:
            return len(await transaction.fetch(take, *columns))

    for _ in range(10):
        await admin.execute("TRUNCATE requests")
        known = await asyncio.gather(take_all(requests), take_all(requests[::-1]))
        assert sorted(known) == [0, 20]
