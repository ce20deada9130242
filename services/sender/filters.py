"""Owns which broadcasts a list is about, as it was asked, and what its pages are called."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from services.sender.domain import TYPES, Author, Priority, State
from shared import opaque

PAGE_SIZE: Final = 50
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_MOMENT: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_TIME_BYTES: Final = 8
_PLACE_BYTES: Final = _TIME_BYTES + 16


@dataclass(frozen=True, slots=True)
class Period:
    """Some time, from `start` up to, and without, `end`; None for a side that is open."""

    start: datetime | None = None
    end: datetime | None = None


ALWAYS: Final = Period()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which broadcasts are wanted; what is empty or None filters nothing. All of it must hold."""

    states: tuple[State, ...] = ()
    type: str = ""
    priorities: tuple[Priority, ...] = ()
    created_by: str = ""
    wedding_id: str | None = None
    created: Period = ALWAYS
    due: Period = ALWAYS

    @property
    def types(self) -> tuple[str, ...] | None:
        """The types that are wanted: the one named, or all that begin with a prefix, which ends in a dot."""
        return types_named(self.type)


def types_named(wanted: str) -> tuple[str, ...] | None:
    """The types that a filter names: one, or those that begin with a prefix, which ends in a dot; None for all."""
    if not wanted:
        return None
    if not wanted.endswith("."):
        return (wanted,)
    return tuple(name for name in TYPES if name.startswith(wanted))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broadcast stands in a list: the newest first, and of the same moment the higher id."""

    created_at: datetime
    broadcast_id: str


def write_page_token(last: Place, author: Author, wanted: Filter) -> str:
    """The name of the page that follows `last`, good for this caller and filter only."""
    moment = (last.created_at - _EPOCH) // _MICROSECOND
    place = moment.to_bytes(_TIME_BYTES) + UUID(last.broadcast_id).bytes
    return opaque.write_page_token(place, _query(author, wanted))


def read_page_token(token: str, author: Author, wanted: Filter) -> Place:
    """The place that a token names. Raises InvalidPageToken for one that this query did not give."""
    raw = opaque.read_page_token(token, _query(author, wanted))
    moment = int.from_bytes(raw[:_TIME_BYTES])
    if len(raw) != _PLACE_BYTES or moment > _LAST_MOMENT:
        raise opaque.refused_page_token()
    return Place(_EPOCH + moment * _MICROSECOND, str(UUID(bytes=raw[_TIME_BYTES:])))


def _query(author: Author, wanted: Filter) -> bytes:
    return repr((author, wanted)).encode()
