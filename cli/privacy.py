"""Gives people what is kept about them, and removes them for good."""

import json
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import uuid4

import typer
from rich.text import Text
from wedsync.broadcast.v1.common_pb2 import ExportedRecord
from wedsync.broadcast.v1.directory_pb2 import (
    EraseRecipientRequest,
    EraseRecipientResponse,
    ExportRecipientRequest,
)

from cli import output
from cli.connection import Connection, ask, run
from cli.exits import ExitCode, Failure
from cli.identities import caller_id, resolve_id
from cli.settings import Settings

app = typer.Typer(
    help="What is kept about a person: about oneself, for admins and the scope privacy about anybody.",
    no_args_is_help=True,
)
User = Annotated[str, typer.Option("--user", help="A user id, or a name of the demo; oneself when absent.")]
Services = dict[str, dict[str, list[object]]]
# One that keeps nothing is in the document all the same: it was asked.
_ASKED: Final = ("preferences", "inbox", "sender", "dispatcher")


@app.command()
def export(context: typer.Context, user: User = "") -> None:
    """Print all that every service keeps about a person, as one JSON document."""
    settings: Settings = context.obj
    user_id = _whom(settings, user)

    async def write(connection: Connection) -> None:
        exported_at = datetime.now(UTC)
        services, schema = await _collect(connection, user_id)
        document = {
            "schema": schema,
            "user_id": user_id,
            "exported_at": exported_at.isoformat().replace("+00:00", "Z"),
            "services": services,
        }
        output.console.print_document(document, indent=2)

    run(settings, write)


async def _collect(connection: Connection, user_id: str) -> tuple[Services, str]:
    services: Services = {name: {} for name in _ASKED}
    request = ExportRecipientRequest(user_id=user_id)
    while True:
        page = await connection.directory.ExportRecipient(request)
        for record in page.records:
            _add(services, record)
        if not page.next_page_token:
            return services, page.schema
        request.page_token = page.next_page_token


@app.command()
def erase(
    context: typer.Context,
    user: User = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a person everywhere, for good."""
    settings: Settings = context.obj
    user_id = _whom(settings, user)
    if not yes and not typer.confirm(f"Remove {user_id} everywhere, for good?", err=True):
        raise Failure("Nobody was erased.", ExitCode.INTERRUPTED)
    request = EraseRecipientRequest(user_id=user_id, request_id=str(uuid4()))

    async def call(connection: Connection) -> EraseRecipientResponse:
        return await connection.directory.EraseRecipient(request)

    ask(settings, call, lambda answer: _print_erased(user_id, answer))


def _print_erased(user_id: str, answer: EraseRecipientResponse) -> None:
    erased_at = output.moment(answer.erase_time)
    output.console.print(Text.assemble(("Erased", "green"), f" {user_id}, at {erased_at}"))
    if answer.pending_services:
        away = " and ".join(answer.pending_services)
        output.console.print(
            f"Not reached yet: {away}; told again until it is gone there too.", style="yellow"
        )


def _whom(settings: Settings, user: str) -> str:
    """The person that is named, else the one who calls."""
    return resolve_id(user) if user else caller_id(settings.bearer())


def _add(services: Services, record: ExportedRecord) -> None:
    services.setdefault(record.service, {}).setdefault(record.kind, []).append(json.loads(record.json))
