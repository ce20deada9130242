"""Shows and changes a person's own preferences."""

from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1.common_pb2 import Channel
from wedsync.broadcast.v1.preferences_pb2 import (
    GetPreferencesRequest,
    GetPreferencesResponse,
    Preferences,
    QuietHours,
    UpdatePreferencesRequest,
    UpdatePreferencesResponse,
    WeddingFilter,
)

from cli import output
from cli.arguments import parse_channel, parse_switch, parse_time_of_day
from cli.connection import CALL_TIMEOUT_S, Connection, run
from cli.exits import ExitCode, Failure
from cli.identities import resolve_id
from cli.settings import Settings

app = typer.Typer(
    help="A person's own preferences (choose whose with --as or --token).", no_args_is_help=True
)
CATEGORIES = ("system", "business", "collaboration", "wedding")
Switch = Annotated[str | None, typer.Option(metavar="on|off")]


@app.command()
def get(context: typer.Context) -> None:
    """Show the preferences that apply."""
    settings: Settings = context.obj
    answer = run(settings, _get)
    output.print_json(answer) if settings.json else _print(answer.preferences)


@app.command("set")
def change(
    context: typer.Context,
    system: Switch = None,
    business: Switch = None,
    collaboration: Switch = None,
    wedding: Switch = None,
    critical_only: Switch = None,
    channels: Annotated[
        str | None, typer.Option(help="Comma-separated, such as realtime,email,push.")
    ] = None,
    quiet: Annotated[str | None, typer.Option(help="A window such as 22:00-07:00, or off.")] = None,
    zone: Annotated[
        str | None, typer.Option(help="The window's IANA zone; the person's own when absent.")
    ] = None,
    mute_wedding: Annotated[list[str] | None, typer.Option(help="Mute a wedding. Repeatable.")] = None,
    unmute_wedding: Annotated[
        list[str] | None, typer.Option(help="Hear about a wedding again. Repeatable.")
    ] = None,
    etag: Annotated[str, typer.Option(help="Change only this version.")] = "",
) -> None:
    """Change what is given and leave the rest."""
    settings: Settings = context.obj
    switches = {
        "system": system,
        "business": business,
        "collaboration": collaboration,
        "wedding": wedding,
        "critical_only": critical_only,
    }
    given = {name: parse_switch(f"--{name}", text) for name, text in switches.items() if text is not None}
    wanted = Preferences(etag=etag, **given)  # type: ignore[arg-type]
    paths = list(given)
    if channels is not None:
        wanted.channels.extend(parse_channel(name.strip()) for name in channels.split(",") if name.strip())
        paths.append("channels")
    paths += _quiet(wanted, quiet, zone)
    if not paths and not mute_wedding and not unmute_wedding:
        raise Failure("Nothing to change: see `broadcast prefs set --help`.", ExitCode.USAGE)

    async def call(connection: Connection) -> UpdatePreferencesResponse:
        if mute_wedding or unmute_wedding:
            current = (await _get(connection)).preferences
            wanted.wedding_filters.extend(_filters(current, mute_wedding or [], unmute_wedding or []))
            wanted.etag = wanted.etag or current.etag
            paths.append("wedding_filters")
        request = UpdatePreferencesRequest(
            request_id=str(uuid4()), preferences=wanted, update_mask=FieldMask(paths=paths)
        )
        return await connection.preferences.UpdatePreferences(
            request, metadata=connection.metadata(), timeout=CALL_TIMEOUT_S
        )

    answer = run(settings, call)
    output.print_json(answer) if settings.json else _print(answer.preferences)


async def _get(connection: Connection) -> GetPreferencesResponse:
    return await connection.preferences.GetPreferences(
        GetPreferencesRequest(), metadata=connection.metadata(), timeout=CALL_TIMEOUT_S
    )


def _quiet(wanted: Preferences, quiet: str | None, zone: str | None) -> list[str]:
    paths = []
    if quiet == "off":
        wanted.quiet_hours.enabled = False
        paths.append("quiet_hours.enabled")
    elif quiet is not None:
        start, _, end = quiet.partition("-")
        window = QuietHours(
            enabled=True, start=parse_time_of_day("--quiet", start), end=parse_time_of_day("--quiet", end)
        )
        wanted.quiet_hours.CopyFrom(window)
        paths += ["quiet_hours.enabled", "quiet_hours.start", "quiet_hours.end"]
    if zone is not None:
        wanted.quiet_hours.time_zone = zone
        paths.append("quiet_hours.time_zone")
    return paths


def _filters(current: Preferences, mute: list[str], unmute: list[str]) -> list[WeddingFilter]:
    filters = {each.wedding_id: each for each in current.wedding_filters}
    for muted, names in ((True, mute), (False, unmute)):
        for wedding_id in map(resolve_id, names):
            filters.setdefault(wedding_id, WeddingFilter(wedding_id=wedding_id)).muted = muted
    return [each for each in filters.values() if each.muted or each.channels]


def _print(preferences: Preferences) -> None:
    quiet = preferences.quiet_hours
    window = (
        f"{quiet.start.hours:02d}:{quiet.start.minutes:02d}-{quiet.end.hours:02d}:{quiet.end.minutes:02d} "
        f"{quiet.time_zone or 'in their own zone'}"
        if quiet.enabled
        else "off"
    )
    categories = [f"{name} {'on' if getattr(preferences, name) else 'off'}" for name in CATEGORIES]
    muted = [each.wedding_id for each in preferences.wedding_filters if each.muted]
    pairs = [
        ("categories", ", ".join(categories)),
        ("critical only", "on" if preferences.critical_only else "off"),
        ("channels", ", ".join(output.word(Channel.Name(channel)) for channel in preferences.channels)),
        ("quiet hours", window),
        ("muted weddings", ", ".join(muted)),
        ("set by", "the person" if preferences.edited else "the preset of their role"),
        ("etag", preferences.etag),
    ]
    output.facts((name, value) for name, value in pairs if value)
