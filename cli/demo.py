"""Plays the main story in a minute: five broadcasts, three inboxes filling live, and one sender at the wall."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated
from uuid import uuid4

import typer
from rich.columns import Columns
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text
from wedsync.broadcast.client import BroadcastError
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Priority, ReceiptAction, Targeting
from wedsync.broadcast.v1.inbox_pb2 import InboxEvent, RecordReceiptsRequest
from wedsync.broadcast.v1.sender_pb2 import (
    ApproveBroadcastRequest,
    CancelBroadcastRequest,
    GetBroadcastRequest,
    SendBroadcastRequest,
)

from cli import output
from cli.connection import Connection, run
from cli.exits import ExitCode, Failure, failure_of
from cli.identities import resolve_id, token_for_person
from cli.inbox import inbox_events
from cli.settings import Settings

ARRIVAL_TIMEOUT_S = 10.0
ROWS = 6


@dataclass(slots=True)
class Screen:
    """One person's open inbox: what has come, and how long after its send."""

    person: str
    title: str
    token: str
    lines: dict[str, Text] = field(default_factory=dict)
    unread: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)


class Story:
    """The demo's state: three screens, a log of what was done, and the clock of each send."""

    def __init__(self, connection: Connection, pace_s: float) -> None:
        self.connection = connection
        self.pace_s = pace_s
        self.admin = token_for_person("admin")
        self.approver = token_for_person("approver")
        self.coordinator = token_for_person("coordinator")
        self.screens = [
            Screen("couple-amara", "Amara, getting married", token_for_person("couple-amara")),
            Screen("photographer", "Petra, their photographer", token_for_person("photographer")),
            Screen("outsider", "Olu, works on other weddings", token_for_person("outsider")),
        ]
        self.told: list[Text] = []
        self.sent_at: dict[str, float] = {}
        self.latencies_ms: list[float] = []
        self.changed: Callable[[], None] = lambda: None
        self.streams: list[asyncio.Task[None]] = []

    def tell(self, text: str, style: str = "") -> None:
        """Adds a line to the story."""
        self.told.append(Text(text, style=style))
        self.changed()

    async def follow(self, screen: Screen) -> None:
        """Fills one screen from its stream until cancelled."""
        async for event in inbox_events(self.connection, token=screen.token):
            self._show(screen, event)
            screen.ready.set()
            self.changed()

    def _show(self, screen: Screen, event: InboxEvent) -> None:
        kind = event.WhichOneof("change")
        if kind == "snapshot":
            screen.unread = event.snapshot.unread_count
        elif kind == "added":
            item, now = event.added.item, perf_counter()
            screen.seen[item.broadcast_id] = now
            screen.unread += 1
            note = "  (night: no sound)" if event.added.silent else ""
            line = Text.assemble(output.priority(item.priority), "  ", (item.title, "bold"), note)
            screen.lines[item.broadcast_id] = line
        elif kind == "retracted":
            for broadcast_id in event.retracted.broadcast_ids:
                screen.lines[broadcast_id] = Text("(taken back)", style="dim")
        elif kind == "unread_count":
            screen.unread = event.unread_count.unread_count

    async def send(self, token: str, request: SendBroadcastRequest) -> str:
        """Sends, and keeps when it did."""
        request.request_id = str(uuid4())
        started = perf_counter()
        answer = await self.connection.sender.SendBroadcast(request, metadata=self.connection.metadata(token))
        broadcast_id = answer.broadcast.broadcast_id
        if answer.broadcast.state == BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL:
            started = await self._approve(broadcast_id)
        self.sent_at[broadcast_id] = started
        self.tell(f"  sent to {answer.targeted_users:,} people", "dim")
        return broadcast_id

    async def _approve(self, broadcast_id: str) -> float:
        """In a large world, what goes to everybody waits for another admin; when she let it go."""
        request = ApproveBroadcastRequest(request_id=str(uuid4()), broadcast_id=broadcast_id)
        started = perf_counter()
        await self.connection.sender.ApproveBroadcast(
            request, metadata=self.connection.metadata(self.approver)
        )
        self.tell("  Berit, another admin, approves it", "dim")
        return started

    async def arrives(self, broadcast_id: str, *people: str) -> None:
        """Waits until exactly these screens show it."""
        deadline = perf_counter() + ARRIVAL_TIMEOUT_S
        wanted = {screen.person for screen in self.screens if screen.person in people}
        while wanted != (got := {each.person for each in self.screens if broadcast_id in each.seen}):
            for stream in self.streams:
                if stream.done():
                    stream.result()
            if perf_counter() > deadline or not got <= wanted:
                raise Failure(f"Expected on {sorted(wanted)}, got {sorted(got)}.", ExitCode.UNEXPECTED)
            await asyncio.sleep(0.005)
        for screen in self.screens:
            if screen.person in wanted:
                self.latencies_ms.append((screen.seen[broadcast_id] - self.sent_at[broadcast_id]) * 1e3)
        await asyncio.sleep(self.pace_s)

    def render(self) -> Group:
        """All of it."""
        panels = [
            Panel(
                Group(*list(screen.lines.values())[-ROWS:]),
                title=screen.title,
                subtitle=f"{screen.unread} unread",
                width=max(36, min(48, output.console.width // 3 - 1)),
                height=2 * ROWS,
            )
            for screen in self.screens
        ]
        return Group(*self.told, Columns(panels))


async def _news(story: Story) -> None:
    story.tell("Ada, an admin, tells everyone about a new feature.", "bold")
    request = SendBroadcastRequest(
        type="feature.released",
        title="Seating plans are here",
        message="Drag guests to tables, and share the plan with your venue.",
        targeting=Targeting(everyone=True),
    )
    await story.arrives(await story.send(story.admin, request), "couple-amara", "photographer", "outsider")


async def _timeline(story: Story) -> None:
    story.tell(
        "Nadia, the coordinator of Amara & Jonas, moves the ceremony. Only their team may know.", "bold"
    )
    request = SendBroadcastRequest(
        type="timeline.changed",
        title="Ceremony moved to 15:30",
        message="The registrar is late. Photos start at 14:45.",
        wedding_id=resolve_id("wedding-1"),
    )
    await story.arrives(await story.send(story.coordinator, request), "couple-amara", "photographer")


async def _wall(story: Story) -> None:
    story.tell("Olu, a coordinator of other weddings, tries to write to that team.", "bold")
    request = SendBroadcastRequest(
        type="timeline.changed", title="Hello", message="Hello", wedding_id=resolve_id("wedding-1")
    )
    try:
        await story.send(token_for_person("outsider"), request)
    except BroadcastError as error:
        story.tell(f"  {failure_of(error).message}", "red")
        await asyncio.sleep(story.pace_s)
    else:
        raise Failure("The wall let a stranger through.", ExitCode.UNEXPECTED)


async def _emergency(story: Story) -> None:
    story.tell("Critical: the venue is flooded. It reaches the team at once, whatever the hour.", "bold")
    request = SendBroadcastRequest(
        type="wedding.emergency",
        priority=Priority.PRIORITY_CRITICAL,
        title="Venue flooded, we move to Lindenau Hall",
        message="Same day, same time. Please acknowledge.",
        wedding_id=resolve_id("wedding-1"),
    )
    broadcast_id = await story.send(story.coordinator, request)
    await story.arrives(broadcast_id, "couple-amara", "photographer")
    for screen in story.screens[:2]:
        receipt = RecordReceiptsRequest(
            request_id=str(uuid4()),
            broadcast_ids=[broadcast_id],
            action=ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED,
        )
        await story.connection.inbox.RecordReceipts(receipt, metadata=story.connection.metadata(screen.token))
    shown = await story.connection.sender.GetBroadcast(
        GetBroadcastRequest(broadcast_id=broadcast_id),
        metadata=story.connection.metadata(story.coordinator),
    )
    people = shown.stats.engagement
    story.tell(f"  {people.acknowledged} of {people.delivered} have acknowledged", "dim")
    await asyncio.sleep(story.pace_s)


async def _retract(story: Story) -> None:
    story.tell("Ada sends something by mistake, and takes it back.", "bold")
    request = SendBroadcastRequest(
        type="feature.released",
        title="TEST please ignore",
        message="This went out too early.",
        targeting=Targeting(everyone=True),
    )
    broadcast_id = await story.send(story.admin, request)
    await story.arrives(broadcast_id, "couple-amara", "photographer", "outsider")
    cancel = CancelBroadcastRequest(
        request_id=str(uuid4()), broadcast_id=broadcast_id, reason="sent by mistake", retract=True
    )
    answer = await story.connection.sender.CancelBroadcast(
        cancel, metadata=story.connection.metadata(story.admin)
    )
    story.tell(f"  taken back from {answer.already_sent:,} inboxes", "dim")
    await asyncio.sleep(story.pace_s)


STEPS: tuple[Callable[[Story], Awaitable[None]], ...] = (_news, _timeline, _wall, _emergency, _retract)


async def _play(connection: Connection, pace_s: float) -> None:
    story = Story(connection, pace_s)
    with Live(story.render(), console=output.console, auto_refresh=False) as live:
        story.changed = lambda: live.update(story.render(), refresh=output.console.is_terminal)
        story.streams = [asyncio.create_task(story.follow(screen)) for screen in story.screens]
        try:
            async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
                await _started(story)
            for step in STEPS:
                await step(story)
        finally:
            for stream in story.streams:
                stream.cancel()
            await asyncio.gather(*story.streams, return_exceptions=True)
        ordered = sorted(story.latencies_ms)
        median = ordered[len(ordered) // 2]
        story.tell(f"From send to screen: median {median:.0f} ms, slowest {ordered[-1]:.0f} ms.", "green")


async def _started(story: Story) -> None:
    for screen, stream in zip(story.screens, story.streams, strict=True):
        waiting = asyncio.create_task(screen.ready.wait())
        await asyncio.wait((waiting, stream), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if stream.done():
            stream.result()


def demo(
    context: typer.Context,
    pace: Annotated[float, typer.Option(help="Seconds between the steps.", min=0)] = 4.0,
) -> None:
    """Play the main story: three inboxes filling live, a wall that holds, an emergency, a mistake taken back."""
    settings: Settings = context.obj
    run(settings, lambda connection: _play(connection, pace))
