"""Tells the directory who people are and which weddings they work on, from files or one by one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeVar
from uuid import uuid4

import typer
from google.protobuf.message import Message
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from wedsync.broadcast.v1.directory_pb2 import (
    GetRecipientRequest,
    GetRecipientResponse,
    Recipient,
    SetWeddingTeamRequest,
    SetWeddingTeamResponse,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    UserType,
    WeddingEntry,
)

from cli import output
from cli.connection import Connection, ask, run
from cli.identities import resolve_id
from cli.records import read_recipients, read_weddings
from cli.settings import Settings

BATCH = 1_000
M = TypeVar("M", bound=Message)

app = typer.Typer(help="Recipients, weddings and teams.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="A .csv or .json file.", exists=True, dir_okay=False)]


@app.command()
def upsert(context: typer.Context, file: File) -> None:
    """Add or replace recipients from a file, a thousand a call. Columns: user_id, display_name, role, user_type, tier,
    email, phone, time_zone.
    """
    _upsert_recipients(context.obj, read_recipients(file))


@app.command("upsert-weddings")
def upsert_weddings(context: typer.Context, file: File) -> None:
    """Add or replace weddings from a file, a thousand a call. Columns: wedding_id, couple_name, wedding_date, status,
    time_zone.
    """
    _upsert_weddings(context.obj, read_weddings(file))


@app.command()
def team(
    context: typer.Context,
    wedding: Annotated[str, typer.Argument(help="A wedding id, or wedding-1.")],
    user: Annotated[list[str] | None, typer.Argument(help="Everyone on the team; nobody clears it.")] = None,
) -> None:
    """Replace a wedding's team."""
    request = SetWeddingTeamRequest(
        request_id=str(uuid4()),
        wedding_id=resolve_id(wedding),
        user_ids=[resolve_id(name) for name in user or ()],
    )

    async def call(connection: Connection) -> SetWeddingTeamResponse:
        return await connection.directory.SetWeddingTeam(request)

    ask(context.obj, call, _print_team)


def _print_team(answer: SetWeddingTeamResponse) -> None:
    output.console.print(f"{answer.added} joined, {answer.removed} left; team version {answer.team_version}")
    if not answer.inbox_applied:
        output.console.print("The inbox could not be reached; it follows by itself.", style="yellow")


@app.command()
def show(context: typer.Context, user: Annotated[str, typer.Argument(help="A user id, or a name.")]) -> None:
    """Show a person's directory entry."""

    async def call(connection: Connection) -> GetRecipientResponse:
        return await connection.directory.GetRecipient(
            GetRecipientRequest(user_id=resolve_id(user)),
        )

    ask(context.obj, call, lambda answer: _print_person(answer.recipient))


def _print_person(person: Recipient) -> None:
    pairs = [
        ("user_id", person.user_id),
        ("number", str(person.number)),
        ("name", person.display_name),
        ("role", person.role),
        ("type", UserType.Name(person.user_type).removeprefix("USER_TYPE_").lower()),
        ("tier", person.tier),
        ("email", person.email),
        ("phone", person.phone),
        ("zone", person.time_zone),
    ]
    output.facts((name, value) for name, value in pairs if value)


def _upsert_recipients(settings: Settings, people: Sequence[Recipient]) -> None:
    async def call(connection: Connection) -> None:
        created = 0
        with _progress(settings) as progress:
            task = progress.add_task("recipients", total=len(people))
            for start, batch in _batches(people):
                request = UpsertRecipientsRequest(request_id=str(uuid4()), recipients=batch)
                answer = await connection.directory.UpsertRecipients(request)
                created += answer.created
                progress.update(task, completed=start + len(batch))
        _report(settings, len(people), created)

    run(settings, call)


def _upsert_weddings(settings: Settings, weddings: Sequence[WeddingEntry]) -> None:
    async def call(connection: Connection) -> None:
        created = 0
        with _progress(settings) as progress:
            task = progress.add_task("weddings", total=len(weddings))
            for start, batch in _batches(weddings):
                request = UpsertWeddingsRequest(request_id=str(uuid4()), weddings=batch)
                answer = await connection.directory.UpsertWeddings(request)
                created += answer.created
                progress.update(task, completed=start + len(batch))
        _report(settings, len(weddings), created)

    run(settings, call)


def _batches(records: Sequence[M]) -> Iterator[tuple[int, Sequence[M]]]:
    for start in range(0, len(records), BATCH):
        yield start, records[start : start + BATCH]


def _progress(settings: Settings) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=output.errors, disable=settings.json)


def _report(settings: Settings, total: int, created: int) -> None:
    if settings.json:
        output.console.print_document({"upserted": total, "created": created})
    else:
        output.console.print(f"{total:,} upserted, {created:,} of them new")
