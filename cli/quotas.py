"""Shows what a sender may still send."""

from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.sender_pb2 import GetQuotaRequest, GetQuotaResponse, Quota

from cli import output
from cli.arguments import parse_priority
from cli.connection import Connection, ask
from cli.identities import resolve_id

_FEW = 0.2


def quota(
    context: typer.Context,
    broadcast_type: Annotated[str, typer.Option("--type", help="Broadcast type, such as timeline.changed.")],
    priority: Annotated[str, typer.Option("--priority", help="critical, high, normal or low.")] = "",
    wedding: Annotated[
        str, typer.Option("--wedding", help="The wedding that it is about: an id, or wedding-1.")
    ] = "",
) -> None:
    """Show how many broadcasts of a type you may still send."""
    request = GetQuotaRequest(
        type=broadcast_type,
        priority=parse_priority(priority),
        wedding_id=resolve_id(wedding) if wedding else "",
    )

    async def call(connection: Connection) -> GetQuotaResponse:
        return await connection.sender.GetQuota(request)

    ask(context.obj, call, lambda answer: print_quota(answer.quota))


def print_quota(left: Quota) -> None:
    """What is left, and when there is more if it is nothing."""
    hour = f"{left.hour_remaining:,} of {left.hour_limit:,} in this hour"
    day = f"{left.day_remaining:,} of {left.day_limit:,} in 24 hours"
    again = f"; the next is free at {_second_after(left.reset_time)}" if left.HasField("reset_time") else ""
    output.console.print(f"Left to send: {hour}, {day}{again}.")


def _second_after(moment: Timestamp) -> str:
    """Whoever comes at that second must not be too early, as with the one that a refusal tells."""
    return output.moment(Timestamp(seconds=moment.seconds + (moment.nanos > 0)))


def print_if_few(left: Quota) -> None:
    """The same, for somebody who did not ask: only when a fifth of a limit, or less, is left."""
    if left.hour_remaining <= _FEW * left.hour_limit or left.day_remaining <= _FEW * left.day_limit:
        print_quota(left)
