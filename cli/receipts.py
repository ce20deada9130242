"""Lists who has read and acknowledged a broadcast, and who has not."""

from typing import Annotated

import typer
from wedsync.broadcast.v1.inbox_pb2 import ListReceiptsRequest, ListReceiptsResponse

from cli import output
from cli.connection import Connection, ask


def receipts(
    context: typer.Context,
    broadcast_id: Annotated[str, typer.Argument(help="The broadcast's id.")],
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only those who have not acknowledged it.")
    ] = False,
    page_size: Annotated[int, typer.Option(help="1-1000 people a page.")] = 100,
    page_token: Annotated[str, typer.Option(help="next_page_token of the page before.")] = "",
) -> None:
    """Show by person who has read and acknowledged a broadcast that is yours to see."""
    request = ListReceiptsRequest(
        broadcast_id=broadcast_id, unacknowledged_only=waiting, page_size=page_size, page_token=page_token
    )

    async def call(connection: Connection) -> ListReceiptsResponse:
        return await connection.inbox.ListReceipts(request)

    ask(context.obj, call, _print)


def _print(answer: ListReceiptsResponse) -> None:
    output.table(
        ("id", "name", "role", "read", "ack", ""),
        (
            (
                each.user_id,
                each.display_name,
                each.role,
                output.short_moment(each.read_at),
                output.short_moment(each.acknowledged_at),
                "left the team" if each.has_left else "",
            )
            for each in answer.receipts
        ),
    )
    output.console.print(f"{answer.acknowledged_count} of {answer.total_count} have acknowledged it")
    if answer.HasField("cleaned_time"):
        output.console.print(f"Who did nothing is not known since {output.moment(answer.cleaned_time)}")
    output.more(answer.next_page_token)
