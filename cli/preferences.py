"""Shows, changes and resets a person's own preferences, and what is recommended to them."""

from collections.abc import Iterable
from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1.common_pb2 import Channel
from wedsync.broadcast.v1.preferences_pb2 import (
    GetPreferencesRequest,
    GetPreferencesResponse,
    GetRecommendedPreferencesRequest,
    GetRecommendedPreferencesResponse,
    Preferences,
    QuietHours,
    Recommendation,
    ResetPreferencesRequest,
    ResetPreferencesResponse,
    RoleSetting,
    UpdatePreferencesRequest,
    UpdatePreferencesResponse,
    WeddingFilter,
)

from cli import output
from cli.arguments import parse_switch, parse_time_of_day
from cli.connection import Connection, ask
from cli.exits import ExitCode, Failure
from cli.preference_edits import Typed, parse_channels, role_settings, wedding_filters

app = typer.Typer(
    help="A person's own preferences (choose whose with --as or --token).", no_args_is_help=True
)
CATEGORIES = ("system", "business", "collaboration", "wedding")
Switch = Annotated[str | None, typer.Option(metavar="on|off")]


@app.command()
def get(context: typer.Context) -> None:
    """Show the preferences that apply."""
    ask(context.obj, _get, _print)


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
    wedding_channels: Annotated[
        list[str] | None,
        typer.Option(metavar="WEDDING:CHANNELS", help="Channels for one wedding. Repeatable."),
    ] = None,
    mute_type: Annotated[
        list[str] | None, typer.Option(metavar="ROLE:TYPE", help="Mute a type while in a role. Repeatable.")
    ] = None,
    unmute_type: Annotated[
        list[str] | None, typer.Option(metavar="ROLE:TYPE", help="Hear of a type again. Repeatable.")
    ] = None,
    role_channels: Annotated[
        list[str] | None, typer.Option(metavar="ROLE:CHANNELS", help="Channels while in a role. Repeatable.")
    ] = None,
    etag: Annotated[str, typer.Option(help="Change only this version.")] = "",
) -> None:
    """Change what is given and leave the rest."""
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
        wanted.channels.extend(parse_channels(channels))
        paths.append("channels")
    paths += _quiet(wanted, quiet, zone)
    by_wedding = Typed(mute_wedding or [], unmute_wedding or [], wedding_channels or [])
    by_role = Typed(mute_type or [], unmute_type or [], role_channels or [])
    if not (paths or by_wedding or by_role):
        raise Failure("Nothing to change: see `broadcast prefs set --help`.", ExitCode.USAGE)

    async def call(connection: Connection) -> UpdatePreferencesResponse:
        if by_wedding or by_role:
            current = (await _get(connection)).preferences
            wanted.etag = wanted.etag or current.etag
            if by_wedding:
                wanted.wedding_filters.extend(wedding_filters(by_wedding, current))
                paths.append("wedding_filters")
            if by_role:
                wanted.role_settings.extend(role_settings(by_role, current))
                paths.append("role_settings")
        return await _update(connection, wanted, paths)

    ask(context.obj, call, _print)


@app.command()
def reset(
    context: typer.Context,
    etag: Annotated[str, typer.Option(help="Reset only this version.")] = "",
) -> None:
    """Take back all that was set: the preset of the role holds again."""
    request = ResetPreferencesRequest(request_id=str(uuid4()), etag=etag)

    async def call(connection: Connection) -> ResetPreferencesResponse:
        return await connection.preferences.ResetPreferences(request)

    ask(context.obj, call, _print)


@app.command()
def recommended(
    context: typer.Context,
    apply: Annotated[bool, typer.Option("--apply", help="Take all of it.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Take one value, such as quiet_hours. Repeatable.")
    ] = None,
) -> None:
    """Show what is recommended to the person's role, and why; take it with --apply or --only."""

    async def call(
        connection: Connection,
    ) -> GetRecommendedPreferencesResponse | UpdatePreferencesResponse:
        offered = await connection.preferences.GetRecommendedPreferences(GetRecommendedPreferencesRequest())
        if not (apply or only):
            return offered
        return await _update(connection, offered.preferences, only or ["*"])

    ask(context.obj, call, _print_offered)


def _print_offered(answer: GetRecommendedPreferencesResponse | UpdatePreferencesResponse) -> None:
    if isinstance(answer, UpdatePreferencesResponse):
        _print(answer)
    else:
        _print_recommended(answer.preferences, answer.recommendations)


async def _update(
    connection: Connection, wanted: Preferences, paths: Iterable[str]
) -> UpdatePreferencesResponse:
    request = UpdatePreferencesRequest(
        request_id=str(uuid4()), preferences=wanted, update_mask=FieldMask(paths=paths)
    )
    return await connection.preferences.UpdatePreferences(request)


async def _get(connection: Connection) -> GetPreferencesResponse:
    return await connection.preferences.GetPreferences(GetPreferencesRequest())


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


def _print(answer: GetPreferencesResponse | UpdatePreferencesResponse | ResetPreferencesResponse) -> None:
    preferences = answer.preferences
    categories = [f"{name} {_switch(getattr(preferences, name))}" for name in CATEGORIES]
    pairs = [
        ("categories", ", ".join(categories)),
        ("critical only", _switch(preferences.critical_only)),
        ("channels", _words(preferences.channels)),
        ("quiet hours", _window(preferences.quiet_hours)),
        *((f"as {each.role}", _differences(each)) for each in preferences.role_settings),
        *(
            ("for a wedding", f"{each.wedding_id}\n{_differences(each)}")
            for each in preferences.wedding_filters
        ),
        ("set by", "the person" if preferences.edited else "the preset of their role"),
        ("etag", preferences.etag),
    ]
    output.facts((name, value) for name, value in pairs if value)


def _print_recommended(preferences: Preferences, recommendations: Iterable[Recommendation]) -> None:
    values = {name: _switch(getattr(preferences, name)) for name in (*CATEGORIES, "critical_only")}
    values |= {"channels": _words(preferences.channels), "quiet_hours": _window(preferences.quiet_hours)}
    output.table(
        ("", "what", "recommended", "why"),
        (
            ("differs" if each.differs else "", each.path, values.get(each.path, ""), each.explanation)
            for each in recommendations
        ),
    )


def _switch(is_on: bool) -> str:
    return "on" if is_on else "off"


def _words(channels: Iterable["Channel.ValueType"]) -> str:
    return ", ".join(output.word(Channel.Name(channel)) for channel in channels)


def _window(quiet: QuietHours) -> str:
    if not quiet.enabled:
        return "off"
    times = (f"{each.hours:02d}:{each.minutes:02d}" for each in (quiet.start, quiet.end))
    return f"{'-'.join(times)} {quiet.time_zone or 'in their own zone'}"


def _differences(setting: RoleSetting | WeddingFilter) -> str:
    """What somebody has set otherwise for a role or a wedding; of the latter all is muted, or nothing."""
    parts = []
    if isinstance(setting, RoleSetting) and setting.muted_types:
        parts.append(f"muted {', '.join(setting.muted_types)}")
    elif isinstance(setting, WeddingFilter) and setting.muted:
        parts.append("muted")
    if setting.channels:
        parts.append(f"by {_words(setting.channels)}")
    return "; ".join(parts)
