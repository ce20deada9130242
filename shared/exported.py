"""Owns the form of what a person is told about themselves: records of JSON, told part by part and page by page."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final, TypeVar
from uuid import UUID

from wedsync.broadcast.v1.common_pb2 import ExportedRecord

from shared.opaque import read_page_token, refused_page_token, write_page_token

SCHEMA: Final = "wedsync.broadcast.export/1"
"""Which kinds of records there are, and which keys they have. Another number has lost or changed some."""

PAGE_SIZE: Final = 100
"""Records of one kind that are read at once: they fit into a message, however long their texts are."""

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class ExportPart:
    """Some records of a part; `place` is where it goes on, empty at its end."""

    records: list[ExportedRecord]
    place: str = ""

    @classmethod
    def of(
        cls, rows: Sequence[_Row], tell: Callable[[_Row], ExportedRecord], place: Callable[[_Row], str]
    ) -> "ExportPart":
        """What rows say, of which PAGE_SIZE were asked for; `place` names that of the last."""
        return cls([tell(row) for row in rows], place(rows[-1]) if len(rows) == PAGE_SIZE else "")


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Some of what is kept about a person; `next_page_token` is empty on the last page."""

    records: list[ExportedRecord]
    next_page_token: str = ""


async def export_page(
    parts: Mapping[str, Callable[[str], Awaitable[ExportPart]]], page_token: str, person: bytes
) -> ExportPage:
    """A page of what `parts` tell of a person, one after the other, each from a place of its own, empty at first.

    A page token is good for this person alone. Raises InvalidPageToken, and what a part raises.
    """
    names = tuple(parts)
    name, place = names[0], ""
    try:
        if page_token:
            name, _, place = read_page_token(page_token, person).decode().partition(" ")
        part = await parts[name](place)
    except (KeyError, ValueError) as error:
        if not page_token:
            raise
        # Whoever makes a token up may name what is no part, or no place in it.
        raise refused_page_token() from error
    if not part.place and name == names[-1]:
        return ExportPage(part.records)
    following = name if part.place else names[names.index(name) + 1]
    return ExportPage(part.records, write_page_token(f"{following} {part.place}".encode(), person))


def exported(service: str, kind: str, fields: Mapping[str, object]) -> ExportedRecord:
    """One record. Every key of its kind is to be among `fields`, with None where there is nothing."""
    text = json.dumps(fields, ensure_ascii=False, default=_text)
    return ExportedRecord(service=service, kind=kind, json=text)


def _text(value: object) -> object:
    """What JSON has no form of its own for."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case time():
            return value.isoformat("minutes")
        case UUID():
            return str(value)
        case set() | frozenset():
            return sorted(value)
        case _:
            raise TypeError(f"a {type(value).__name__} has no form in an export")
