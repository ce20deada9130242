"""Due times: kept by whoever is there when they come, by several at once, and made up for after an outage."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from wedsync.broadcast.v1 import common_pb2

from services.sender.config import Settings
from services.sender.main import start
from shared.settings import Environment
from stack.provision import SuiteDatabase
from tests.integration.sender.neighbours import Neighbours
from tests.integration.sender.site import Metadata, Servers, ServingSite, Site, a_send, ahead, end
from tests.integration.sender.test_process import ProcessSite, process_site
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until

PRIORITIES: Final = (
    common_pb2.PRIORITY_LOW,
    common_pb2.PRIORITY_NORMAL,
    common_pb2.PRIORITY_HIGH,
    common_pb2.PRIORITY_CRITICAL,
)
EACH: Final = 40
"""Of each priority, so that it takes the relay two turns to claim them all."""


@pytest.fixture
async def processes(
    tmp_path: Path, sender_database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ProcessSite]:
    """A sender that is not running yet, and announces nothing twice meanwhile."""
    async with process_site(tmp_path, sender_database, servers, beside) as made:
        made.environment["SENDER_RELAY_LEASE_S"] = "60"
        yield made


async def scheduled(site: Site, caller: Metadata, wedding_id: str, **fields: object) -> str:
    """The id of a broadcast about a wedding, of any priority, for later."""
    fields = {"type": "wedding.emergency", "wedding_id": wedding_id, "targeting": {}} | fields
    return (await site.send(caller, a_send(**fields))).broadcast.broadcast_id


async def outage(site: ProcessSite, broadcast_ids: set[str], hours: float) -> None:
    """The sender dies, and is back that much later, as far as these broadcasts can tell."""
    assert site.process is not None
    site.process.kill()
    await site.exit_code()
    passed = timedelta(hours=hours)
    for statement in (
        """
        UPDATE sender.broadcasts
        SET created_at = created_at - $2::interval, scheduled_for = scheduled_for - $2, expires_at = expires_at - $2
        WHERE broadcast_id = ANY ($1::text[]::uuid[])
        """,
        "UPDATE sender.outbox SET due_at = due_at - $2::interval WHERE key = ANY ($1::text[])",
    ):
        await site.admin.execute(statement, list(broadcast_ids), passed)
    await site.start()


async def test_several_senders_announce_each_once_and_not_before_its_time(site: ServingSite) -> None:
    """Both look at one outbox, and share what is in it."""
    forms, wedding_id = site.service("broadcast.send", name="forms"), site.wedding(str(uuid4()))
    another = await start(Settings.read(Environment(site.environment)))
    try:
        due = {
            await scheduled(
                site,
                forms,
                wedding_id,
                scheduled_for=ahead(seconds=1 + place * 0.02),
                priority=PRIORITIES[place % 4],
            )
            for place in range(EACH)
        }
        await until(lambda: due <= {each.broadcast_id for each in site.lanes.heard})
    finally:
        await end(another)
    offset = time.time() - time.perf_counter()
    for broadcast_id in due:
        (announced,) = site.lanes.of(broadcast_id)
        assert announced.epoch == 1
        order = await site.plan(broadcast_id)
        assert announced.at + offset >= order.scheduled_for.ToDatetime(UTC).timestamp()


async def test_what_fell_due_during_an_outage_goes_out_critical_first(processes: ProcessSite) -> None:
    """The sender dies before their time and comes back after it: each is announced once, in the order of priority."""
    site = processes
    await site.admin.execute("UPDATE sender.outbox SET state = 'done', lease_until = NULL")
    await site.start()
    forms, wedding_id = site.service("broadcast.send", name="forms"), site.wedding(str(uuid4()))
    due = {
        await scheduled(site, forms, wedding_id, scheduled_for=ahead(hours=1), priority=priority)
        for _ in range(EACH)
        for priority in PRIORITIES
    }
    await outage(site, due, hours=2)
    await until(lambda: due <= {each.broadcast_id for each in site.lanes.heard})
    assert {len(site.lanes.of(each)) for each in due} == {1}
    # A lease begins with the claim, so its end tells in which turn of the relay a row was claimed.
    rows = await site.admin.fetch(
        "SELECT rank, lease_until FROM sender.outbox WHERE key = ANY ($1) ORDER BY lease_until, rank",
        list(due),
    )
    assert len({row["lease_until"] for row in rows}) > 1
    assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows)


async def test_what_is_due_waits_while_much_that_is_as_urgent_is_under_way(site: ServingSite) -> None:
    """Four may be, so one goes out for each that comes to its end; and something critical does not wait for those."""
    await site.admin.execute("UPDATE sender.outbox SET state = 'done', lease_until = NULL")
    await site.restart(SENDER_RELAY_WINDOW="4")
    forms, wedding_id = site.service("broadcast.send", name="forms"), site.wedding(str(uuid4()))
    low = [await scheduled(site, forms, wedding_id, priority=common_pb2.PRIORITY_LOW) for _ in range(6)]
    await until(lambda: sum(bool(site.lanes.of(each)) for each in low) == 4)
    urgent = await scheduled(site, forms, wedding_id, priority=common_pb2.PRIORITY_CRITICAL)
    await until(lambda: bool(site.lanes.of(urgent)))
    assert sum(bool(site.lanes.of(each)) for each in low) == 4
    for broadcast_id in (urgent, low[0]):
        await site.plan(broadcast_id)
        await site.report(broadcast_id, "sent")
    await until(lambda: sum(bool(site.lanes.of(each)) for each in low) == 5)


async def test_what_expired_during_an_outage_is_not_sent(processes: ProcessSite) -> None:
    """The dispatcher that asks is refused, and it ends expired; what is still valid begins."""
    site = processes
    await site.start()
    forms, wedding_id = site.service("broadcast.send", name="forms"), site.wedding(str(uuid4()))
    times = {"scheduled_for": ahead(hours=1)}
    late = await scheduled(site, forms, wedding_id, expires_at=ahead(hours=2), **times)
    valid = await scheduled(site, forms, wedding_id, expires_at=ahead(hours=4), **times)
    await outage(site, {late, valid}, hours=3)
    await until(lambda: bool(site.lanes.of(late) and site.lanes.of(valid)))
    assert (await refusal_of(site.plan(late))).message == "The broadcast has expired."
    assert await site.state(late) == "expired"
    assert (await site.outbox(late))[0] == "done"
    assert (await site.plan(valid)).state == common_pb2.BROADCAST_STATE_DISPATCHING
