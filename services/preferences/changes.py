"""Owns what the directory's log says: which people and which weddings a change is about."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from shared.audience import Audience
from shared.ordered_log import LogEntry

_UUID_BYTES: Final = 16


class ChangeKind(StrEnum):
    """What has changed: people or their settings, facts of weddings, teams, filters, segments, or anything at all."""

    RECIPIENTS = "recipients"
    WEDDINGS = "weddings"
    TEAM = "team"
    FILTERS = "filters"
    SEGMENTS = "segments"
    RELOAD = "reload"


_OF_WEDDINGS: Final = (ChangeKind.WEDDINGS, ChangeKind.TEAM, ChangeKind.FILTERS)

Entry: TypeAlias = tuple[str, bytes]
"""The kind and the body of a log entry."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a stretch of the log is about: people, weddings whose facts changed, weddings to be read again, segments.

    With `is_reload` anything may have changed.
    """

    recipients: Audience = field(default_factory=Audience)
    redated: frozenset[UUID] = frozenset()
    weddings: frozenset[UUID] = frozenset()
    segments: frozenset[UUID] = frozenset()
    is_reload: bool = False


def recipients_changed(numbers: Iterable[int]) -> Entry:
    """These people, or their settings, are different now."""
    return ChangeKind.RECIPIENTS, Audience.of(numbers).to_bytes()


def weddings_changed(kind: ChangeKind, wedding_ids: Iterable[UUID]) -> Entry:
    """Something of these weddings is different now; `kind` says what."""
    return kind, b"".join(wedding_id.bytes for wedding_id in wedding_ids)


def segments_changed(segment_ids: Iterable[UUID]) -> Entry:
    """These segments are different now, or gone."""
    return ChangeKind.SEGMENTS, b"".join(segment_id.bytes for segment_id in segment_ids)


def gather(entries: Iterable[LogEntry]) -> Changes:
    """What all these entries together are about."""
    people: list[Audience] = []
    named: dict[ChangeKind, set[UUID]] = {kind: set() for kind in ChangeKind}
    is_reload = False
    for entry in entries:
        kind = ChangeKind(entry.kind)
        if kind is ChangeKind.RELOAD:
            is_reload = True
        elif kind is ChangeKind.RECIPIENTS:
            people.append(Audience.from_bytes(entry.body))
        else:
            named[kind].update(_ids(entry.body))
    return Changes(
        Audience.union_of(people),
        frozenset(named[ChangeKind.WEDDINGS]),
        frozenset().union(*(named[kind] for kind in _OF_WEDDINGS)),
        frozenset(named[ChangeKind.SEGMENTS]),
        is_reload,
    )


def joined(parts: Iterable[Changes]) -> Changes:
    """What several stretches of the log together are about."""
    changes = list(parts)
    return Changes(
        Audience.union_of(each.recipients for each in changes),
        frozenset().union(*(each.redated for each in changes)),
        frozenset().union(*(each.weddings for each in changes)),
        frozenset().union(*(each.segments for each in changes)),
        any(each.is_reload for each in changes),
    )


def _ids(body: bytes) -> list[UUID]:
    return [UUID(bytes=body[at : at + _UUID_BYTES]) for at in range(0, len(body), _UUID_BYTES)]
