"""Reads a person's inbox, marks what they did, and shows it filling live."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import uuid4

import typer
from rich.text import Text
from wedsync.broadcast.client import BroadcastError
from wedsync.broadcast.v1.common_pb2 import ReceiptAction
from wedsync.broadcast.v1.inbox_pb2 import (
    GetInboxItemRequest,
    GetInboxItemResponse,
    GetUnreadCountRequest,
    GetUnreadCountResponse,
    InboxEvent,
    InboxItem,
    ItemsUpdated,
    ListInboxItemsRequest,
    ListInboxItemsResponse,
    MarkAllReadRequest,
    MarkAllReadResponse,
    RecordReceiptsRequest,
    RecordReceiptsResponse,
)

from cli import output
from cli.arguments import parse_priority
from cli.connection import Connection, ask, run
from cli.exits import ExitCode, Failure
from cli.identities import resolve_id
from cli.settings import Settings

app = typer.Typer(help="A person's own inbox (choose whose with --as or --token).", no_args_is_help=True)
Ids = Annotated[list[str], typer.Argument(help="Broadcast ids, up to 100.")]


@app.command("list")
def list_items(
    context: typer.Context,
    unread: Annotated[bool, typer.Option("--unread", help="Only what is unread.")] = False,
    priority: Annotated[list[str] | None, typer.Option(help="Only this priority. Repeatable.")] = None,
    broadcast_type: Annotated[
        str, typer.Option("--type", help="A type, or a prefix such as 'wedding.'.")
    ] = "",
    search: Annotated[str, typer.Option(help="Words in the title or message.")] = "",
    wedding: Annotated[str, typer.Option(help="Only about this wedding.")] = "",
    dismissed: Annotated[bool, typer.Option("--dismissed", help="Dismissed items too.")] = False,
    snoozed: Annotated[bool, typer.Option("--snoozed", help="Snoozed items too.")] = False,
    page_size: Annotated[int, typer.Option(help="1-100 items a page.")] = 50,
    page_token: Annotated[str, typer.Option(help="next_page_token of the page before.")] = "",
) -> None:
    """List items: those that are pinned, then newest arrival first."""
    request = ListInboxItemsRequest(
        unread_only=unread,
        priorities=[parse_priority(name) for name in priority or ()],
        type=broadcast_type,
        search=search,
        wedding_id=resolve_id(wedding) if wedding else "",
        include_dismissed=dismissed,
        include_snoozed=snoozed,
        page_size=page_size,
        page_token=page_token,
    )
    _list(context.obj, request)


@app.command()
def search(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(help="All of them; the last may be a beginning.")],
    page_token: Annotated[str, typer.Option(help="next_page_token of the page before.")] = "",
) -> None:
    """Find items by words of their title or message, also dismissed and snoozed ones."""
    request = ListInboxItemsRequest(
        search=" ".join(words), include_dismissed=True, include_snoozed=True, page_token=page_token
    )
    _list(context.obj, request)


def _list(settings: Settings, request: ListInboxItemsRequest) -> None:
    async def call(connection: Connection) -> ListInboxItemsResponse:
        return await connection.inbox.ListInboxItems(request)

    ask(settings, call, _print_list)


def _print_list(answer: ListInboxItemsResponse) -> None:
    print_items(list(answer.items))
    output.console.print(f"{answer.unread_count} unread, {answer.total_count} in this list")
    output.more(answer.next_page_token)


@app.command()
def show(context: typer.Context, broadcast_id: Annotated[str, typer.Argument()]) -> None:
    """Show one item whole."""

    async def call(connection: Connection) -> GetInboxItemResponse:
        return await connection.inbox.GetInboxItem(
            GetInboxItemRequest(broadcast_id=broadcast_id),
        )

    ask(context.obj, call, lambda answer: _print_whole(answer.item))


def _print_whole(item: InboxItem) -> None:
    pairs: list[tuple[str, str | Text]] = [
        ("id", item.broadcast_id),
        ("title", item.title),
        ("message", item.message),
        ("action", f"{item.action.label}: {item.action.url}" if item.action.url else ""),
        ("wedding", item.wedding.couple_name),
        ("type", item.type),
        ("priority", output.priority(item.priority)),
        ("delivered", output.moment(item.delivered_at)),
        ("read", output.moment(item.read_at)),
        ("acknowledged", output.moment(item.acknowledged_at)),
        ("dismissed", output.moment(item.dismissed_at)),
        ("snoozed until", output.moment(item.snoozed_until)),
        ("pinned", output.moment(item.pinned_at)),
    ]
    output.facts((name, value) for name, value in pairs if value)


@app.command()
def count(context: typer.Context) -> None:
    """Print how many items are unread."""

    async def call(connection: Connection) -> GetUnreadCountResponse:
        return await connection.inbox.GetUnreadCount(GetUnreadCountRequest())

    ask(context.obj, call, lambda answer: output.console.print_plain(str(answer.unread_count)))


@app.command()
def read(context: typer.Context, broadcast_ids: Ids) -> None:
    """Mark items as read."""
    _record(context.obj, broadcast_ids, ReceiptAction.RECEIPT_ACTION_READ)


@app.command()
def ack(context: typer.Context, broadcast_ids: Ids) -> None:
    """Acknowledge items (which also reads them)."""
    _record(context.obj, broadcast_ids, ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED)


@app.command()
def dismiss(context: typer.Context, broadcast_ids: Ids) -> None:
    """Hide items from the list; critical ones must be acknowledged first."""
    _record(context.obj, broadcast_ids, ReceiptAction.RECEIPT_ACTION_DISMISSED)


@app.command()
def restore(context: typer.Context, broadcast_ids: Ids) -> None:
    """Bring dismissed items back."""
    _record(context.obj, broadcast_ids, ReceiptAction.RECEIPT_ACTION_RESTORED)


@app.command("read-all")
def read_all(context: typer.Context) -> None:
    """Mark everything that has arrived as read."""

    async def call(connection: Connection) -> MarkAllReadResponse:
        return await connection.inbox.MarkAllRead(
            MarkAllReadRequest(request_id=str(uuid4())),
        )

    ask(context.obj, call, lambda answer: output.console.print(f"{answer.unread_count} unread"))


@app.command()
def watch(
    context: typer.Context,
    cursor: Annotated[
        str, typer.Option(help="Go on after this cursor instead of starting with a snapshot.")
    ] = "",
) -> None:
    """Show the inbox as it changes; goes on by itself after an interruption."""
    run(context.obj, lambda connection: _watch(connection, cursor))


async def _watch(connection: Connection, cursor: str) -> None:
    async with aclosing(inbox_events(connection, cursor)) as events:
        async for event in events:
            if cursor and event.HasField("snapshot") and not event.snapshot.recovered:
                output.errors.print(
                    "What followed is not known any more: this is the inbox as it is.", style="dim"
                )
            cursor = event.cursor or cursor
            output.print_json(event) if connection.json else print_event(event)


async def inbox_events(
    connection: Connection, cursor: str = "", token: str | None = None
) -> AsyncGenerator[InboxEvent, None]:
    """What happens in an inbox. An interruption is told once and waited for, if anything was heard before."""
    is_there, told_at = False, ""

    def interrupted(error: BroadcastError) -> None:
        nonlocal told_at
        if not is_there:
            raise error
        if watched.cursor != told_at:
            output.errors.print("The stream was interrupted; going on where it stopped.", style="dim")
        told_at = watched.cursor

    watched = connection.client.inbox(token).watch(cursor, on_interruption=interrupted)
    async with aclosing(watched.messages()) as events:
        async for event in events:
            is_there = True
            yield event


def print_event(event: InboxEvent) -> None:
    """One event as a line, a snapshot as a table."""
    kind = event.WhichOneof("change")
    if kind == "snapshot":
        print_items(list(event.snapshot.items))
        output.console.print(
            f"{event.snapshot.unread_count} unread; waiting for more (Ctrl-C ends)", style="dim"
        )
    elif kind in ("added", "alert"):
        item = event.added.item if kind == "added" else event.alert.item
        quietly = "silent" if event.added.silent else ""
        output.console.print(describe(item, quietly if kind == "added" else "quiet hours are over"))
    elif kind == "updated":
        _print_updated(event.updated)
    elif kind == "retracted":
        output.console.print(f"{len(event.retracted.broadcast_ids)} taken back or expired", style="dim")
    elif kind == "unread_count":
        output.console.print(f"{event.unread_count.unread_count} unread", style="dim")


def _print_updated(updated: ItemsUpdated) -> None:
    for item in updated.items:
        output.console.print(describe(item, "back from its snooze"))
    if not updated.items:
        what = f"{len(updated.receipts)} items" if updated.receipts else "everything"
        output.console.print(f"{what} marked on another device", style="dim")


def describe(item: InboxItem, note: str = "") -> Text:
    """An item on one line."""
    return Text.assemble(
        (output.short_moment(item.delivered_at), "dim"),
        "  ",
        output.priority(item.priority),
        "  ",
        (_title(item), "bold"),
        f" ({note})" if note else "",
    )


def print_items(items: list[InboxItem]) -> None:
    """Items as a table; unread ones have a dot, acknowledged ones a tick, pinned ones an arrow."""
    output.table(
        ("", "id", "arrived", "priority", "title"),
        (
            (
                _mark(item),
                item.broadcast_id,
                output.short_moment(item.delivered_at),
                output.priority(item.priority),
                _title(item),
            )
            for item in items
        ),
    )


def _mark(item: InboxItem) -> str:
    done = "✓" if item.acknowledged_at.ByteSize() else "" if item.read_at.ByteSize() else "●"
    return f"{'↑' if item.pinned_at.ByteSize() else ''}{done}"


def _title(item: InboxItem) -> str:
    return f"{item.title} · {item.wedding.couple_name}" if item.wedding.couple_name else item.title


def _record(settings: Settings, broadcast_ids: list[str], action: "ReceiptAction.ValueType") -> None:
    request = RecordReceiptsRequest(request_id=str(uuid4()), broadcast_ids=broadcast_ids, action=action)

    async def call(connection: Connection) -> RecordReceiptsResponse:
        return await connection.inbox.RecordReceipts(request)

    ask(settings, call, _print_recorded, _refuse_unknown)


def _print_recorded(answer: RecordReceiptsResponse) -> None:
    output.console.print(f"{len(answer.receipts)} recorded, {answer.unread_count} unread")


def _refuse_unknown(answer: RecordReceiptsResponse) -> None:
    if answer.unknown_broadcast_ids:
        raise Failure(f"Not in this inbox: {', '.join(answer.unknown_broadcast_ids)}", ExitCode.NOT_FOUND)
