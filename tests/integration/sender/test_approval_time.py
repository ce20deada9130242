"""What waits for approval while time passes: its schedule, its expiry, and the sender who takes it back meanwhile."""

import asyncio
from datetime import UTC, datetime

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2

from tests.integration.sender.site import Site, ahead
from tests.integration.sender.waiting import (
    CANCELLED,
    PENDING,
    REFUSED,
    approve,
    cancel,
    reject,
    shown,
    timers,
    waiting,
)
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until


async def test_approved_broadcast_keeps_its_schedule(site: Site) -> None:
    """It is due when it was to be, and at once when that has passed while it waited."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    later, passed = [await waiting(site, author, scheduled_for=ahead(hours=1)) for _ in range(2)]
    await site.admin.execute(
        """
        UPDATE sender.broadcasts
        SET created_at = created_at - interval '2 hours', scheduled_for = scheduled_for - interval '2 hours'
        WHERE broadcast_id = $1
        """,
        passed,
    )
    for broadcast_id in (later, passed):
        assert (await approve(site, approver, broadcast_id)).broadcast.state == PENDING
    await until(lambda: bool(site.lanes.of(passed)))
    assert site.lanes.of(later) == []
    query = """
        SELECT outbox.due_at = broadcasts.scheduled_for
        FROM sender.outbox JOIN sender.broadcasts ON outbox.key = broadcasts.broadcast_id::text
        WHERE broadcasts.broadcast_id = $1
        """
    assert await site.admin.fetchval(query, later)


async def test_what_nobody_decides_about_in_time_expires(site: Site) -> None:
    """Its timer announces it when its time has run out, and the dispatcher that asks for its order ends it."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author, expires_at=ahead(seconds=2))
    assert await timers(site, broadcast_id) == 1
    assert site.lanes.of(broadcast_id) == []
    await until(lambda: bool(site.lanes.of(broadcast_id)))
    assert (await refusal_of(site.plan(broadcast_id))).message == "The broadcast has expired."
    assert await site.state(broadcast_id) == "expired"
    assert await timers(site, broadcast_id) == 0
    assert (await refusal_of(approve(site, approver, broadcast_id))).reason == "ILLEGAL_STATE"


@pytest.mark.parametrize("decision", [approve, reject])
async def test_decision_comes_too_late_when_it_has_expired(site: Site, decision: object) -> None:
    """Also before its timer has ended it: it is said that it has expired, and it is."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author, expires_at=ahead(seconds=2))
    expires_at = (await shown(site, author, broadcast_id)).expires_at.ToDatetime(UTC)
    await until(lambda: datetime.now(UTC) > expires_at)
    refusal = await refusal_of(decision(site, approver, broadcast_id))  # type: ignore[operator]
    assert (refusal.code, refusal.reason) == REFUSED
    assert refusal.message == "The broadcast has expired while it waited for approval."
    assert await site.state(broadcast_id) == "expired"
    assert await timers(site, broadcast_id) == 0


async def test_approval_in_time_makes_the_timer_an_announcement(site: Site) -> None:
    """It is announced now and not when it expires."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author, expires_at=ahead(hours=1))
    await approve(site, approver, broadcast_id)
    await until(lambda: bool(site.lanes.of(broadcast_id)))
    assert (await site.plan(broadcast_id)).state == common_pb2.BROADCAST_STATE_DISPATCHING


async def test_sender_takes_back_what_waits(site: Site) -> None:
    """All who were meant are counted as stopped, and nobody can approve it any more."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author, expires_at=ahead(hours=1))
    answer = await cancel(site, author, broadcast_id)
    assert (answer.broadcast.state, answer.stopped, answer.already_sent) == (CANCELLED, 2, 0)
    assert await timers(site, broadcast_id) == 0
    assert (await refusal_of(approve(site, approver, broadcast_id))).reason == "ILLEGAL_STATE"


async def test_what_is_being_cancelled_cannot_be_approved(site: Site) -> None:
    """The cancel was noted and could not be confirmed yet: from then on it goes nowhere."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    broadcast_id = await waiting(site, author)
    site.neighbours.inbox.is_down = True
    assert (await refusal_of(cancel(site, author, broadcast_id))).code is grpc.StatusCode.UNAVAILABLE
    refusal = await refusal_of(approve(site, approver, broadcast_id))
    assert (refusal.reason, refusal.message) == ("ILLEGAL_STATE", "The broadcast is being cancelled.")
    site.neighbours.inbox.is_down = False
    assert (await cancel(site, author, broadcast_id)).broadcast.state == CANCELLED


async def test_approval_and_cancel_at_once_end_cancelled(site: Site) -> None:
    """Whoever is first: nothing is left to be announced."""
    _, author = site.person("admin")
    _, approver = site.person("admin")
    for _ in range(5):
        broadcast_id = await waiting(site, author)
        await asyncio.gather(
            approve(site, approver, broadcast_id), cancel(site, author, broadcast_id), return_exceptions=True
        )
        assert await site.state(broadcast_id) == "cancelled"
        assert await timers(site, broadcast_id) == 0
