"""Rate limits through a real channel: exact under concurrency, told to the sender, charged for what was accepted."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, sender_pb2

from services.sender.config import Settings
from services.sender.domain import Author, Priority
from services.sender.limits import Limit, Quota, Tally
from services.sender.main import start
from services.sender.store import CallStore
from shared import database
from shared.failpoints import armed
from shared.settings import Environment
from stack.provision import SuiteDatabase
from tests.integration.sender.limits import NIL, counted, persist, quota, send_all, sent_before, use_up
from tests.integration.sender.site import ServingSite, Site, a_send, ahead, end
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

LOW, NORMAL = common_pb2.PRIORITY_LOW, common_pb2.PRIORITY_NORMAL
HIGH, CRITICAL = common_pb2.PRIORITY_HIGH, common_pb2.PRIORITY_CRITICAL
Priorities = common_pb2.Priority.ValueType
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(hours=24)


@pytest.mark.parametrize(("priority", "limit"), [(CRITICAL, 5), (HIGH, 10), (NORMAL, 25), (LOW, 50)])
async def test_each_priority_has_its_limit(site: Site, priority: "Priorities", limit: int) -> None:
    """As many as the table says, then none; each answer says one less."""
    _, admin = site.person("admin")
    accepted = await use_up(site, admin, type="security.alert", priority=priority)
    assert [each.quota.hour_remaining for each in accepted] == list(range(limit - 1, -1, -1))
    assert {each.quota.hour_limit for each in accepted} == {limit}
    assert [each.quota.HasField("reset_time") for each in accepted] == [False] * (limit - 1) + [True]


async def test_two_hundred_at_once_let_exactly_the_limit_through(site: ServingSite) -> None:
    """To two senders on one database, as in production; what is accepted is kept, and nothing else."""
    user_id, admin = site.person("admin")
    other = await start(Settings.read(Environment(site.environment)))
    async with grpc.aio.insecure_channel(str(other.address)) as channel:
        doors = [site.stub, type(site.stub)(channel)]
        before = await site.count("requests")
        answers, refusals = await send_all(
            persist(doors[n % 2], admin, a_send(request_id=str(uuid4()))) for n in range(200)
        )
    await end(other)
    assert sorted(each.quota.hour_remaining for each in answers) == list(range(25))
    assert {each.reason for each in refusals} == {"RATE_LIMITED"}
    assert (len(answers), len(refusals), await counted(site, user_id)) == (25, 175, 25)
    sent = await site.admin.fetch("SELECT broadcast_id FROM sender.broadcasts WHERE created_by = $1", user_id)
    assert {str(row["broadcast_id"]) for row in sent} == {each.broadcast.broadcast_id for each in answers}
    assert await site.count("requests") == before + 25


async def test_who_waits_for_their_own_sends_keeps_nobody_else(site: Site) -> None:
    """However many somebody sends at once, they hold one connection: those of the pool are for everybody."""
    user_id, admin = site.person("admin")
    together = "'sender.' || concat_ws('/', $1::text, $2::text, 3, $3::uuid)"
    lock = f"SELECT pg_advisory_xact_lock(hashtextextended({together}, 0))"
    async with site.admin.transaction():
        await site.admin.execute(lock, user_id, "feature.released", NIL)
        waiting = [asyncio.create_task(site.send(admin)) for _ in range(20)]
        for _ in range(5):
            await site.send(site.person("admin")[1])
        assert not any(each.done() for each in waiting)
    assert len(await asyncio.gather(*waiting)) == 20


async def test_what_is_not_counted_together_has_limits_of_its_own(site: Site) -> None:
    """Sender, type, priority and wedding: each another tally."""
    user_id, admin = site.person("admin")
    one, other = site.wedding(user_id), site.wedding(user_id)
    await use_up(site, admin, type="timeline.changed", wedding_id=one)
    for caller, fields in (
        (admin, {"type": "timeline.changed", "wedding_id": other}),
        (admin, {"type": "timeline.changed", "wedding_id": one, "priority": LOW}),
        (admin, {"type": "wedding.cancelled", "wedding_id": one, "priority": HIGH}),
        (admin, {"type": "payment.required"}),
        (site.person("admin")[1], {"type": "timeline.changed", "wedding_id": one}),
    ):
        left = (await site.send(caller, a_send(**fields))).quota
        assert left.hour_remaining == left.hour_limit - 1


async def test_weddings_named_in_the_targeting_share_one_limit(site: Site) -> None:
    """A coordinator gains nothing by naming another list each time; with wedding_id it is about that wedding."""
    user_id, coordinator = site.person("coordinator")
    weddings = [site.wedding(user_id) for _ in range(3)]
    left = []
    for named in (weddings[:1], weddings[1:2], weddings[:2], weddings):
        asked = a_send(type="form.locked", targeting={"wedding_ids": named})
        left.append((await site.send(coordinator, asked)).quota.hour_remaining)
    assert left == [24, 23, 22, 21]
    about = a_send(type="form.locked", targeting={"wedding_ids": weddings[:1]}, wedding_id=weddings[0])
    assert (await site.send(coordinator, about)).quota.hour_remaining == 24


async def test_refusal_says_when_to_come_again(site: Site) -> None:
    """The code, the reset time, a delay that fits to it, what is left, and one event without a name in it."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *(number * MINUTE for number in range(20, 45)))
    before, tables = datetime.now(UTC), ("broadcasts", "requests", "outbox", "counted_sends")
    kept = [await site.count(table) for table in tables]
    with capture_logs() as logs:
        refusal = await refusal_of(site.send(admin, a_send(request_id=str(uuid4()))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    reset_time = datetime.fromisoformat(refusal.metadata["reset_time"])
    assert timedelta(minutes=15) < reset_time - before <= timedelta(minutes=16)
    assert refusal.retry_after_s == pytest.approx((reset_time - before).total_seconds(), abs=10)
    assert refusal.message.startswith(
        "The limit of normal feature.released, 25 in any hour, is used up until "
    )
    left = {name: value for name, value in refusal.metadata.items() if name != "reset_time"}
    assert left == {"hour_limit": "25", "hour_remaining": "0", "day_limit": "100", "day_remaining": "75"}
    assert (await quota(site, admin)).reset_time.ToDatetime(UTC) == reset_time
    (line,) = (each for each in logs if each["event"] == "rate_limited")
    assert (line["type"], line["priority"], line["hour_used"]) == ("feature.released", "normal", 25)
    assert user_id not in repr(logs)
    assert [await site.count(table) for table in tables] == kept


async def test_limit_of_the_day_outlasts_that_of_the_hour(site: Site) -> None:
    """A hundred in 24 hours, however they were spread: the next is free when the first of them is a day old."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *(timedelta(hours=2, minutes=10 * n) for n in range(100)))
    refusal = await refusal_of(site.send(admin))
    assert "100 in any 24 hours" in refusal.message
    assert refusal.retry_after_s == pytest.approx(timedelta(hours=22, minutes=-990).total_seconds(), abs=10)
    assert (refusal.metadata["hour_remaining"], refusal.metadata["day_remaining"]) == ("25", "0")


async def test_windows_slide(site: Site) -> None:
    """What was sent more than an hour ago counts for the day alone, what was sent a day ago for nothing."""
    user_id, admin = site.person("admin")
    second = timedelta(seconds=1)
    await sent_before(site, user_id, DAY + second, 23 * HOUR, HOUR + second, 59 * MINUTE, MINUTE)
    left = await quota(site, admin)
    assert (left.hour_remaining, left.day_remaining) == (25 - 2, 100 - 4)


async def test_standing_is_that_of_a_simple_count(site: Site, sender_database: SuiteDatabase) -> None:
    """Random histories, some of them pruned, against counting by hand; and one more send, where there is room."""
    chance = random.Random(4)
    called = await database.connect(sender_database.url("sender"), application_name="test")
    store = CallStore(called)
    for _ in range(30):
        name, limit = str(uuid4()), Limit(hour := chance.randint(1, 12), chance.randint(hour, 30))
        ages = [timedelta(minutes=chance.uniform(0, 1700)) for _ in range(chance.randint(0, 40))]
        ages += [timedelta(minutes=chance.uniform(0, 70)) for _ in range(chance.randint(0, 12))]
        await sent_before(site, name, *ages)
        if chance.random() < 0.3:
            await site.admin.execute(
                "DELETE FROM sender.counted_sends WHERE caller = $1 AND at < now() - interval '1 day'", name
            )
        tally = Tally(Author(name, is_service=False), "feature.released", Priority.NORMAL, None)
        standing = await store.find_standing(tally, limit)
        rows = await site.admin.fetch("SELECT at FROM sender.counted_sends WHERE caller = $1", name)
        assert standing.quota == by_hand(limit, [row["at"] for row in rows], standing.counted_at)
    await called.close()


def by_hand(limit: Limit, sent: list[datetime], now: datetime) -> Quota:
    """What is left, by looking at each."""
    hour = sorted(at for at in sent if at > now - HOUR)
    day = sorted(at for at in sent if at > now - DAY)
    resets = [hour[-limit.hour] + HOUR] if len(hour) >= limit.hour else []
    resets += [day[-limit.day] + DAY] if len(day) >= limit.day else []
    return Quota(limit, len(hour), len(day), max(resets, default=None))


async def test_clock_that_was_set_back_loses_no_send(site: Site) -> None:
    """What seems to lie ahead counts, and what is sent now comes after it."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, -2 * MINUTE)
    assert [(await site.send(admin)).quota.hour_remaining for _ in range(2)] == [23, 22]
    ordinals = await site.admin.fetch(
        "SELECT ordinal FROM sender.counted_sends WHERE caller = $1 ORDER BY at", user_id
    )
    assert [row["ordinal"] for row in ordinals] == [1, 2, 3]


async def test_quota_agrees_with_every_answer(site: Site) -> None:
    """Before the first, after each, and when nothing is left."""
    _, admin = site.person("admin")
    asked = {"type": "payment.required", "priority": HIGH}
    untouched = sender_pb2.Quota(hour_limit=10, hour_remaining=10, day_limit=50, day_remaining=50)
    assert await quota(site, admin, **asked) == untouched
    while (answer := await site.send(admin, a_send(**asked))).quota.hour_remaining:
        assert await quota(site, admin, **asked) == answer.quota
    assert await quota(site, admin, type="payment.required") == answer.quota
    assert answer.quota.HasField("reset_time")


async def test_validating_costs_nothing_and_tells_what_is_left(site: Site) -> None:
    """Until it is nothing: then it is refused as the send would be."""
    user_id, admin = site.person("admin")
    for _ in range(3):
        answer = await site.send(admin, a_send(validate_only=True))
        assert (answer.quota.hour_remaining, answer.broadcast.broadcast_id) == (25, "")
    await sent_before(site, user_id, *[MINUTE + timedelta(seconds=n) for n in range(25)])
    assert (await refusal_of(site.send(admin, a_send(validate_only=True)))).reason == "RATE_LIMITED"
    assert await counted(site, user_id) == 25


async def test_what_is_refused_for_anything_else_costs_nothing(site: Site) -> None:
    """A bad field, a type, a wedding out of reach, a directory that is down."""
    user_id, coordinator = site.person("coordinator")
    own, foreign = site.wedding(user_id), site.wedding()
    for fields in (
        {"type": "timeline.changed", "wedding_id": own, "title": ""},
        {"type": "timeline.changed", "wedding_id": foreign},
        {"type": "feature.released"},
    ):
        await refusal_of(site.send(coordinator, a_send(**fields)))
    site.neighbours.preferences.is_down = True
    await refusal_of(site.send(coordinator, a_send(type="timeline.changed", wedding_id=own)))
    assert await counted(site, user_id) == 0


async def test_scheduled_and_cancelled_ones_count(site: Site) -> None:
    """When they are accepted, and for good."""
    _, admin = site.person("admin")
    answer = await site.send(admin, a_send(scheduled_for=ahead(days=3)))
    assert answer.quota.hour_remaining == 24
    cancel = sender_pb2.CancelBroadcastRequest(broadcast_id=answer.broadcast.broadcast_id)
    await site.stub.CancelBroadcast(cancel, metadata=admin)
    assert (await quota(site, admin)).hour_remaining == 24


async def test_repeated_send_is_answered_though_nothing_is_left(site: Site) -> None:
    """As it was the first time, with what was left then, and at no cost; also the last one, and after a restart."""
    user_id, admin = site.person("admin")
    requests = [a_send(request_id=str(uuid4()), title=f"Title {n}") for n in range(25)]
    answers = [await site.send(admin, each) for each in requests]
    assert (await refusal_of(site.send(admin))).reason == "RATE_LIMITED"
    for request, answer in zip(requests, answers, strict=True):
        assert (await site.send(admin, request)).SerializeToString() == answer.SerializeToString()
    assert [each.quota.hour_remaining for each in answers] == list(range(24, -1, -1))
    other_body = a_send(request_id=requests[7].request_id, title="Another")
    assert (await refusal_of(site.send(admin, other_body))).reason == "REQUEST_ID_REUSED"
    assert await counted(site, user_id) == 25


async def test_refused_send_may_be_repeated_when_there_is_room(site: ServingSite) -> None:
    """What was refused is not kept: the same request_id is accepted later, once."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *[HOUR - timedelta(seconds=3 - n / 100) for n in range(25)])
    request = a_send(request_id=str(uuid4()))
    refusal = await refusal_of(site.send(admin, request))
    reset_time, answers = datetime.fromisoformat(refusal.metadata["reset_time"]), []

    async def is_accepted() -> bool:
        accepted, refused = await send_all([site.send(admin, request)])
        assert {each.reason for each in refused} <= {"RATE_LIMITED"}
        answers.extend(accepted)
        return bool(accepted)

    await until_equal(True, is_accepted)
    assert answers[0].broadcast.create_time.ToDatetime(UTC) >= reset_time - timedelta(seconds=1)
    assert await site.send(admin, request) == answers[0]
    assert await counted(site, user_id) == 26


async def test_last_one_is_given_to_one_of_those_who_repeat_it(site: Site) -> None:
    """Twenty calls with one id meet when one is left: all of them are answered with the same broadcast."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *[MINUTE + timedelta(seconds=n) for n in range(24)])
    with armed("sender.send.before_commit=delay:0.05"):
        request = a_send(request_id=str(uuid4()))
        answers = await asyncio.gather(*(persist(site.stub, admin, request) for _ in range(20)))
    assert len({each.SerializeToString() for each in answers}) == 1
    assert answers[0].quota.hour_remaining == 0
    assert await counted(site, user_id) == 25


async def test_one_id_for_two_limits_counts_once(site: Site) -> None:
    """Sends of two types meet under one id: one is accepted and counted, of the other nothing is left."""
    user_id, admin = site.person("admin")
    for _ in range(5):
        before, request_id = await counted(site, user_id), str(uuid4())
        with armed("sender.send.before_commit=delay:0.05"):
            answers, refusals = await send_all(
                site.send(admin, a_send(request_id=request_id, type=each))
                for each in ("feature.released", "trial.ending", "tier.upgraded")
            )
        assert (len(answers), {each.reason for each in refusals}) == (1, {"REQUEST_ID_REUSED"})
        assert await counted(site, user_id) == before + 1


async def test_service_accounts_have_the_quota_that_is_configured(site: ServingSite) -> None:
    """So that billing can bill: by account, type and priority; what is not named has the quota to begin with."""
    name = f"billing-{uuid4()}"
    await site.restart(SENDER_SERVICE_QUOTAS=f"{name}:payment.required/high=3,3; {name}:*=2,40")
    billing = site.service("broadcast.send", name=name)
    assert len(await use_up(site, billing, type="payment.required")) == 3
    assert len(await use_up(site, billing, type="trial.ending")) == 2
    refusal = await refusal_of(site.send(billing, a_send(type="payment.required")))
    assert "3 in any hour and 3 in any 24 hours" in refusal.message
    left = await quota(site, site.service("broadcast.send", name="forms"), type="form.locked")
    assert (left.hour_limit, left.day_limit) == (500, 2000)


@pytest.mark.parametrize(
    ("role", "fields", "code", "reason"),
    [
        ("couple", {}, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
        ("coordinator", {}, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
        (
            "coordinator",
            {"type": "timeline.changed", "wedding_id": "foreign"},
            grpc.StatusCode.PERMISSION_DENIED,
            "OUTSIDE_REACH",
        ),
        (
            "coordinator",
            {"type": "timeline.changed", "wedding_id": "none"},
            grpc.StatusCode.PERMISSION_DENIED,
            "OUTSIDE_REACH",
        ),
        (
            "admin",
            {"type": "timeline.changed", "wedding_id": "none"},
            grpc.StatusCode.NOT_FOUND,
            "NOT_FOUND",
        ),
    ],
)
async def test_quota_is_for_those_who_may_send(
    site: Site, role: str, fields: dict[str, str], code: grpc.StatusCode, reason: str
) -> None:
    """Who may not send this learns nothing of it, and not whether a wedding exists."""
    _, caller = site.person(role)
    if "wedding_id" in fields:
        named = {"foreign": site.wedding(), "none": str(uuid4())}[fields["wedding_id"]]
        fields = fields | {"wedding_id": named}
    refusal = await refusal_of(quota(site, caller, **fields))
    assert (refusal.code, refusal.reason) == (code, reason)


async def test_coordinator_asks_for_their_weddings(site: Site) -> None:
    """Of one of theirs, and of what is sent to the teams of several."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    left = await quota(site, coordinator, type="timeline.changed", wedding_id=wedding_id.upper())
    assert left.hour_remaining == 10
    assert (await quota(site, coordinator, type="form.locked")).hour_remaining == 25


async def test_service_account_asks_for_types_of_its_scope(site: Site) -> None:
    """As it sends."""
    billing = site.service("broadcast.send:payment.required", name="invoices")
    assert (await quota(site, billing, type="payment.required")).hour_limit == 200
    assert (await refusal_of(quota(site, billing, type="trial.ending"))).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"type": ""}, {"type"}),
        ({"type": "wedding.party"}, {"type"}),
        ({"type": "feature.released", "priority": CRITICAL}, {"priority"}),
        ({"type": "timeline.changed"}, {"wedding_id"}),
        ({"type": "feature.released", "wedding_id": "here"}, {"wedding_id"}),
        ({"type": "timeline.changed", "priority": 9}, {"priority", "wedding_id"}),
    ],
)
async def test_bad_question_for_a_quota_names_its_fields(
    site: Site, fields: dict[str, object], broken: set[str]
) -> None:
    """The rules of a send, as far as they are asked for."""
    _, admin = site.person("admin")
    refusal = await refusal_of(quota(site, admin, **fields))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(refusal.fields) == broken


async def test_who_lost_the_right_is_told_no_more_than_before(site: Site) -> None:
    """A refusal for the limit may still be that, for it is the sender's own; anything else is denied."""
    user_id, admin = site.person("admin")
    await use_up(site, admin)
    site.neighbours.preferences.people[user_id] = "couple"
    told = await refusal_of(site.send(admin))
    assert (told.reason, told.metadata["hour_remaining"]) == ("RATE_LIMITED", "0")
    for fields in ({"type": "trial.ending"}, {"priority": LOW}):
        assert (await refusal_of(site.send(admin, a_send(**fields)))).reason == "PERMISSION_DENIED"
    assert (await refusal_of(site.send(site.person("couple")[1]))).reason == "PERMISSION_DENIED"
