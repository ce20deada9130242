"""Every change of every clock that the zone database has on record, read from its files by themselves."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Final

ZONES: Final = files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HEADER: Final = struct.Struct(">4s c 15x 6l")
_TYPE: Final = struct.Struct(">l b b")


@dataclass(frozen=True, slots=True)
class ClockChange:
    """When the clocks of a zone were changed, and how far they have been ahead of UTC since."""

    at: datetime
    offset: timedelta


@cache
def changes_of(zone: str) -> Sequence[ClockChange]:
    """The changes on record, in order; without those in which only a name changed, and those before any calendar."""
    times, offsets, _ = _read(zone)
    changes = []
    for place, (seconds, offset) in enumerate(zip(times, offsets[1:], strict=True)):
        if offset != offsets[place] and seconds > -(2**40):
            changes.append(ClockChange(_EPOCH + timedelta(seconds=seconds), timedelta(seconds=offset)))
    return changes


def rule_of(zone: str) -> bytes:
    """The rule by which its clocks are changed after the last change on record."""
    return _read(zone)[2]


@cache
def _read(zone: str) -> tuple[Sequence[int], Sequence[int], bytes]:
    """When something changed, the offsets before the first change and since each, and the rule (RFC 9636)."""
    data = files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes()
    # A block with times of 32 bits comes first, for old readers; the one with 64 follows it.
    _, _, isut, isstd, leaps, times, types, names = _HEADER.unpack_from(data)
    start = _HEADER.size + times * 5 + types * _TYPE.size + names + leaps * 8 + isstd + isut
    _, _, isut, isstd, leaps, times, types, names = _HEADER.unpack_from(data, start)
    start += _HEADER.size
    moments = struct.unpack_from(f">{times}q", data, start)
    kinds = data[start + times * 8 : start + times * 9]
    start += times * 9
    offsets = [_TYPE.unpack_from(data, start + place * _TYPE.size)[0] for place in range(types)]
    start += types * _TYPE.size + names + leaps * 12 + isstd + isut
    return moments, [offsets[0], *(offsets[kind] for kind in kinds)], data[start:].strip()
