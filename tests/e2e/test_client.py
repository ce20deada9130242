"""What an internal service lives through that uses the client: it sends, follows inboxes, is refused, and goes on."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from wedsync.broadcast.client import (
    Added,
    BroadcastClient,
    BroadcastError,
    BroadcastState,
    Event,
    Inbox,
    InboxWatch,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Priority,
    RateLimited,
    Retracted,
    Snapshot,
    Updated,
    audience,
    everyone,
)

from stack.background import BackgroundStack
from stack.world import demo_id
from tests.e2e.client import Client, eventually

README = Path(__file__).parents[2] / "README.md"
RESTART_S = 60.0
VENUE = audience(user_ids=[str(demo_id("venue"))])


class Screen:
    """What a watch has said, and what has interrupted it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.interruptions: list[BroadcastError] = []

    def added(self) -> list[str]:
        """The items that came, in order."""
        return [event.item.broadcast_id for event in self.events if isinstance(event, Added)]

    async def follow(self, watch: InboxWatch) -> None:
        """Keeps every event until cancelled."""
        async for event in watch:
            self.events.append(event)

    async def until(self, wanted: Callable[[Event], bool], what: str) -> Event:
        """The first event that is wanted, seen already or to come, also from an inbox that is started anew."""

        async def find() -> Event | None:
            return next(filter(wanted, self.events), None)

        return await eventually(find, what, RESTART_S)

    async def until_added(self, broadcast_id: str) -> Event:
        """The event that brought an item."""
        return await self.until(lambda event: _brings(event, broadcast_id), broadcast_id)


def _brings(event: Event, broadcast_id: str) -> bool:
    return isinstance(event, Added) and event.item.broadcast_id == broadcast_id


@pytest.fixture
async def billing(client: Client) -> AsyncIterator[BroadcastClient]:
    """An internal service that sends."""
    async with client.of(client.account("client-story"), deadline_s=RESTART_S) as billing:
        yield billing


@asynccontextmanager
async def screen(inbox: Inbox, cursor: str = "") -> AsyncIterator[Screen]:
    """A watched inbox."""
    shown = Screen()
    task = asyncio.create_task(shown.follow(inbox.watch(cursor, on_interruption=shown.interruptions.append)))
    try:
        yield shown
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _send(billing: BroadcastClient, title: str) -> str:
    """Something essential for the venue, which reaches their inbox whatever they have muted."""
    sent = await billing.send(type="payment.required", title=title, message="Card declined.", to=VENUE)
    assert sent.targeted_users == 1
    return sent.broadcast_id


async def test_a_watch_outlives_its_inbox(
    client: Client, suite: BackgroundStack, billing: BroadcastClient
) -> None:
    """Killed before and while something arrives: all of it is shown once, in order, and so is what came unwatched."""
    venue = billing.inbox(client.token("venue"))
    async with screen(venue) as shown:
        await shown.until(lambda event: isinstance(event, Snapshot), "a snapshot")
        sent = [await _send(billing, "First")]
        await shown.until_added(sent[0])
        for title in ("Second", "Third"):
            assert suite.kill("inbox")
            sent.append(await _send(billing, title))
            last = await shown.until_added(sent[-1])
        assert shown.interruptions
    assert shown.added() == sent
    missed = await _send(billing, "While nobody watches")
    await client.sent(missed)
    async with screen(venue, last.cursor) as shown:
        await shown.until_added(missed)
    assert shown.added() == [missed]


async def test_what_was_sent_is_read_and_taken_back(client: Client, billing: BroadcastClient) -> None:
    """The other device of its reader hears of both, and the sender counts the reader."""
    venue = billing.inbox(client.token("venue"))
    async with screen(venue) as shown:
        await shown.until(lambda event: isinstance(event, Snapshot), "a snapshot")
        broadcast_id = await _send(billing, "To be taken back")
        await shown.until_added(broadcast_id)
        receipts = (await venue.acknowledge(broadcast_id)).receipts
        assert [receipt.broadcast_id for receipt in receipts] == [broadcast_id]
        await shown.until(lambda event: isinstance(event, Updated), "the receipt")
        assert broadcast_id in {item.broadcast_id async for item in venue.items(type="payment.")}
        await client.sent(broadcast_id)
        assert (await billing.get(broadcast_id)).stats.engagement.acknowledged == 1
        cancelled = await billing.cancel(broadcast_id, reason="by mistake", retract=True)
        assert cancelled.already_sent == 1
        await shown.until(
            lambda event: isinstance(event, Retracted) and broadcast_id in event.broadcast_ids, "its end"
        )
    with pytest.raises(NotFound):
        await venue.get(broadcast_id)


async def test_what_is_for_later_is_watched_until_it_is_cancelled(billing: BroadcastClient) -> None:
    """Its progress ends with its state; nobody gets it."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    sent = await billing.send(
        type="trial.ending",
        title="Later",
        message="Choose a tier.",
        to=VENUE,
        scheduled_for=tomorrow,
        expires_at=tomorrow + timedelta(hours=1),
    )
    assert (sent.broadcast.state, sent.awaits_approval) == (BroadcastState.BROADCAST_STATE_PENDING, False)
    states = []
    async for progress in billing.watch(sent.broadcast_id, patience_s=RESTART_S):
        states.append(progress.state)
        if len(states) == 1:
            await billing.cancel(sent.broadcast_id)
    assert (states[0], states[-1]) == (
        BroadcastState.BROADCAST_STATE_PENDING,
        BroadcastState.BROADCAST_STATE_CANCELLED,
    )


async def test_a_refusal_says_what_to_mend(client: Client, billing: BroadcastClient) -> None:
    """Every broken field, that somebody may not, and that there is no such thing, each by its class."""
    with pytest.raises(InvalidRequest) as invalid:
        await billing.send(type="wedding.party", title="", message="Hello", to=audience(roles=["Not A Slug"]))
    assert {each.field for each in invalid.value.violations} == {"type", "title", "targeting.roles[0]"}
    assert all(each.description for each in invalid.value.violations)
    async with client.of(client.token("photographer")) as photographer:
        with pytest.raises(PermissionDenied):
            await photographer.send(type="feature.released", title="Hi", message="Hi", to=everyone())
    with pytest.raises(NotFound):
        await billing.get(str(uuid4()))


async def test_a_limit_is_known_before_it_is_met(client: Client) -> None:
    """What is left is told with each send; past it, when to come again, which is too late for this caller's budget."""
    await client.add_admin("client-admin")
    emergency = {
        "type": "wedding.emergency",
        "priority": Priority.PRIORITY_CRITICAL,
        "wedding_id": str(demo_id("wedding-1")),
    }
    nobody = audience(user_ids=[str(uuid4())])
    async with client.of(client.token("client-admin")) as admin:
        assert (await admin.preview(**emergency, to=nobody)).targeted == 0
        assert (await admin.quota(**emergency)).hour_remaining == 5
        text = {"title": "Road closed", "message": "Take the B 96."}
        left = [(await admin.send(**emergency, **text, to=nobody)).quota.hour_remaining for _ in range(5)]
        with pytest.raises(RateLimited) as limited:
            await admin.send(**emergency, **text, to=nobody, wait_s=60)
    assert left == [4, 3, 2, 1, 0]
    assert limited.value.retry_after is not None
    assert timedelta(minutes=50) < limited.value.retry_after <= timedelta(hours=1)
    assert limited.value.quota


async def test_the_same_request_id_is_one_broadcast(billing: BroadcastClient) -> None:
    """Also for a process that has forgotten what it sent."""
    request_id = str(uuid4())
    sent = [
        await billing.send(
            type="trial.ending", title="Asked twice", message="Choose.", to=VENUE, request_id=request_id
        )
        for _ in range(2)
    ]
    assert sent[0] == sent[1]


async def test_the_example_of_the_readme_sends(suite: BackgroundStack) -> None:
    """As it stands there, with what `source .stack/env` gives."""
    section = README.read_text().partition("## Call it from your service")[2]
    program = section.partition("```python\n")[2].partition("```")[0]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env={**os.environ, **suite.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert re.fullmatch(r"[0-9a-f-]{36} \d+\n.*\n", output.decode())
