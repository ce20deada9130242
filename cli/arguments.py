"""Reads what a person typed: priorities, times, channels, on and off, checkpoints."""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.interval_pb2 import Interval
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Channel, Priority
from wedsync.broadcast.v1.directory_pb2 import UserType, WeddingStatus
from wedsync.broadcast.v1.sender_pb2 import AnalyticsGroup, AuditAction, AuditCheckpoint

from cli.exits import ExitCode, Failure

_CHECKPOINT: Final = re.compile("([1-9][0-9]{0,17}):([0-9a-fA-F]{64})")
_Value = TypeVar("_Value", bound=int)


def parse_priority(name: str) -> "Priority.ValueType":
    """A priority by its word; the empty word leaves the choice to the type."""
    if not name:
        return Priority.PRIORITY_UNSPECIFIED
    try:
        return Priority.Value(f"PRIORITY_{name.upper()}")
    except ValueError as error:
        raise Failure("--priority must be critical, high, normal or low.", ExitCode.USAGE) from error


def parse_state(name: str) -> "BroadcastState.ValueType":
    """A broadcast's state by its word."""
    return _parse_word("--state", name, "BROADCAST_STATE_", BroadcastState.items())


def parse_group(name: str) -> "AnalyticsGroup.ValueType":
    """What rows of analytics are about, by its word."""
    return _parse_word("--group", name, "ANALYTICS_GROUP_", AnalyticsGroup.items())


def parse_user_type(name: str) -> "UserType.ValueType":
    """A kind of person by its word."""
    return _parse_word("--type", name, "USER_TYPE_", UserType.items())


def parse_wedding_status(name: str) -> "WeddingStatus.ValueType":
    """Where a wedding is, by its word."""
    return _parse_word("--status", name, "WEDDING_STATUS_", WeddingStatus.items())


def _parse_word(option: str, name: str, prefix: str, values: Iterable[tuple[str, _Value]]) -> _Value:
    """The value of an enum whose last word was given; not the first, which stands for none."""
    words = {full.removeprefix(prefix).lower(): value for full, value in values if value}
    if name.lower() not in words:
        raise Failure(f"{option} must be one of {', '.join(words)}.", ExitCode.USAGE)
    return words[name.lower()]


def parse_channel(name: str) -> "Channel.ValueType":
    """A channel by its word."""
    try:
        return Channel.Value(f"CHANNEL_{name.upper()}")
    except ValueError as error:
        raise Failure("A channel is realtime, in_app, email, sms or push.", ExitCode.USAGE) from error


def parse_time(option: str, text: str) -> Timestamp | None:
    """An ISO 8601 time, in the terminal's own zone when it names none; None for the empty text."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise Failure(
            f"{option} must be an ISO 8601 time such as 2027-05-01T18:30.", ExitCode.USAGE
        ) from error
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def parse_interval(since_option: str, since: str, until_option: str, until: str) -> Interval | None:
    """A time from one moment up to another; None when neither is given."""
    if not since and not until:
        return None
    return Interval(start_time=parse_time(since_option, since), end_time=parse_time(until_option, until))


def parse_day(option: str, text: str) -> Date | None:
    """A day; None for the empty text."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"{option} must be a day such as 2027-05-01.", ExitCode.USAGE) from error
    return Date(year=day.year, month=day.month, day=day.day)


def parse_time_of_day(option: str, text: str) -> TimeOfDay:
    """A wall-clock time such as 22:30."""
    try:
        moment = time.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"{option} must be a time of day such as 22:30.", ExitCode.USAGE) from error
    return TimeOfDay(hours=moment.hour, minutes=moment.minute)


def parse_switch(option: str, text: str) -> bool:
    """on or off."""
    if text.lower() not in ("on", "off"):
        raise Failure(f"{option} must be on or off.", ExitCode.USAGE)
    return text.lower() == "on"


def parse_audit_action(name: str) -> "AuditAction.ValueType":
    """What an entry of the audit log is about, by its word."""
    return _parse_word("--action", name, "AUDIT_ACTION_", AuditAction.items())


def parse_checkpoint(option: str, text: str) -> AuditCheckpoint:
    """A place in the audit log with its hash, as `broadcast audit verify` prints it."""
    form = _CHECKPOINT.fullmatch(text)
    if form is None:
        message = f"{option} must be a position and a hash of 64 digits, such as 12:6f…, as verify prints it."
        raise Failure(message, ExitCode.USAGE)
    return AuditCheckpoint(position=int(form[1]), hash=bytes.fromhex(form[2]))
