"""Reads the audit log, and checks that all of it is as it was written."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text
from wedsync.broadcast.v1.sender_pb2 import (
    AuditAction,
    AuditCheckpoint,
    AuditEvent,
    AuditFlawKind,
    ListAuditEventsRequest,
    ListAuditEventsResponse,
    VerifyAuditLogRequest,
    VerifyAuditLogResponse,
)

from cli import output
from cli.arguments import parse_audit_action, parse_checkpoint, parse_interval
from cli.connection import Connection, ask
from cli.exits import ExitCode, Failure
from cli.identities import resolve_author, resolve_id

_FLAWS = {
    AuditFlawKind.AUDIT_FLAW_KIND_ENTRY_CHANGED: "entry {} is not what was written",
    AuditFlawKind.AUDIT_FLAW_KIND_ENTRY_MISSING: "entry {} is missing, and there are later ones",
    AuditFlawKind.AUDIT_FLAW_KIND_CHAIN_BROKEN: "entry {} does not follow the one before it: one was replaced",
    AuditFlawKind.AUDIT_FLAW_KIND_TAIL_MISSING: "its end is missing, from entry {} on",
    AuditFlawKind.AUDIT_FLAW_KIND_CHECKPOINT_DIFFERS: (
        "entry {} has another hash than the checkpoint of it: the log was written anew, or the checkpoint is wrong"
    ),
}

app = typer.Typer(help="Who did what, for admins and audit.read.", no_args_is_help=True)


@app.command("list")
def list_events(
    context: typer.Context,
    action: Annotated[
        list[str] | None, typer.Option(help="Only this, such as critical_accepted. Repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Only what this user, or service account, did.")] = "",
    broadcast: Annotated[str, typer.Option(help="Only what was done to this broadcast.")] = "",
    user: Annotated[
        str, typer.Option(help="Only what was done to this person: an id, or a name of the demo.")
    ] = "",
    wedding: Annotated[str, typer.Option(help="Only about this wedding: an id, or wedding-1.")] = "",
    since: Annotated[str, typer.Option(help="Only what happened at this ISO 8601 time or later.")] = "",
    until: Annotated[str, typer.Option(help="Only what happened before this time.")] = "",
    page_size: Annotated[int, typer.Option(help="1-100 entries a page.")] = 50,
    page_token: Annotated[str, typer.Option(help="next_page_token of the page before.")] = "",
) -> None:
    """List entries, newest first."""
    request = ListAuditEventsRequest(
        actions=[parse_audit_action(name) for name in action or ()],
        actor=resolve_author(by),
        broadcast_id=broadcast,
        user_id=resolve_id(user) if user else "",
        wedding_id=resolve_id(wedding) if wedding else "",
        time=parse_interval("--since", since, "--until", until),
        page_size=page_size,
        page_token=page_token,
    )

    async def call(connection: Connection) -> ListAuditEventsResponse:
        return await connection.sender.ListAuditEvents(request)

    ask(context.obj, call, _print_events)


def _print_events(answer: ListAuditEventsResponse) -> None:
    output.table(("entry", "at", "what"), map(_row, answer.events))
    if not answer.events:
        output.console.print("No entries.")
    output.more(answer.next_page_token)


def _row(event: AuditEvent) -> tuple[str, str, str]:
    return str(event.position), output.moment(event.time), "\n".join(_lines(event))


def _lines(event: AuditEvent) -> Iterator[str]:
    action = output.word(AuditAction.Name(event.action))
    yield f"{action}: {event.broadcast_type}" if event.broadcast_type else action
    if facts := ", ".join(_facts(event)):
        yield facts
    yield f"by {event.actor or 'others, added up'}"
    for name in ("broadcast_id", "user_id", "wedding_id", "segment_id"):
        if value := getattr(event, name):
            yield f"{name.removesuffix('_id')} {value}"


def _facts(event: AuditEvent) -> Iterator[str]:
    if event.HasField("stopped"):
        yield f"stopped for {event.stopped:,}, {event.already_sent:,} had it"
    elif event.broadcast_id:
        yield f"for {event.targeted:,} people"
    if event.retract:
        yield "taken back"
    if event.role_after:
        yield f"{event.role_before or 'new'} → {event.role_after}"
    if event.method:
        yield f"{event.method}, {event.attempts:,} {'time' if event.attempts == 1 else 'times'}"


@app.command()
def verify(
    context: typer.Context,
    since: Annotated[
        str, typer.Option(help="Begin after this checkpoint, POSITION:HASH, which must still be right.")
    ] = "",
    expect: Annotated[str, typer.Option(help="A checkpoint that was kept from before, POSITION:HASH.")] = "",
) -> None:
    """Check every entry against the chain, and end with 9 when one was changed or taken away.

    Keep the checkpoint that is printed, elsewhere than in the database: given as --expect it shows later that nothing
    before it was changed, not even by somebody who wrote the whole log anew.
    """
    begin = AuditCheckpoint() if not since else parse_checkpoint("--since", since)
    expected = parse_checkpoint("--expect", expect) if expect else None

    async def walk(connection: Connection) -> VerifyAuditLogResponse:
        checked, request = 0, VerifyAuditLogRequest(since=begin, expected=expected)
        while True:
            answer = await connection.sender.VerifyAuditLog(request)
            checked += answer.checked
            if answer.complete or answer.HasField("flaw"):
                answer.checked = checked
                return answer
            request.since.CopyFrom(answer.through)

    ask(context.obj, walk, _print_intact, _refuse_flaw)


def _refuse_flaw(answer: VerifyAuditLogResponse) -> None:
    if answer.HasField("flaw"):
        where = _FLAWS.get(answer.flaw.kind, "something is wrong at entry {}").format(answer.flaw.position)
        raise Failure(f"The audit log is broken: {where}.", ExitCode.BROKEN)


def _print_intact(answer: VerifyAuditLogResponse) -> None:
    if answer.HasField("flaw"):
        return
    entries = "1 entry" if answer.checked == 1 else f"{answer.checked:,} entries"
    output.console.print(Text.assemble(("The audit log is intact:", "green"), f" {entries} checked."))
    through = answer.through
    if through.position:
        output.console.print(f"Keep this: --expect {through.position}:{through.hash.hex()}", soft_wrap=True)
