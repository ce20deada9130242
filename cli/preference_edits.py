"""Turns what a person typed about roles and weddings into lists of their preferences, which are replaced as a whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wedsync.broadcast.v1.common_pb2 import Channel
from wedsync.broadcast.v1.preferences_pb2 import Preferences, RoleSetting, WeddingFilter

from cli.arguments import parse_channel
from cli.exits import ExitCode, Failure
from cli.identities import resolve_id


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed about roles, or about weddings; a list for each of the options."""

    mute: list[str]
    unmute: list[str]
    channels: list[str]

    def __bool__(self) -> bool:
        return bool(self.mute or self.unmute or self.channels)


def role_settings(typed: Typed, current: Preferences) -> Iterator[RoleSetting]:
    """All that is set by role afterwards: `ROLE:TYPE` of what is muted or not, `ROLE:CHANNELS`, none for their own.

    A role for which nothing is set any more is left out.
    """
    settings = {each.role: each for each in current.role_settings}

    def of(role: str) -> RoleSetting:
        return settings.setdefault(role, RoleSetting(role=role))

    for role, muted in _pairs("--mute-type ROLE:TYPE", typed.mute):
        if muted not in of(role).muted_types:
            of(role).muted_types.append(muted)
    for role, heard in _pairs("--unmute-type ROLE:TYPE", typed.unmute):
        if heard in of(role).muted_types:
            of(role).muted_types.remove(heard)
    for role, names in _pairs("--role-channels ROLE:CHANNELS", typed.channels):
        of(role).channels[:] = parse_channels(names)
    return (each for each in settings.values() if each.muted_types or each.channels)


def wedding_filters(typed: Typed, current: Preferences) -> Iterator[WeddingFilter]:
    """All that is set by wedding afterwards: what is muted or not, and `WEDDING:CHANNELS`, none for those of the rest.

    A wedding for which nothing is set any more is left out.
    """
    filters = {each.wedding_id: each for each in current.wedding_filters}

    def of(name: str) -> WeddingFilter:
        wedding_id = resolve_id(name)
        return filters.setdefault(wedding_id, WeddingFilter(wedding_id=wedding_id))

    for muted, names in ((True, typed.mute), (False, typed.unmute)):
        for name in names:
            of(name).muted = muted
    for name, channels in _pairs("--wedding-channels WEDDING:CHANNELS", typed.channels):
        of(name).channels[:] = parse_channels(channels)
    return (each for each in filters.values() if each.muted or each.channels)


def parse_channels(names: str) -> list["Channel.ValueType"]:
    """Channels by their words, separated by commas."""
    return [parse_channel(name.strip()) for name in names.split(",") if name.strip()]


def _pairs(option: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        whom, colon, what = text.partition(":")
        if not (whom and colon):
            raise Failure(f"{text!r} is not what it takes: {option}.", ExitCode.USAGE)
        yield whom, what
