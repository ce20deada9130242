"""ApproveBroadcast and RejectBroadcast: what waits for another admin, who may decide, and what follows, once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, sender_pb2

from services.sender.config import Settings
from shared.failpoints import armed
from shared.settings import Environment
from stack.provision import SuiteDatabase
from tests.integration.sender.neighbours import Neighbours
from tests.integration.sender.site import Servers, ServingSite, Site, a_send, ahead, serving_site
from tests.integration.sender.waiting import (
    PENDING,
    REFUSED,
    REJECTED,
    WAITS,
    alarm,
    approve,
    cancel,
    reject,
    shown,
    timers,
    waiting,
)
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until, until_equal

THRESHOLD = 3


@pytest.fixture
async def site(
    tmp_path: Path, sender_database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ServingSite]:
    """A sender whose broadcasts to more than three people wait."""
    async with serving_site(tmp_path, sender_database, servers, beside) as running:
        await running.restart(SENDER_APPROVAL_THRESHOLD=str(THRESHOLD))
        yield running


def test_threshold_is_fifty_thousand_unless_said_otherwise(site: ServingSite) -> None:
    """And can be anything from 0 on."""
    assert Settings.read(Environment(site.environment)).approval_threshold == 50_000


async def test_threshold_itself_does_not_wait(site: Site) -> None:
    """Three people are as many as may be, four are more; the answer says which it is, also before anything is sent."""
    _, admin = site.person("admin")
    for _ in range(THRESHOLD):
        site.person("florist")
    to_three = a_send(targeting={"roles": ["florist"]})
    assert (await site.send(admin, to_three)).broadcast.state == PENDING
    to_four = a_send(validate_only=True)
    assert (await site.send(admin, to_four)).broadcast.state == WAITS
    answer = await site.send(admin, a_send())
    assert (answer.broadcast.state, answer.targeted_users) == (WAITS, THRESHOLD + 1)


async def test_emergency_of_a_wedding_does_not_wait(site: Site) -> None:
    """A critical one does, whoever sends it and however few it is for, unless it is about a wedding."""
    user_id, admin = site.person("admin")
    assert (await site.send(admin, alarm(targeting={"user_ids": [user_id]}))).broadcast.state == WAITS
    service = site.service("broadcast.send")
    assert (await site.send(service, alarm(targeting={"user_ids": [user_id]}))).broadcast.state == WAITS
    wedding_id = site.wedding(user_id)
    emergency = alarm(type="wedding.emergency", wedding_id=wedding_id, targeting={})
    assert (await site.send(admin, emergency)).broadcast.state == PENDING


async def test_nothing_goes_out_before_it_is_approved(site: Site) -> None:
    """It is not announced, whoever asks for its order is refused, and everybody who sees it sees that it waits."""
    _, admin = site.person("admin")
    with capture_logs() as logs:
        broadcast_id = await waiting(site, admin)
    (accepted,) = (line for line in logs if line["event"] == "broadcast_accepted")
    assert accepted["awaits_approval"] is True
    assert await timers(site, broadcast_id) == 0
    assert (await refusal_of(site.plan(broadcast_id))).reason == "ILLEGAL_STATE"
    marker = await site.send(admin, a_send(targeting={"roles": ["nobody"]}))
    await until(lambda: bool(site.lanes.of(marker.broadcast.broadcast_id)))
    assert site.lanes.of(broadcast_id) == []
    seen = await shown(site, admin, broadcast_id)
    assert (seen.state, seen.decided_by, seen.HasField("decided_at")) == (WAITS, "", False)


async def test_approved_broadcast_goes_out_at_once(site: Site) -> None:
    """On the lane of its priority; who has approved it is on record, and not in a log."""
    _, author = site.person("admin")
    approver_id, approver = site.person("admin")
    broadcast_id = await waiting(site, author)
    with capture_logs() as logs:
        answer = (await approve(site, approver, broadcast_id, reason="Seen by legal.")).broadcast
    assert (answer.state, answer.decided_by, answer.decision_reason) == (
        PENDING,
        approver_id,
        "Seen by legal.",
    )
    assert answer.HasField("decided_at")
    await until(lambda: bool(site.lanes.of(broadcast_id)))
    (announced,) = site.lanes.of(broadcast_id)
    assert (announced.subject, announced.epoch) == ("broadcast.due.critical", 1)
    order = await site.plan(broadcast_id)
    assert announced.order is not None
    assert announced.order.targeting == order.targeting
    assert (await shown(site, author, broadcast_id)).decided_by == approver_id
    (line,) = (line for line in logs if line["event"] == "broadcast_approved")
    assert (line["broadcast_id"], line["priority"]) == (broadcast_id, "critical")
    assert approver_id not in str(logs)
    assert "legal" not in str(logs)


async def test_rejected_broadcast_reaches_nobody(site: Site) -> None:
    """Its sender is told why, and it is over: nobody can approve or cancel it any more."""
    _, author = site.person("admin")
    approver_id, approver = site.person("admin")
    broadcast_id = await waiting(site, author, expires_at=ahead(hours=1))
    with capture_logs() as logs:
        answer = (await reject(site, approver, broadcast_id, reason="Too loud.")).broadcast
    assert (answer.state, answer.decided_by, answer.decision_reason) == (REJECTED, approver_id, "Too loud.")
    assert (await shown(site, author, broadcast_id)).decision_reason == "Too loud."
    assert [line["broadcast_id"] for line in logs if line["event"] == "broadcast_rejected"] == [broadcast_id]
    assert await timers(site, broadcast_id) == 0
    _, another = site.person("admin")
    for late in (
        approve(site, approver, broadcast_id),
        approve(site, another, broadcast_id),
        cancel(site, author, broadcast_id),
        site.plan(broadcast_id),
    ):
        refusal = await refusal_of(late)
        assert (refusal.code, refusal.reason) == REFUSED


async def test_nobody_decides_about_their_own(site: Site) -> None:
    """PERMISSION_DENIED that says so, and it still waits."""
    _, author = site.person("admin")
    broadcast_id = await waiting(site, author)
    for own in (approve(site, author, broadcast_id), reject(site, author, broadcast_id)):
        refusal = await refusal_of(own)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        assert refusal.message == "Nobody decides about their own broadcast: another admin must."
    assert await site.state(broadcast_id) == "awaiting_approval"


async def test_only_admins_decide(site: Site) -> None:
    """As the directory has it at the call: no coordinator, no service account, and no admin of yesterday."""
    broadcast_id = await waiting(site, site.service("broadcast.send"))
    yesterday, former = site.person("admin")
    site.neighbours.preferences.people[yesterday] = "coordinator"
    everything = site.service("broadcast.send", "broadcast.read", "dispatch.operate", "internal", name="all")
    for caller in (site.person("coordinator")[1], site.person("couple")[1], former, everything):
        for decision in (approve(site, caller, broadcast_id), reject(site, caller, broadcast_id)):
            assert (await refusal_of(decision)).code is grpc.StatusCode.PERMISSION_DENIED
    assert await site.state(broadcast_id) == "awaiting_approval"
    assert (await approve(site, site.person("admin")[1], broadcast_id)).broadcast.state == PENDING


async def test_what_does_not_wait_cannot_be_decided(site: Site) -> None:
    """Whether it never did, or has gone, or is cancelled; what does not exist is not found."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    pending = (await site.send(author, a_send(scheduled_for=ahead(hours=1)))).broadcast.broadcast_id
    gone = (await site.send(author)).broadcast.broadcast_id
    await site.plan(gone)
    cancelled = await waiting(site, author)
    await cancel(site, author, cancelled)
    for broadcast_id, state in ((pending, "pending"), (gone, "dispatching"), (cancelled, "cancelled")):
        for decision in (approve(site, approver, broadcast_id), reject(site, approver, broadcast_id)):
            refusal = await refusal_of(decision)
            assert (refusal.code, refusal.reason) == REFUSED
            assert refusal.message == f"The broadcast is {state}: it does not wait for approval."
    unknown = await refusal_of(approve(site, approver, str(uuid4())))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_broken_fields_are_named(site: Site) -> None:
    """All of them at once, of both calls."""
    _, approver = site.person("admin")
    wrong = {"broadcast_id": "1", "request_id": "2", "reason": "x" * 501}
    for decision in (approve(site, approver, **wrong), reject(site, approver, **wrong)):  # type: ignore[arg-type]
        refusal = await refusal_of(decision)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refusal.fields) == {"broadcast_id", "request_id", "reason"}


@pytest.mark.parametrize("turn", range(4))
async def test_two_admins_at_once_are_one_decision(site: Site, turn: int) -> None:
    """One approves, another rejects: one of them is told that it was decided, and what the other said is what holds."""
    _, author = site.person("admin")
    deciders = [site.person("admin") for _ in range(4)]
    broadcast_id = await waiting(site, author)
    with armed("sender.decide.before_commit=delay:0.05"):
        calls = [
            (approve if (place + turn) % 2 else reject)(site, metadata, broadcast_id)
            for place, (_, metadata) in enumerate(deciders)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    (winner,) = (place for place, each in enumerate(answers) if not isinstance(each, BaseException))
    lost = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {each.code() for each in lost} == {grpc.StatusCode.FAILED_PRECONDITION}
    seen = await shown(site, author, broadcast_id)
    assert seen.decided_by == deciders[winner][0]
    assert seen.state == (PENDING if (winner + turn) % 2 else REJECTED)
    assert await timers(site, broadcast_id) == (winner + turn) % 2


async def test_approval_is_repeated_without_harm(site: Site) -> None:
    """With its request_id, whatever has changed since; and without one, as long as it is the same person's."""
    _, author = site.person("admin")
    approver_id, approver = site.person("admin")
    broadcast_id, request_id = await waiting(site, author), str(uuid4())
    first = await approve(site, approver, broadcast_id, request_id=request_id)
    again = await approve(site, approver, broadcast_id)
    assert again.broadcast == first.broadcast
    await site.plan(broadcast_id)
    later = await approve(site, approver, broadcast_id)
    assert later.broadcast.state == common_pb2.BROADCAST_STATE_DISPATCHING
    site.neighbours.preferences.people[approver_id] = "couple"
    assert await approve(site, approver, broadcast_id, request_id=request_id) == first
    other = await refusal_of(approve(site, approver, broadcast_id, request_id=request_id, reason="other"))
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_rejection_is_repeated_without_harm(site: Site) -> None:
    """The first reason stands, and the id of a rejection is free for an approval of something else."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    rejected, approved, request_id = await waiting(site, author), await waiting(site, author), str(uuid4())
    first = await reject(site, approver, rejected, reason="No.", request_id=request_id)
    assert await reject(site, approver, rejected, reason="No.", request_id=request_id) == first
    assert (await reject(site, approver, rejected, reason="Never.")).broadcast == first.broadcast
    assert (await approve(site, approver, approved, request_id=request_id)).broadcast.state == PENDING


async def test_senders_right_is_asked_for_again_at_dispatch(site: Site) -> None:
    """An approval does not make up for a right that its sender has lost."""
    author_id, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author)
    await approve(site, approver, broadcast_id)
    site.neighbours.preferences.people[author_id] = "florist"
    assert (await refusal_of(site.plan(broadcast_id))).reason == "SENDER_LOST_RIGHT"
    assert await site.state(broadcast_id) == "failed"


async def test_watcher_sees_it_wait_and_go(site: Site) -> None:
    """The stream goes on while it waits, and tells of the decision without a pause."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author)
    request = sender_pb2.WatchBroadcastRequest(broadcast_id=broadcast_id)
    told = aiter(site.stub.WatchBroadcast(request, metadata=author))
    assert (await anext(told)).state == WAITS
    await reject(site, approver, broadcast_id)
    assert [progress.state async for progress in told] == [REJECTED]


async def test_decision_that_fails_before_its_commit_was_none(site: Site) -> None:
    """And its repetition is the first."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author)
    with armed("sender.decide.before_commit=error@1") as plan:
        assert (await refusal_of(approve(site, approver, broadcast_id))).code is grpc.StatusCode.INTERNAL
        assert await site.state(broadcast_id) == "awaiting_approval"
        await approve(site, approver, broadcast_id)
    assert plan.hits["sender.decide.before_commit"] == 2
    await until_equal(1, lambda: timers(site, broadcast_id))
