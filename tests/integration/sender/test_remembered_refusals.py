"""Refusals are remembered, so that a flood costs nothing; no memory decides what the database would not."""

import asyncio
import os
import signal
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from wedsync.broadcast.v1 import common_pb2

from services.sender.domain import Author, Priority
from services.sender.limits import Limit, Limits, Quota, Standing, Tally
from services.sender.refusals import Refusals
from shared.clock import FixedClock
from shared.metrics import REDIS_CALLS
from shared.optional_redis import OptionalRedis
from stack.processes import RunningProgram
from stack.provision import SuiteDatabase
from tests.integration.sender.limits import counted, quota, send_all, sent_before, use_up
from tests.integration.sender.neighbours import Neighbours
from tests.integration.sender.site import Metadata, Servers, ServingSite, Site, a_send, serving_site
from tests.integration.shared.edge import Refusal, refusal_of
from tests.integration.shared.polling import until_equal

FLOOD, TOGETHER = 5_000, 4
LIMIT = Limit(3, 30)
SENT = Tally(Author("billing", is_service=True), "payment.required", Priority.HIGH, None)


@pytest.fixture
async def fragile(
    tmp_path: Path,
    sender_database: SuiteDatabase,
    servers: Servers,
    own_valkey: tuple[str, RunningProgram],
    beside: Neighbours,
) -> AsyncIterator[ServingSite]:
    """A sender with a Valkey that a test may break."""
    broken = Servers(servers.nats, own_valkey[0])
    async with serving_site(tmp_path, sender_database, broken, beside) as running:
        yield running


@asynccontextmanager
async def without_database(site: Site) -> AsyncIterator[None]:
    """Whatever asks Postgres for a caller fails: nobody is let in by that login, and whoever is in is sent out."""
    await site.admin.execute("ALTER ROLE sender_api CONNECTION LIMIT 0")
    try:
        await site.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sender_api'"
        )
        yield
    finally:
        await site.admin.execute("ALTER ROLE sender_api CONNECTION LIMIT -1")


def redis_calls() -> float:
    """How often Redis was asked for anything by anybody in this process."""
    return sum(REDIS_CALLS.labels(outcome)._value.get() for outcome in ("answered", "failed"))


async def flood(site: Site, caller: Metadata, count: int) -> list[Refusal]:
    """So many sends in a row, every other one with a request_id of its own; what each was told."""
    refusals: list[Refusal] = []
    for _ in range(count // TOGETHER):
        sends = [a_send(request_id=str(uuid4()) if n % 2 else "") for n in range(TOGETHER)]
        answers, refused = await send_all(site.send(caller, each) for each in sends)
        assert answers == []
        refusals += refused
    return refusals


async def test_flood_of_refused_sends_asks_nobody(fragile: ServingSite) -> None:
    """After the first of five thousand neither Postgres nor Redis nor the directory is asked for anything."""
    user_id, admin = fragile.person("admin")
    await sent_before(fragile, user_id, *[timedelta(minutes=1, seconds=n) for n in range(25)])
    first = await refusal_of(fragile.send(admin))
    async with without_database(fragile):
        directory = len(fragile.neighbours.preferences.calls)
        # That they would be heard if they asked.
        other = await refusal_of(fragile.send(admin, a_send(priority=common_pb2.PRIORITY_LOW)))
        assert other.reason == "DEPENDENCY_UNAVAILABLE"
        assert (asked := len(fragile.neighbours.preferences.calls)) > directory
        redis, began = redis_calls(), time.monotonic()
        refusals = await flood(fragile, admin, FLOOD)
        assert len(fragile.neighbours.preferences.calls) == asked
        # Once a second it is read what others have found out, whether anybody sends or not.
        assert redis_calls() - redis <= time.monotonic() - began + 2
    assert len(refusals) == FLOOD
    assert {each.reason for each in refusals} == {"RATE_LIMITED"}
    assert {each.metadata["reset_time"] for each in refusals} == {first.metadata["reset_time"]}
    assert await counted(fragile, user_id) == 25


async def test_last_send_is_remembered_as_the_last(site: Site) -> None:
    """Whoever takes the last one has told this process that there is no more."""
    _, admin = site.person("admin")
    for _ in range(25):
        await site.send(admin)
    async with without_database(site):
        assert (await refusal_of(site.send(admin))).reason == "RATE_LIMITED"


async def test_another_process_learns_it_from_redis(site: ServingSite) -> None:
    """It refuses what it has never counted, with the same reset time, and answers repetitions."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *[timedelta(minutes=5, seconds=n) for n in range(24)])
    request = a_send(request_id=str(uuid4()))
    answer = await site.send(admin, request)
    told = await refusal_of(site.send(admin))
    await until_equal(True, lambda: is_shared(site, answer.broadcast.create_time.ToMilliseconds()))
    await site.restart()
    async with without_database(site):

        async def reason() -> str:
            return (await refusal_of(site.send(admin))).reason

        await until_equal("RATE_LIMITED", reason)
        again = await refusal_of(site.send(admin, a_send(request_id=str(uuid4()))))
        assert again.metadata == told.metadata
        assert again.retry_after_s == pytest.approx(told.retry_after_s, abs=60)

    async def repeated() -> bool:
        return (await send_all([site.send(admin, request)]))[0] == [answer]

    await until_equal(True, repeated)


async def is_shared(site: Site, since_ms: int) -> bool:
    """Whether Redis has heard of a refusal since a moment."""
    identity = await site.admin.fetchval("SELECT identity FROM sender.count_identity")
    async with Redis.from_url(site.environment["REDIS_URL"]) as redis:
        return bool(await redis.xrange(f"sender:refusals:{identity}", str(since_ms)))


async def test_flushed_redis_lifts_no_limit(site: ServingSite) -> None:
    """What it had is found out again, by this process and by the next."""
    user_id, admin = site.person("admin")
    await use_up(site, admin)
    async with Redis.from_url(site.environment["REDIS_URL"]) as redis:
        for _ in range(2):
            await redis.flushall()
            assert (await refusal_of(site.send(admin))).reason == "RATE_LIMITED"
            await site.restart()
    assert await counted(site, user_id) == 25


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_broken_redis_neither_lifts_a_limit_nor_stops_a_legal_send(
    fragile: ServingSite, own_valkey: tuple[str, RunningProgram], fault: signal.Signals
) -> None:
    """Dead or hanging: the same is sent as with it."""
    limited_id, limited = fragile.person("admin")
    await use_up(fragile, limited)
    os.kill(own_valkey[1].pid, fault)
    _, other = fragile.person("admin")
    accepted = await use_up(fragile, other)
    assert [each.quota.hour_remaining for each in accepted] == list(range(24, -1, -1))
    await fragile.restart()
    for caller in (limited, other):
        assert (await refusal_of(fragile.send(caller))).reason == "RATE_LIMITED"
    assert (await quota(fragile, limited, priority=common_pb2.PRIORITY_LOW)).hour_remaining == 50
    assert await counted(fragile, limited_id) == 25


def remembering(url: str, clock: FixedClock, identity: UUID, configured: str = "") -> Refusals:
    """The memory of a process."""
    return Refusals(OptionalRedis.open(url, 5.0), identity, Limits.parse(configured), clock)


async def share(refusals: Refusals, clock: FixedClock, left: timedelta) -> Standing:
    """Find out that a limit is used up for so long, and tell the others."""
    standing = Standing(Quota(LIMIT, 3, 3, clock.now() + left), clock.now(), uuid4().bytes)
    refusals.note(SENT, standing, clock.monotonic())
    await asyncio.gather(*refusals._writing)
    return standing


async def test_what_one_process_finds_out_the_others_learn(valkey_server: str) -> None:
    """With all that it knows, and each thing once; a minute before the end nobody believes another's clock any more."""
    clock, identity = FixedClock(datetime.now(UTC)), uuid4()
    one, other = (remembering(valkey_server, clock, identity) for _ in range(2))
    standing = await share(one, clock, timedelta(minutes=10))
    await other.learn()
    learnt = other.find(SENT)
    assert learnt is not None
    assert (learnt.quota, learnt.request_ids) == (standing.quota, standing.request_ids)
    assert other.retry_after_s(learnt) == 600.0
    await one.learn()
    clock.move(541)
    assert one.find(SENT) is not None
    assert other.find(SENT) is None
    await other.learn()
    assert other.find(SENT) is None
    await one.close()
    await other.close()


async def test_redis_that_wakes_up_late_refuses_nobody_for_longer(
    own_valkey: tuple[str, RunningProgram],
) -> None:
    """A refusal that it was told of while it slept is over when the limit is, and not so long after it was heard."""
    url, running = own_valkey
    clock, identity = FixedClock(datetime.now(UTC)), uuid4()
    one, other = (remembering(url, clock, identity) for _ in range(2))
    await share(one, clock, timedelta(minutes=10))
    asleep = remembering(url, clock, uuid4())
    await asleep.learn()
    os.kill(running.pid, signal.SIGSTOP)
    await share(asleep, clock, timedelta(minutes=10))
    clock.move(9 * 60)
    os.kill(running.pid, signal.SIGCONT)
    late = remembering(url, clock, UUID(asleep._stream.rpartition(":")[2]))

    async def has_woken() -> int:
        async with Redis.from_url(url) as redis:
            return int(await redis.xlen(one._stream))

    await until_equal(1, has_woken)
    for each in (other, late):
        await each.learn()
        assert each.find(SENT) is None
    for each in (one, other, asleep, late):
        await each.close()


async def test_what_redis_says_is_believed_only_where_it_can_be_true(valkey_server: str) -> None:
    """Rubbish, what is over or nearly so, what says that something is left, and what is too far ahead are nothing."""
    clock, identity = FixedClock(datetime.now(UTC)), uuid4()
    refusals = remembering(valkey_server, clock, identity)
    now_us = int(clock.now().timestamp() * 1e6)

    def fields(seconds: float, hour_used: int = 3, ids: bytes = b"") -> dict[str, bytes]:
        numbers = struct.pack(">qiiii", now_us + int(seconds * 1e6), 3, hour_used, 30, 4)
        return {"key": refusals._key(SENT), "quota": numbers, "request_ids": ids}

    async def believed(what: dict[str, bytes]) -> bool:
        refusals._here.clear()
        async with Redis.from_url(valkey_server) as redis:
            await redis.xadd(refusals._stream, what)  # type: ignore[arg-type]  # a dict of its own kind
        await refusals.learn()
        return refusals.find(SENT) is not None

    assert await believed(fields(61))
    assert await believed(fields(86_400, ids=bytes(32)))
    assert not await believed({"x": b"y"})
    assert not await believed(fields(61) | {"quota": b"1"})
    for seconds in (60, -5, 90_000, 9e12 - now_us / 1e6):
        assert not await believed(fields(seconds))
    assert not await believed(fields(61, hour_used=2))
    assert not await believed(fields(61, ids=b"x"))
    async with Redis.from_url(valkey_server) as redis:
        await redis.set(refusals._stream, b"not a stream")
    await refusals.learn()
    await refusals.close()


async def test_refusals_of_other_counts_are_none_of_ours(valkey_server: str) -> None:
    """A Redis may be shared or outlive a database, and a limit may be configured anew."""
    clock, identity = FixedClock(datetime.now(UTC)), uuid4()
    one = remembering(valkey_server, clock, identity)
    same, stranger, raised = (
        remembering(valkey_server, clock, identity),
        remembering(valkey_server, clock, uuid4()),
        remembering(valkey_server, clock, identity, "billing:*=4,40"),
    )
    await share(one, clock, timedelta(minutes=10))
    for each in (same, stranger, raised):
        await each.learn()
    assert [bool(each.find(SENT)) for each in (same, stranger, raised)] == [True, False, False]
    for each in (one, same, stranger, raised):
        await each.close()


async def test_raised_quota_holds_at_once(site: ServingSite) -> None:
    """Although the old one is remembered as used up."""
    name = f"billing-{uuid4()}"
    billing = site.service("broadcast.send", name=name)
    await site.restart(SENDER_SERVICE_QUOTAS=f"{name}:*=2,2")
    await use_up(site, billing)
    await site.restart(SENDER_SERVICE_QUOTAS=f"{name}:*=4,4")
    assert len(await use_up(site, billing)) == 2
