"""What an operator does by hand, or a deployment before it starts the services of a new version.

What is done to the servers themselves is in `groundwork`, which these commands alone import: it takes half a second.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID, uuid4

import typer
from google.protobuf.duration_pb2 import Duration
from rich.text import Text
from wedsync.broadcast.v1.common_pb2 import CleanedUp
from wedsync.broadcast.v1.sender_pb2 import CleanUpRequest, CleanUpResponse

from cli import output
from cli.connection import Connection, ask
from cli.exits import ExitCode, Failure
from cli.settings import Settings

app = typer.Typer(help="For operators.", no_args_is_help=True)

# What has piled up for months goes in small batches, with as much rest between them.
_CLEANUP_TIMEOUT_S: Final = 900.0
_UNITS: Final = ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute"))


@app.callback()
def admin() -> None:
    """For operators."""


@app.command()
def provision() -> None:
    """Make the suite's place on servers that are there already: roles, schemas, migrations, streams, consumers.

    Reads DATABASE_URL, NATS_URL, PROVISIONER_NATS_PASSWORD and a POSTGRES_…_PASSWORD for each service's login.
    Running it again does no harm, and is what a lost NATS store needs.
    """
    from cli import groundwork

    groundwork.provision()


@app.command()
def bootstrap(
    context: typer.Context,
    user: Annotated[UUID, typer.Option(help="The user id of the first admin.")],
    name: Annotated[str | None, typer.Option(help="Their name, if the directory does not know them.")] = None,
    time_zone: Annotated[
        str, typer.Option(help="Their time zone, if the directory does not know them.")
    ] = "UTC",
) -> None:
    """Make the first admin, once: somebody whom the directory knows, or with a name somebody new.

    Reads DATABASE_URL, which is the administrator's, and needs no service to run. Once there is an admin it refuses,
    with exit code 6, and changes nothing: further admins are made by UpsertRecipients.
    """
    from cli import groundwork

    made = groundwork.bootstrap(user, name, time_zone)
    settings: Settings = context.obj
    if settings.json:
        output.console.print_document({"user_id": str(user), "number": made.number, "is_new": made.is_new})
        return
    known = "new in the directory" if made.is_new else "known to the directory before"
    output.console.print(f"{user} is the first admin: recipient {made.number}, {known}.")


@app.command()
def cleanup(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go, remove nothing.")] = False,
) -> None:
    """Have every service remove what is older than it is kept, as each does by itself every hour or so."""
    request = CleanUpRequest(request_id=str(uuid4()), dry_run=dry_run)

    async def call(connection: Connection) -> CleanUpResponse:
        return await connection.sender.CleanUp(request, timeout=_CLEANUP_TIMEOUT_S)

    count = "would be removed" if dry_run else "removed"
    headings = ("service", "what", "older than", count, "longest batch")
    ask(context.obj, call, lambda answer: output.table(headings, _cleaned_rows(answer)), _refuse_unfinished)


def _refuse_unfinished(answer: CleanUpResponse) -> None:
    unfinished = _unfinished(answer)
    if unfinished:
        raise Failure(
            f"Not everything could be done: {', '.join(unfinished)}. Try again later.", ExitCode.UNAVAILABLE
        )


def _cleaned_rows(answer: CleanUpResponse) -> Iterator[tuple[str | Text, ...]]:
    for service in answer.services:
        if service.error:
            yield service.service, "", "", Text(service.error, style="red"), ""
        for each in service.cleaned:
            count: str | Text = f"{each.count:,}"
            if each.error:
                count = Text(f"{each.count:,}, then {each.error}", style="red")
            yield service.service, each.what, _kept_for(each.kept_for), count, _longest(each)


def _unfinished(answer: CleanUpResponse) -> list[str]:
    """The services that have left something, or could not be asked."""
    return [
        service.service
        for service in answer.services
        if service.error or any(each.error for each in service.cleaned)
    ]


def _kept_for(duration: Duration) -> str:
    """A duration in its largest whole unit."""
    time = duration.ToTimedelta()
    unit, name = next((each for each in _UNITS if not time % each[0]), (timedelta(seconds=1), "second"))
    count = time // unit
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _longest(cleaned: CleanedUp) -> str:
    if not cleaned.HasField("longest_batch"):
        return ""
    return f"{cleaned.longest_batch.ToNanoseconds() / 1e6:.1f} ms"
