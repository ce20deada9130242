"""What dispatchers report on NATS moves a broadcast, once, however often and in whatever order it comes."""

import asyncio
from uuid import uuid4

import pytest

from shared import subjects
from shared.failpoints import armed
from tests.integration.sender.site import Site
from tests.integration.shared.polling import until, until_equal


async def dispatching(site: Site) -> str:
    """The id of a broadcast that is under way."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    await site.plan(broadcast_id)
    return broadcast_id


async def until_state(site: Site, broadcast_id: str, state: str) -> None:
    """Wait for a state."""
    await until_equal(state, lambda: site.state(broadcast_id))


async def test_sent_ends_the_broadcast_and_its_outbox_row(site: Site) -> None:
    """With the time at which the dispatcher closed the ledger, and nothing is announced again."""
    broadcast_id = await dispatching(site)
    await site.report(broadcast_id, "sent")
    await until_state(site, broadcast_id, "sent")
    assert (await site.outbox(broadcast_id))[0] == "done"
    query = "SELECT sent_at > created_at AND sent_at < now() FROM sender.broadcasts WHERE broadcast_id = $1"
    assert await site.admin.fetchval(query, broadcast_id)


@pytest.mark.parametrize(
    ("reported", "error"), [("failed", "NOT_FOUND: no such wedding."), ("failed", ""), ("expired", "")]
)
async def test_other_ends_are_kept_with_their_reason(site: Site, reported: str, error: str) -> None:
    """A failure always has one."""
    broadcast_id = await dispatching(site)
    await site.report(broadcast_id, reported, error)
    await until_state(site, broadcast_id, reported)
    assert (await site.outbox(broadcast_id))[0] == "done"
    query = "SELECT error FROM sender.broadcasts WHERE broadcast_id = $1"
    kept = await site.admin.fetchval(query, broadcast_id)
    assert kept == (error or "INTERNAL: the dispatcher gave no reason" if reported == "failed" else "")


async def test_repetition_changes_nothing(site: Site) -> None:
    """Ten reports of the same: the first one's time stands."""
    broadcast_id = await dispatching(site)
    await site.report(broadcast_id, "sent")
    await until_state(site, broadcast_id, "sent")
    query = "SELECT sent_at FROM sender.broadcasts WHERE broadcast_id = $1"
    sent_at = await site.admin.fetchval(query, broadcast_id)
    await asyncio.gather(*(site.report(broadcast_id, "sent") for _ in range(10)))
    await settled(site)
    assert await site.admin.fetchval(query, broadcast_id) == sent_at


@pytest.mark.parametrize("late", ["failed", "expired", "sent"])
async def test_first_end_stands(site: Site, late: str) -> None:
    """What comes after an end changes nothing."""
    broadcast_id = await dispatching(site)
    await site.report(broadcast_id, "sent")
    await until_state(site, broadcast_id, "sent")
    await site.report(broadcast_id, late, "late")
    await settled(site)
    assert await site.state(broadcast_id) == "sent"


@pytest.mark.parametrize("reported", ["sent", "failed", "expired"])
async def test_report_makes_up_for_a_move_that_a_crash_forgot(site: Site, reported: str) -> None:
    """Whoever reports has planned it, which the sender had agreed to; it repeats its report for ever, and no more."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    assert await site.state(broadcast_id) == "pending"
    await site.report(broadcast_id, reported, "INTERNAL: broken." if reported == "failed" else "")
    await until_state(site, broadcast_id, reported)
    assert (await site.outbox(broadcast_id))[0] == "done"


async def test_report_of_one_that_is_being_cancelled_leaves_it_to_its_cancel(site: Site) -> None:
    """Also when its move to dispatching was forgotten: the cancel counts what had gone."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    await site.admin.execute(
        "UPDATE sender.broadcasts SET cancel_requested_at = now() WHERE broadcast_id = $1", broadcast_id
    )
    await site.report(broadcast_id, "sent")
    await settled(site)
    assert await site.state(broadcast_id) in {"pending", "cancelled"}


async def test_nonsense_does_not_stop_what_follows(site: Site) -> None:
    """An unknown broadcast, a state that is none of a dispatcher's, and bytes that are no message."""
    for payload in (b"\xff\xff", b"", b"\x0a\x05hello"):
        await site.lanes.nats.publish(subjects.broadcast_state("sent"), payload, str(uuid4()))
    await site.report(str(uuid4()), "sent")
    await settled(site)


async def test_failure_before_the_commit_is_tried_again(site: Site) -> None:
    """The message is not acknowledged, so it comes again."""
    broadcast_id = await dispatching(site)
    with armed("sender.state.before_commit=error@1") as plan:
        await site.report(broadcast_id, "sent")
        await until_state(site, broadcast_id, "sent")
    assert plan.hits["sender.state.before_commit"] == 2


async def test_failure_after_the_commit_is_harmless(site: Site) -> None:
    """It is committed; the message comes again and changes nothing."""
    broadcast_id = await dispatching(site)
    with armed("sender.state.after_commit=error@1") as plan:
        await site.report(broadcast_id, "sent")
        await until(lambda: plan.hits["sender.state.after_commit"] == 2)
    assert await site.state(broadcast_id) == "sent"


async def settled(site: Site) -> None:
    """Wait until everything that was reported so far has been handled: what comes after it has been."""
    marker = await dispatching(site)
    await site.report(marker, "sent")
    await until_state(site, marker, "sent")
