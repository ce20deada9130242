"""SendBroadcast through a real channel: what is accepted, what is refused, and what each caller is told."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, sender_pb2

from tests.integration.sender.site import Metadata, ServingSite, Site, a_send, ahead
from tests.integration.shared.edge import Refusal, read_refusal, refusal_of
from tests.integration.shared.polling import until, until_equal

PENDING = common_pb2.BROADCAST_STATE_PENDING


async def refused(site: Site, caller: Metadata, **fields: object) -> Refusal:
    """The refusal of a send; nothing may be left of it."""
    before = await site.count("broadcasts"), await site.count("outbox"), await site.count("requests")
    refusal = await refusal_of(site.send(caller, a_send(**fields)))
    assert before == (
        await site.count("broadcasts"),
        await site.count("outbox"),
        await site.count("requests"),
    )
    return refusal


async def test_admin_sends_to_everyone(site: Site) -> None:
    """The answer says what was accepted, with all that follows from it, and how many are meant."""
    user_id, admin = site.person("admin")
    site.person("florist")
    with capture_logs() as logs:
        answer = await site.send(
            admin, a_send(action={"label": "Look", "url": "/plans"}, expires_at=ahead(days=1))
        )
    broadcast = answer.broadcast
    assert (answer.targeted_users, answer.unknown_user_ids) == (2, 0)
    assert (broadcast.type, broadcast.category) == ("feature.released", common_pb2.CATEGORY_SYSTEM)
    assert (broadcast.priority, broadcast.state) == (common_pb2.PRIORITY_NORMAL, PENDING)
    assert (broadcast.title, broadcast.message) == ("New seating plans", "Try them.")
    assert (broadcast.action.label, broadcast.action.url) == ("Look", "/plans")
    assert broadcast.targeting.everyone
    assert broadcast.created_by == user_id
    assert broadcast.scheduled_for == broadcast.create_time
    assert not broadcast.HasField("wedding")
    assert not broadcast.HasField("sent_at")
    (accepted,) = (line for line in logs if line["event"] == "broadcast_accepted")
    assert (accepted["broadcast_id"], accepted["targeted"]) == (broadcast.broadcast_id, 2)
    assert not any(line["event"] == "critical_broadcast_accepted" for line in logs)


async def test_what_is_kept_is_what_was_asked(site: Site) -> None:
    """Every field of a send comes back from GetBroadcast, ids in lower case and values once."""
    user_id, admin = site.person("admin")
    wedding_id = site.wedding(user_id)
    asked = a_send(
        type="timeline.changed",
        title="Ceremony at 3 💐",
        message="An hour\n\tearlier.",
        priority=common_pb2.PRIORITY_LOW,
        action={"label": "Open", "url": "https://wedsync.example/w?a=1#b"},
        targeting={
            "user_ids": [user_id.upper(), user_id],
            "roles": ["florist", "florist"],
            "tiers": ["free"],
            "wedding_ids": [wedding_id],
        },
        wedding_id=wedding_id.upper(),
        scheduled_for=ahead(days=30),
        expires_at=ahead(days=31),
    )
    accepted = (await site.send(admin, asked)).broadcast
    request = sender_pb2.GetBroadcastRequest(broadcast_id=accepted.broadcast_id)
    kept = (await site.stub.GetBroadcast(request, metadata=admin)).broadcast
    assert kept == accepted
    assert list(kept.targeting.user_ids) == [user_id]
    assert list(kept.targeting.roles) == ["florist"]
    assert (kept.scheduled_for.seconds, kept.expires_at.seconds) == (
        asked.scheduled_for.seconds,
        asked.expires_at.seconds,
    )


async def test_couple_and_date_come_from_the_directory(site: Site) -> None:
    """Whatever the caller might think they are."""
    user_id, admin = site.person("admin")
    wedding_id = site.wedding(user_id)
    wedding = (await site.send(admin, a_send(wedding_id=wedding_id, targeting={}))).broadcast.wedding
    assert (wedding.wedding_id, wedding.couple_name) == (wedding_id, "Amara & Jonas")
    assert (wedding.wedding_date.year, wedding.wedding_date.month, wedding.wedding_date.day) == (2027, 6, 5)


async def test_coordinator_sends_to_own_team(site: Site) -> None:
    """The wall is the team, and essential types are high."""
    user_id, coordinator = site.person("coordinator")
    florist, _ = site.person("florist")
    site.person("florist")
    wedding_id = site.wedding(user_id, florist)
    answer = await site.send(
        coordinator, a_send(type="timeline.changed", wedding_id=wedding_id, targeting={"roles": ["florist"]})
    )
    assert answer.targeted_users == 1
    assert answer.broadcast.priority == common_pb2.PRIORITY_HIGH


async def test_critical_send_is_told_apart(site: Site) -> None:
    """Auditors find it by its own event, operators by the usual one, and nobody's id or text is in either."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    with capture_logs() as logs:
        await site.send(
            coordinator,
            a_send(
                type="wedding.emergency",
                wedding_id=wedding_id,
                targeting={},
                priority=common_pb2.PRIORITY_CRITICAL,
            ),
        )
    lines = [line for line in logs if line["event"].endswith("broadcast_accepted")]
    assert [line["event"] for line in lines] == ["broadcast_accepted", "critical_broadcast_accepted"]
    assert user_id not in str(lines)
    assert "New seating plans" not in str(lines)


async def test_service_account_sends_its_types(site: Site) -> None:
    """In its own name, within its list."""
    site.person("couple")
    billing = site.service("broadcast.send:payment.required,trial.ending")
    answer = await site.send(billing, a_send(type="payment.required"))
    assert answer.broadcast.created_by == "billing"
    refusal = await refused(site, billing, type="feature.released")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_targeting_that_matches_nobody_is_accepted(site: Site) -> None:
    """Targeted 0, and the unknown user is counted."""
    _, admin = site.person("admin")
    answer = await site.send(admin, a_send(targeting={"user_ids": [str(uuid4())]}))
    assert (answer.targeted_users, answer.unknown_user_ids) == (0, 1)


async def test_validate_only_keeps_nothing(site: Site) -> None:
    """It answers as the send would, without an id; and its request_id stays free."""
    _, admin = site.person("admin")
    request_id = str(uuid4())
    before = await site.count("broadcasts"), await site.count("outbox"), await site.count("requests")
    tried = await site.send(admin, a_send(validate_only=True, request_id=request_id))
    assert before == (
        await site.count("broadcasts"),
        await site.count("outbox"),
        await site.count("requests"),
    )
    assert (tried.broadcast.broadcast_id, tried.targeted_users) == ("", 1)
    assert (await site.send(admin, a_send(request_id=request_id))).broadcast.broadcast_id


@pytest.mark.parametrize("role", ["couple", "photographer", ""])
async def test_ordinary_people_are_refused_before_anything_is_read(site: Site, role: str) -> None:
    """They learn nothing of what is wrong with the request."""
    _, person = site.person(role)
    refusal = await refused(site, person, type="no.such.type", title="")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert refusal.fields == ()


async def test_stranger_is_refused(site: Site) -> None:
    """A person whom the directory does not know."""
    assert (await refused(site, site.as_person(str(uuid4())))).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize("scope", ["internal", "broadcast.read", "inbox.connect"])
async def test_other_scopes_do_not_send(site: Site, scope: str) -> None:
    """Each scope is for its own."""
    assert (await refused(site, site.service(scope))).code is grpc.StatusCode.PERMISSION_DENIED


async def test_no_token_is_unauthenticated(site: Site) -> None:
    """First of all."""
    assert (await refused(site, ())).code is grpc.StatusCode.UNAUTHENTICATED


async def test_every_broken_field_is_told_at_once(site: Site) -> None:
    """Those that break the contract's own rules and those that break the sender's, each once."""
    _, admin = site.person("admin")
    refusal = await refused(
        site,
        admin,
        type="wedding.cancelled",
        title="x" * 201,
        message="a\0b",
        action={"label": "", "url": "//example.org"},
        targeting={"everyone": True, "roles": ["Not A Slug"], "user_ids": ["nobody"]},
        scheduled_for=ahead(days=400),
        expires_at=ahead(days=-1),
        escalation={},
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert sorted(refusal.fields) == [
        "action.label",
        "action.url",
        "escalation",
        "expires_at",
        "message",
        "scheduled_for",
        "targeting.everyone",
        "targeting.roles[0]",
        "targeting.user_ids[0]",
        "title",
        "wedding_id",
    ]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("type", {"type": "no.such.type"}),
        ("type", {"type": ""}),
        ("targeting", {"targeting": {}}),
        ("priority", {"priority": common_pb2.PRIORITY_CRITICAL}),
        ("wedding_id", {"type": "coordinator.handoff"}),
        ("wedding_id", {"wedding_id": "1"}),
        ("request_id", {"request_id": "again"}),
        ("action.url", {"action": {"label": "Open", "url": "https://me@example.org"}}),
        ("scheduled_for", {"scheduled_for": Timestamp(seconds=2**62)}),
        ("expires_at", {"expires_at": Timestamp(seconds=1)}),
    ],
)
async def test_broken_field_is_named(site: Site, field: str, fields: dict[str, object]) -> None:
    """One at a time."""
    _, admin = site.person("admin")
    refusal = await refused(site, admin, **fields)
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))


async def test_a_thousand_and_one_users_are_too_many(site: Site) -> None:
    """And a thousand are not."""
    _, admin = site.person("admin")
    many = [str(uuid4()) for _ in range(1001)]
    refusal = await refused(site, admin, targeting={"user_ids": many})
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
    answer = await site.send(admin, a_send(targeting={"user_ids": many[1:]}))
    assert (answer.targeted_users, answer.unknown_user_ids) == (0, 1000)


@pytest.mark.parametrize("exists", [True, False])
async def test_wedding_beyond_reach_looks_the_same_whether_it_exists(site: Site, exists: bool) -> None:
    """A coordinator learns nothing of other weddings, and an operator sees that somebody tried."""
    user_id, coordinator = site.person("coordinator")
    own = site.wedding(user_id)
    other = site.wedding() if exists else str(uuid4())
    with capture_logs() as logs:
        refusal = await refused(
            site, coordinator, type="form.locked", targeting={"wedding_ids": [own, other]}
        )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OUTSIDE_REACH")
    assert refusal.message == "The request names a wedding or segment outside the caller's reach."
    assert sum(line["event"] == "wall_refused" for line in logs) == 1


async def test_coordinator_sends_neither_system_types_nor_without_a_wedding(site: Site) -> None:
    """Both are refused as such, not as out of reach."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    for fields in ({"wedding_id": wedding_id, "targeting": {}}, {"type": "form.locked"}):
        refusal = await refused(site, coordinator, **fields)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_admin_is_told_what_does_not_exist(site: Site) -> None:
    """A wedding or a segment."""
    _, admin = site.person("admin")
    for fields in (
        {"wedding_id": str(uuid4()), "targeting": {}},
        {"targeting": {"wedding_ids": [str(uuid4())]}},
        {"targeting": {"segment_ids": [str(uuid4())]}},
    ):
        refusal = await refused(site, admin, **fields)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_directory_that_is_down_is_told(site: Site) -> None:
    """Nothing is accepted of which nobody knows whom it means."""
    _, admin = site.person("admin")
    site.neighbours.preferences.is_down = True
    for caller in (admin, site.service("broadcast.send")):
        refusal = await refused(site, caller)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
        assert refusal.retry_after_s is not None


async def test_due_broadcast_is_announced_at_once(site: Site) -> None:
    """On the lane of its priority, under an id of its own, while a scheduled one waits."""
    _, admin = site.person("admin")
    later = (await site.send(admin, a_send(scheduled_for=ahead(hours=1)))).broadcast.broadcast_id
    just_past = a_send(scheduled_for=ahead(seconds=-30), priority=common_pb2.PRIORITY_LOW)
    now = (await site.send(admin, just_past)).broadcast
    await until(lambda: bool(site.lanes.of(now.broadcast_id)))
    (heard,) = site.lanes.of(now.broadcast_id)
    assert (heard.subject, heard.epoch) == ("broadcast.due.low", 1)
    assert heard.message_id == f"{now.broadcast_id}:1"
    assert now.scheduled_for == now.create_time
    assert site.lanes.of(later) == []
    assert await site.outbox(later) == ("pending", 0)


async def test_scheduled_broadcast_is_announced_when_it_is_due(site: Site) -> None:
    """The outbox is the scheduler."""
    _, admin = site.person("admin")
    broadcast = (await site.send(admin, a_send(scheduled_for=ahead(seconds=0.5)))).broadcast
    await until(lambda: bool(site.lanes.of(broadcast.broadcast_id)))
    assert datetime.now(UTC) >= broadcast.scheduled_for.ToDatetime(UTC)


async def test_announcement_without_a_result_is_repeated(site: ServingSite) -> None:
    """Under a new id, when its lease has ended."""
    await site.restart(SENDER_RELAY_LEASE_S="1")
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    await until(lambda: len(site.lanes.of(broadcast_id)) >= 2)
    first, second = site.lanes.of(broadcast_id)[:2]
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.message_id != second.message_id


async def test_many_sends_at_once_are_all_kept(site: Site) -> None:
    """Each a broadcast of its own, each announced."""
    admins = [site.person("admin")[1] for _ in range(10)]
    answers = await asyncio.gather(*(site.send(admin) for admin in 5 * admins))
    ids = {answer.broadcast.broadcast_id for answer in answers}
    assert len(ids) == 50
    await until(lambda: ids <= {each.broadcast_id for each in site.lanes.heard})


async def test_sends_are_refused_while_too_much_waits_to_be_delivered(site: ServingSite) -> None:
    """Past the limit of its priority a send is told to come again; what is urgent, for later, or repeated is not."""
    _, admin = site.person("admin")
    waiting = "SELECT count(*) FROM sender.outbox WHERE rank = 3 AND state IN ('pending', 'published')"
    limit = await site.admin.fetchval(waiting) + 3
    await site.restart(SENDER_BACKLOG_LOW=str(limit))
    low = common_pb2.PRIORITY_LOW
    first = a_send(priority=low, request_id=str(uuid4()))
    answered = await site.send(admin, first)

    refusals: list[Refusal] = []

    async def is_refused() -> bool:
        try:
            await site.send(admin, a_send(priority=low))
        except grpc.aio.AioRpcError as error:
            refusals.append(read_refusal(error))
        return bool(refusals)

    await until_equal(True, is_refused)
    (told,) = refusals
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert (told.retry_after_s, told.metadata) == (2.0, {"priority": "low"})
    assert await site.send(admin, first) == answered
    await site.send(admin, a_send(priority=low, scheduled_for=ahead(hours=1)))
    await site.send(admin, a_send(priority=common_pb2.PRIORITY_NORMAL))
    await site.send(admin, a_send(type="security.alert", priority=common_pb2.PRIORITY_CRITICAL))
    await site.send(admin, a_send(priority=low, validate_only=True))


async def test_sends_go_on_when_what_waited_is_delivered(site: ServingSite) -> None:
    """As soon as dispatchers have caught up there is room again."""
    _, admin = site.person("admin")
    low = common_pb2.PRIORITY_LOW
    await site.admin.execute(
        "UPDATE sender.outbox SET state = 'cancelled', lease_until = NULL WHERE rank = 3"
    )
    await site.restart(SENDER_BACKLOG_LOW="2")
    sent: list[str] = []

    async def is_refused() -> bool:
        try:
            sent.append((await site.send(admin, a_send(priority=low))).broadcast.broadcast_id)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return False

    await until_equal(True, is_refused)
    for broadcast_id in sent:
        await site.plan(broadcast_id)
        await site.report(broadcast_id, "sent")

    await until_equal(False, is_refused)
