"""Lists broadcasts, newest first."""

from typing import Annotated

import typer
from wedsync.broadcast.v1.sender_pb2 import Broadcast, ListBroadcastsRequest, ListBroadcastsResponse

from cli import output
from cli.arguments import parse_interval, parse_priority, parse_state
from cli.connection import CALL_TIMEOUT_S, Connection, run
from cli.identities import resolve_author, resolve_id
from cli.settings import Settings

States = Annotated[list[str] | None, typer.Option("--state", help="Only this state. Repeatable.")]
Priorities = Annotated[list[str] | None, typer.Option("--priority", help="Only this priority. Repeatable.")]
Type = Annotated[str, typer.Option("--type", help="A type, or a prefix such as 'wedding.'.")]
Author = Annotated[str, typer.Option("--by", help="Only what this user, or service account, has sent.")]
Wedding = Annotated[str, typer.Option("--wedding", help="Only about this wedding.")]
PageToken = Annotated[str, typer.Option("--page-token", help="next_page_token of the page before.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the root."""
    app.command("list")(list_broadcasts)


def list_broadcasts(
    context: typer.Context,
    state: States = None,
    broadcast_type: Type = "",
    priority: Priorities = None,
    by: Author = "",
    wedding: Wedding = "",
    since: Annotated[str, typer.Option(help="Only what was accepted at this ISO 8601 time or later.")] = "",
    until: Annotated[str, typer.Option(help="Only what was accepted before this time.")] = "",
    due_since: Annotated[str, typer.Option(help="Only what is due at this time or later.")] = "",
    due_until: Annotated[str, typer.Option(help="Only what is due before this time.")] = "",
    page_size: Annotated[int, typer.Option(help="1-100 broadcasts a page.")] = 50,
    page_token: PageToken = "",
) -> None:
    """List the broadcasts that are yours to see, newest first."""
    settings: Settings = context.obj
    request = ListBroadcastsRequest(
        states=[parse_state(name) for name in state or ()],
        type=broadcast_type,
        priorities=[parse_priority(name) for name in priority or ()],
        created_by=resolve_author(by),
        wedding_id=resolve_id(wedding) if wedding else "",
        create_time=parse_interval("--since", since, "--until", until),
        scheduled_for=parse_interval("--due-since", due_since, "--due-until", due_until),
        page_size=page_size,
        page_token=page_token,
    )

    async def call(connection: Connection) -> ListBroadcastsResponse:
        return await connection.sender.ListBroadcasts(
            request, metadata=connection.metadata(), timeout=CALL_TIMEOUT_S
        )

    answer = run(settings, call)
    if settings.json:
        output.print_json(answer)
        return
    _print_broadcasts(list(answer.broadcasts))
    output.more(answer.next_page_token)


def _print_broadcasts(broadcasts: list[Broadcast]) -> None:
    output.table(
        ("id", "accepted", "state", "priority", "type", "title"),
        (
            (
                each.broadcast_id,
                output.short_moment(each.create_time),
                output.state(each.state),
                output.priority(each.priority),
                each.type,
                f"{each.title} · {each.wedding.couple_name}" if each.wedding.couple_name else each.title,
            )
            for each in broadcasts
        ),
    )
