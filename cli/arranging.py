"""Snoozes and pins items of a person's inbox, and ends either."""

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.inbox_pb2 import (
    PinItemRequest,
    PinItemResponse,
    SnoozeItemRequest,
    SnoozeItemResponse,
)

from cli import output
from cli.arguments import parse_time
from cli.connection import Connection, ask
from cli.exits import ExitCode, Failure
from cli.settings import Settings

Id = Annotated[str, typer.Argument(help="The broadcast's id.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the inbox's."""
    for command in (snooze, wake, pin, unpin):
        app.command()(command)


def snooze(
    context: typer.Context,
    broadcast_id: Id,
    until: Annotated[str, typer.Option(help="ISO 8601 time at which it comes back.")] = "",
    minutes: Annotated[float, typer.Option(help="In how many minutes it comes back, instead of a time.")] = 0,
) -> None:
    """Hide an item until a time."""
    if bool(until) == bool(minutes):
        raise Failure("Either --until or --minutes must be given.", ExitCode.USAGE)
    moment = parse_time("--until", until) or Timestamp()
    if minutes:
        moment.FromDatetime(datetime.now(UTC) + timedelta(minutes=minutes))
    _snooze(context.obj, SnoozeItemRequest(broadcast_id=broadcast_id, snooze_until=moment))


def wake(context: typer.Context, broadcast_id: Id) -> None:
    """Bring a snoozed item back now."""
    _snooze(context.obj, SnoozeItemRequest(broadcast_id=broadcast_id))


def pin(context: typer.Context, broadcast_id: Id) -> None:
    """Keep an item on top of the list."""
    _pin(context.obj, PinItemRequest(broadcast_id=broadcast_id))


def unpin(context: typer.Context, broadcast_id: Id) -> None:
    """Let an item go back to its place."""
    _pin(context.obj, PinItemRequest(broadcast_id=broadcast_id, unpin=True))


def _snooze(settings: Settings, request: SnoozeItemRequest) -> None:
    request.request_id = str(uuid4())

    async def call(connection: Connection) -> SnoozeItemResponse:
        return await connection.inbox.SnoozeItem(request)

    ask(settings, call, _print_snoozed)


def _print_snoozed(answer: SnoozeItemResponse) -> None:
    until = output.moment(answer.receipt.snoozed_until)
    output.console.print(
        f"{f'Snoozed until {until}' if until else 'Back in the list'}, {answer.unread_count} unread"
    )


def _pin(settings: Settings, request: PinItemRequest) -> None:
    request.request_id = str(uuid4())

    async def call(connection: Connection) -> PinItemResponse:
        return await connection.inbox.PinItem(request)

    ask(settings, call, _print_pinned)


def _print_pinned(answer: PinItemResponse) -> None:
    since = output.moment(answer.receipt.pinned_at)
    output.console.print(f"Pinned since {since}" if since else "Not pinned")
