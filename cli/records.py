"""Reads recipients and weddings from CSV and JSON files, naming the line and the column of what it cannot read."""

import csv
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from google.type.date_pb2 import Date
from wedsync.broadcast.v1.directory_pb2 import Recipient, UserType, WeddingEntry, WeddingStatus

from cli.exits import ExitCode, Failure

RECIPIENT_COLUMNS = frozenset(
    ["user_id", "display_name", "role", "user_type", "tier", "email", "phone", "time_zone"]
)
WEDDING_COLUMNS = frozenset(["wedding_id", "couple_name", "wedding_date", "status", "time_zone"])


def read_recipients(file: Path) -> list[Recipient]:
    """The people in a file: a CSV with a heading, or a JSON list of objects with the same names."""
    return [
        Recipient(
            user_id=record.get("user_id", ""),
            display_name=record.get("display_name", ""),
            role=record.get("role", ""),
            user_type=_user_type(place, record.get("user_type", "")),
            tier=record.get("tier", ""),
            email=record.get("email", ""),
            phone=record.get("phone", ""),
            time_zone=record.get("time_zone", ""),
        )
        for place, record in _records(file, RECIPIENT_COLUMNS)
    ]


def read_weddings(file: Path) -> list[WeddingEntry]:
    """The weddings in a file: a CSV with a heading, or a JSON list of objects with the same names."""
    weddings = []
    for place, record in _records(file, WEDDING_COLUMNS):
        entry = WeddingEntry(
            wedding_id=record.get("wedding_id", ""),
            couple_name=record.get("couple_name", ""),
            status=_status(place, record.get("status", "")),
            time_zone=record.get("time_zone", ""),
        )
        if record.get("wedding_date"):
            entry.wedding_date.CopyFrom(_date(place, record["wedding_date"]))
        weddings.append(entry)
    return weddings


def _records(file: Path, columns: frozenset[str]) -> list[tuple[str, dict[str, str]]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: cannot be read as UTF-8 text: {error}", ExitCode.USAGE) from error
    rows = _json_rows(file, text) if file.suffix.lower() == ".json" else _csv_rows(file, text)
    if not rows:
        raise Failure(f"{file}: has no records.", ExitCode.INVALID)
    for place, record in rows:
        if unknown := sorted(set(record) - columns):
            raise Failure(
                f"{place}: unknown column {unknown[0]!r}; known are {', '.join(sorted(columns))}.",
                ExitCode.INVALID,
            )
    return rows


def _csv_rows(file: Path, text: str) -> list[tuple[str, dict[str, str]]]:
    rows = []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        place = f"{file}:{reader.line_num}"
        if None in row or None in row.values():
            raise Failure(f"{place}: has another number of columns than the heading.", ExitCode.INVALID)
        rows.append((place, {name.strip(): value.strip() for name, value in row.items()}))
    return rows


def _json_rows(file: Path, text: str) -> list[tuple[str, dict[str, str]]]:
    try:
        records = json.loads(text)
    except ValueError as error:
        raise Failure(f"{file}: is not JSON: {error}", ExitCode.INVALID) from error
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise Failure(f"{file}: must be a list of objects.", ExitCode.INVALID)
    places = [f"{file}[{index}]" for index in range(len(records))]
    for place, record in zip(places, records, strict=True):
        for name, value in record.items():
            if not isinstance(value, str):
                raise Failure(f"{place}.{name}: must be a text.", ExitCode.INVALID)
    return list(zip(places, (dict(record) for record in records), strict=True))


def _user_type(place: str, value: str) -> "UserType.ValueType":
    try:
        return UserType.Value(f"USER_TYPE_{value.upper()}")
    except ValueError as error:
        raise _not_one_of(place, "user_type", UserType.keys()) from error


def _status(place: str, value: str) -> "WeddingStatus.ValueType":
    try:
        return WeddingStatus.Value(f"WEDDING_STATUS_{value.upper()}")
    except ValueError as error:
        raise _not_one_of(place, "status", WeddingStatus.keys()) from error


def _not_one_of(place: str, column: str, names: list[str]) -> Failure:
    known = [name.removeprefix("USER_TYPE_").removeprefix("WEDDING_STATUS_").lower() for name in names[1:]]
    return Failure(f"{place}: {column} must be one of {', '.join(known)}.", ExitCode.INVALID)


def _date(place: str, value: str) -> Date:
    try:
        day = date.fromisoformat(value)
    except ValueError as error:
        raise Failure(f"{place}: wedding_date must be a day such as 2027-06-12.", ExitCode.INVALID) from error
    return Date(year=day.year, month=day.month, day=day.day)
