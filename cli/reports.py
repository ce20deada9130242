"""Lists broadcasts, newest first, and shows by the day how many people they have come to."""

from typing import Annotated, Final

import typer
from google.type.date_pb2 import Date
from rich.text import Text
from wedsync.broadcast.v1.sender_pb2 import (
    AnalyticsGroup,
    AnalyticsRow,
    GetAnalyticsRequest,
    GetAnalyticsResponse,
    ListBroadcastsRequest,
    ListBroadcastsResponse,
)

from cli import output
from cli.arguments import parse_day, parse_group, parse_interval, parse_priority, parse_state
from cli.connection import Connection, ask
from cli.identities import resolve_author, resolve_id

States = Annotated[list[str] | None, typer.Option("--state", help="Only this state. Repeatable.")]
Priorities = Annotated[list[str] | None, typer.Option("--priority", help="Only this priority. Repeatable.")]
Type = Annotated[str, typer.Option("--type", help="A type, or a prefix such as 'wedding.'.")]
Author = Annotated[str, typer.Option("--by", help="Only what this user, or service account, has sent.")]
Wedding = Annotated[str, typer.Option("--wedding", help="Only about this wedding.")]
PageToken = Annotated[str, typer.Option("--page-token", help="next_page_token of the page before.")]


_HEADINGS: Final = {
    AnalyticsGroup.ANALYTICS_GROUP_BROADCAST: "id",
    AnalyticsGroup.ANALYTICS_GROUP_TYPE: "type",
    AnalyticsGroup.ANALYTICS_GROUP_PRIORITY: "priority",
}


def register(app: typer.Typer) -> None:
    """Adds the commands to the root."""
    app.command("list")(list_broadcasts)
    app.command()(analytics)


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
        return await connection.sender.ListBroadcasts(request)

    ask(context.obj, call, _print_broadcasts)


def _print_broadcasts(answer: ListBroadcastsResponse) -> None:
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
            for each in answer.broadcasts
        ),
    )
    output.more(answer.next_page_token)


def analytics(
    context: typer.Context,
    group: Annotated[str, typer.Option(help="What rows are about: broadcast, type or priority.")] = "type",
    first: Annotated[str, typer.Option(help="The first day, such as 2027-05-01; 30 days when absent.")] = "",
    last: Annotated[str, typer.Option(help="The last day; today when absent.")] = "",
    broadcast: Annotated[list[str] | None, typer.Option(help="Only this broadcast's id. Repeatable.")] = None,
    broadcast_type: Type = "",
    priority: Priorities = None,
    by: Author = "",
    wedding: Wedding = "",
    page_size: Annotated[int, typer.Option(help="1-1000 rows a page.")] = 100,
    page_token: PageToken = "",
) -> None:
    """Show how many people had been reached by the end of each day (UTC), and what they had done."""
    request = GetAnalyticsRequest(
        group=parse_group(group),
        first_day=parse_day("--first", first),
        last_day=parse_day("--last", last),
        broadcast_ids=broadcast or (),
        type=broadcast_type,
        priorities=[parse_priority(name) for name in priority or ()],
        created_by=resolve_author(by),
        wedding_id=resolve_id(wedding) if wedding else "",
        page_size=page_size,
        page_token=page_token,
    )

    async def call(connection: Connection) -> GetAnalyticsResponse:
        return await connection.sender.GetAnalytics(request)

    ask(context.obj, call, lambda answer: _print_analytics(request.group, answer))


def _print_analytics(group: "AnalyticsGroup.ValueType", answer: GetAnalyticsResponse) -> None:
    output.table(
        ("day", _HEADINGS[group], "targeted", "delivered", "read", "acknowledged", "clicked", "until read"),
        (
            (
                _day(row.day),
                _subject(row),
                f"{row.targeted:,}",
                _with_share(row.delivered, row.delivery_rate if row.HasField("delivery_rate") else None),
                _with_share(row.read, row.engagement_rate if row.HasField("engagement_rate") else None),
                f"{row.acknowledged:,}",
                f"{row.clicked:,}",
                output.span(row.average_time_to_read) if row.HasField("average_time_to_read") else "",
            )
            for row in answer.rows
        ),
    )
    output.console.print(f"Days after {_day(answer.counted_through)} are still being counted.", style="dim")
    output.more(answer.next_page_token)


def _subject(row: AnalyticsRow) -> str | Text:
    return row.broadcast_id or row.type or output.priority(row.priority)


def _with_share(people: int, rate: float | None) -> str:
    return f"{people:,}" if rate is None else f"{people:,} ({rate:.0%})"


def _day(day: Date) -> str:
    return f"{day.year:04}-{day.month:02}-{day.day:02}"
