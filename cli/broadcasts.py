"""Sends broadcasts, previews their audience, shows what became of them, approves, rejects and cancels them."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

import typer
from rich.text import Text
from wedsync.broadcast.v1.common_pb2 import Action, BroadcastState, Channel, Targeting
from wedsync.broadcast.v1.sender_pb2 import (
    ApproveBroadcastRequest,
    ApproveBroadcastResponse,
    Broadcast,
    BroadcastStats,
    CancelBroadcastRequest,
    CancelBroadcastResponse,
    GetBroadcastRequest,
    GetBroadcastResponse,
    PreviewAudienceRequest,
    PreviewAudienceResponse,
    RejectBroadcastRequest,
    RejectBroadcastResponse,
    SendBroadcastRequest,
    SendBroadcastResponse,
)

from cli import output, quotas, segments, watching
from cli.arguments import parse_priority, parse_time
from cli.connection import Connection, ask, run
from cli.identities import resolve_id

Type = Annotated[str, typer.Option("--type", help="Broadcast type, such as timeline.changed.")]
Everyone = Annotated[bool, typer.Option("--everyone", help="All recipients.")]
Users = Annotated[
    list[str] | None, typer.Option("--user", help="A user id, or a name of the demo. Repeatable.")
]
Roles = Annotated[list[str] | None, typer.Option("--role", help="A role such as photographer. Repeatable.")]
Tiers = Annotated[list[str] | None, typer.Option("--tier", help="A tier such as professional. Repeatable.")]
Segments = Annotated[list[str] | None, typer.Option("--segment", help="A segment's id or name. Repeatable.")]
Teams = Annotated[list[str] | None, typer.Option("--team", help="Only this wedding's team. Repeatable.")]
About = Annotated[str, typer.Option("--wedding", help="The wedding that it is about: an id, or wedding-1.")]
PriorityName = Annotated[str, typer.Option("--priority", help="critical, high, normal or low.")]
Expires = Annotated[str, typer.Option("--expires", help="ISO 8601 time after which it is void.")]
BroadcastId = Annotated[str, typer.Argument(help="The broadcast's id.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the root."""
    for command in (send, preview, show, watching.watch, approve, reject, cancel):
        app.command()(command)


def send(
    context: typer.Context,
    broadcast_type: Type,
    title: Annotated[str, typer.Option(help="1-200 characters.")],
    message: Annotated[str, typer.Option(help="1-1000 characters.")],
    everyone: Everyone = False,
    user: Users = None,
    role: Roles = None,
    tier: Tiers = None,
    segment: Segments = None,
    team: Teams = None,
    wedding: About = "",
    priority: PriorityName = "",
    action_label: Annotated[str, typer.Option(help="The text of its button.")] = "",
    action_url: Annotated[str, typer.Option(help="Where the button leads.")] = "",
    at: Annotated[str, typer.Option(help="ISO 8601 time to send it at; now when absent.")] = "",
    expires: Expires = "",
    request_id: Annotated[str, typer.Option(help="UUID that makes a retry safe; made up when absent.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, send nothing.")] = False,
    follow: Annotated[bool, typer.Option("--watch", help="Then watch it go out.")] = False,
) -> None:
    """Send a broadcast, now or later."""
    request = SendBroadcastRequest(
        request_id=request_id or str(uuid4()),
        type=broadcast_type,
        title=title,
        message=message,
        targeting=_targeting(everyone, user, role, tier, segment, team),
        wedding_id=resolve_id(wedding) if wedding else "",
        priority=parse_priority(priority),
        action=Action(label=action_label, url=action_url) if action_label or action_url else None,
        scheduled_for=parse_time("--at", at),
        expires_at=parse_time("--expires", expires),
        validate_only=dry_run,
    )
    run(context.obj, lambda connection: _send(connection, request, follow))


async def _send(connection: Connection, request: SendBroadcastRequest, follow: bool) -> None:
    await _resolve_segments(connection, request.targeting)
    answer = await connection.sender.SendBroadcast(request, wait_for_ready=False)
    if connection.json:
        output.print_json(answer)
    else:
        _print_sent(answer, request.validate_only)
    if follow and not request.validate_only:
        await watching.follow(connection, answer.broadcast.broadcast_id, is_known=True)


def _print_sent(answer: SendBroadcastResponse, dry_run: bool) -> None:
    people = f"{answer.targeted_users:,} {'person' if answer.targeted_users == 1 else 'people'}"
    broadcast_id, state = answer.broadcast.broadcast_id, answer.broadcast.state
    waits = state == BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL
    if dry_run:
        output.console.print(
            f"Would {'wait for approval by another admin, then ' * waits}be sent to {people}."
        )
    else:
        output.console.print(Text.assemble((broadcast_id, "bold"), f"  {output.state(state)}, for {people}"))
        if waits:
            output.console.print(
                f"It goes out once another admin types: broadcast approve {broadcast_id}", soft_wrap=True
            )
    if answer.unknown_user_ids:
        output.console.print(f"{answer.unknown_user_ids} of the user ids are unknown and were left out.")
    quotas.print_if_few(answer.quota)


def preview(
    context: typer.Context,
    broadcast_type: Type,
    everyone: Everyone = False,
    user: Users = None,
    role: Roles = None,
    tier: Tiers = None,
    segment: Segments = None,
    team: Teams = None,
    wedding: About = "",
    priority: PriorityName = "",
    expires: Expires = "",
) -> None:
    """Count who would get a broadcast now, on which channel, or why not. Nothing is sent."""
    request = PreviewAudienceRequest(
        targeting=_targeting(everyone, user, role, tier, segment, team),
        type=broadcast_type,
        priority=parse_priority(priority),
        wedding_id=resolve_id(wedding) if wedding else "",
        expires_at=parse_time("--expires", expires),
    )

    async def call(connection: Connection) -> PreviewAudienceResponse:
        await _resolve_segments(connection, request.targeting)
        return await connection.sender.PreviewAudience(request)

    ask(context.obj, call, _print_preview)


def _print_preview(answer: PreviewAudienceResponse) -> None:
    people = "1 person is" if answer.targeted == 1 else f"{answer.targeted:,} people are"
    output.console.print(f"{people} meant.")
    output.ledger(answer.ledger)
    output.table(
        ("released from", "channel", "people"),
        (
            (output.moment(held.hour), output.word(Channel.Name(held.channel)), f"{held.count:,}")
            for held in answer.held
        ),
    )
    if answer.asleep_past_expiry:
        output.console.print(f"{answer.asleep_past_expiry:,} would sleep past the expiry.")


def show(context: typer.Context, broadcast_id: BroadcastId) -> None:
    """Show a broadcast, its ledger and who has read it."""

    async def call(connection: Connection) -> GetBroadcastResponse:
        return await connection.sender.GetBroadcast(
            GetBroadcastRequest(broadcast_id=broadcast_id),
        )

    ask(context.obj, call, _print_shown)


def _print_shown(answer: GetBroadcastResponse) -> None:
    _print_broadcast(answer.broadcast)
    _print_stats(answer.stats)


def _print_broadcast(broadcast: Broadcast) -> None:
    pairs: list[tuple[str, str | Text]] = [
        ("id", broadcast.broadcast_id),
        ("type", broadcast.type),
        ("priority", output.priority(broadcast.priority)),
        ("title", broadcast.title),
        ("message", broadcast.message),
        ("wedding", broadcast.wedding.couple_name),
        ("state", output.state(broadcast.state)),
        ("scheduled for", output.moment(broadcast.scheduled_for)),
        ("sent at", output.moment(broadcast.sent_at)),
        ("cancelled at", output.moment(broadcast.cancelled_at)),
        ("decided by", broadcast.decided_by),
        ("decided at", output.moment(broadcast.decided_at)),
        ("their reason", broadcast.decision_reason),
        ("error", broadcast.error),
    ]
    output.facts((name, value) for name, value in pairs if value)


def _print_stats(stats: BroadcastStats) -> None:
    counts = []
    if stats.ledger or not stats.cleaned:
        counts.append(f"{stats.targeted:,} targeted")
    if stats.HasField("engagement"):
        people = stats.engagement
        counts += [f"{people.delivered:,} delivered", f"{people.read:,} read"]
        counts.append(f"{people.acknowledged:,} acknowledged")
    if stats.cleaned:
        counts.append("the rest is older than it is kept")
    output.console.print("\n" + " · ".join(counts))
    output.ledger(stats.ledger)


def approve(
    context: typer.Context,
    broadcast_id: BroadcastId,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
) -> None:
    """Let a broadcast go out that waits for approval. Admins only, and never their own."""
    request = ApproveBroadcastRequest(request_id=str(uuid4()), broadcast_id=broadcast_id, reason=reason)

    async def call(connection: Connection) -> ApproveBroadcastResponse:
        return await connection.sender.ApproveBroadcast(request)

    ask(context.obj, call, _print_approved)


def _print_approved(answer: ApproveBroadcastResponse) -> None:
    due = answer.broadcast.scheduled_for
    later = f", to go out at {output.moment(due)}" if due.ToDatetime(UTC) > datetime.now(UTC) else ""
    output.console.print(f"Approved: it is {output.state(answer.broadcast.state)}{later}.")


def reject(
    context: typer.Context,
    broadcast_id: BroadcastId,
    reason: Annotated[str, typer.Option(help="What its sender is told.")] = "",
) -> None:
    """End a broadcast that waits for approval: nobody will get it. Admins only, and never their own."""
    request = RejectBroadcastRequest(request_id=str(uuid4()), broadcast_id=broadcast_id, reason=reason)

    async def call(connection: Connection) -> RejectBroadcastResponse:
        return await connection.sender.RejectBroadcast(request)

    ask(context.obj, call, lambda _: output.console.print("Rejected: nobody will get it."))


def cancel(
    context: typer.Context,
    broadcast_id: BroadcastId,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
    retract: Annotated[
        bool, typer.Option("--retract", help="Also take it out of the inboxes it has reached.")
    ] = False,
) -> None:
    """Stop what has not gone out."""
    request = CancelBroadcastRequest(
        request_id=str(uuid4()), broadcast_id=broadcast_id, reason=reason, retract=retract
    )

    async def call(connection: Connection) -> CancelBroadcastResponse:
        return await connection.sender.CancelBroadcast(request)

    ask(context.obj, call, _print_cancelled)


def _print_cancelled(answer: CancelBroadcastResponse) -> None:
    output.console.print(f"Stopped for {answer.stopped:,} people; {answer.already_sent:,} had it already.")


async def _resolve_segments(connection: Connection, targeting: Targeting) -> None:
    """Put ids in the place of names."""
    targeting.segment_ids[:] = [await segments.resolve(connection, each) for each in targeting.segment_ids]


def _targeting(
    everyone: bool,
    user: list[str] | None,
    role: list[str] | None,
    tier: list[str] | None,
    segment: list[str] | None,
    team: list[str] | None,
) -> Targeting:
    return Targeting(
        everyone=everyone,
        user_ids=[resolve_id(name) for name in user or ()],
        roles=role or (),
        tiers=tier or (),
        segment_ids=segment or (),
        wedding_ids=[resolve_id(name) for name in team or ()],
    )
