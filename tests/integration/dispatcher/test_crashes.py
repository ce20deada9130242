"""A dispatcher that dies at any point: another finishes, nobody gets anything twice, and the ledger adds up."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from services.dispatcher.domain import Kind
from shared.audience import Audience
from tests.integration.dispatcher.site import Site
from tests.integration.dispatcher.stand_ins import now_on_both
from tests.integration.shared.polling import DEADLINE_S, until

CHECKOUT = Path(__file__).parents[3]
PEOPLE = Audience.of(range(300_000))
SHORT_LEASES = {"DISPATCHER_LEASE_S": "0.3", "DISPATCHER_LEASE_CEILING_S": "0.6"}


async def die_at(surroundings: Site, point: str, hit: int) -> int:
    """Send a broadcast through a dispatcher that is killed when it gets there; the failpoint must have fired."""
    log = surroundings.folder / "failpoints.log"
    log.unlink(missing_ok=True)
    environment = {
        **surroundings.environment(**SHORT_LEASES),
        "PATH": os.environ["PATH"],
        "BROADCAST_FAILPOINTS": f"{point}=kill@{hit}",
        "BROADCAST_FAILPOINTS_LOG": str(log),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.dispatcher.main", cwd=CHECKOUT, env=environment
    )
    try:
        code = await asyncio.wait_for(process.wait(), DEADLINE_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert log.read_text().startswith(f"{point} kill")
    return code


@pytest.mark.parametrize(
    ("point", "hit"),
    [
        ("dispatcher_due_high.worker.before_handle", 1),
        ("dispatcher.plan.before_commit", 1),
        ("dispatcher.plan.after_commit", 1),
        ("dispatcher.publish.before", 1),
        ("dispatcher.publish.after", 1),
        ("dispatcher_due_high.worker.before_ack", 1),
        ("dispatcher.report.before_commit", 1),
        ("dispatcher.report.after_commit", 1),
        ("dispatcher_report.worker.after_ack", 1),
        ("dispatcher.publish.before", 3),
        ("dispatcher.relay.after_claim", 1),
        ("dispatcher.relay.after_publish", 1),
    ],
)
async def test_another_dispatcher_finishes_what_one_has_begun(
    surroundings: Site, point: str, hit: int
) -> None:
    """Killed before or after any commit, publish or ack: everyone has it once, and the sender hears of it."""
    sent = await surroundings.send(now_on_both(PEOPLE))
    assert await die_at(surroundings, point, hit) == -9
    async with surroundings.dispatching(**SHORT_LEASES) as caller:
        # The sender's outbox says it again when nobody has settled it.
        await surroundings.announce(sent, epoch=2)
        await until(lambda: ("SENT", 300_000) in surroundings.told(sent))
        chunks = surroundings.inbox.of(sent).values()
        assert sum(len(each.members) for each in chunks) == len(PEOPLE)
        assert surroundings.inbox.people(sent, Kind.ITEM) == PEOPLE
        assert await caller.ledger(sent) == {
            ("in_app", "delivered"): 300_000,
            ("realtime", "sent"): 300_000,
        }
