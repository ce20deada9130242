"""Owns counting people from raw rows, one by one: what every figure of the suite must come to. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyroaring import BitMap


@dataclass(frozen=True, slots=True)
class Part:
    """Some people who got a broadcast at the same moment, and where that is in the order of arrivals."""

    broadcast_id: str
    position: int
    arrived_at: datetime
    members: BitMap


@dataclass(frozen=True, slots=True)
class Deed:
    """What one person did with one broadcast, and when first."""

    number: int
    broadcast_id: str
    read_at: datetime
    acknowledged_at: datetime | None
    clicked_at: datetime | None

    @property
    def first_at(self) -> datetime:
        """When they had read it: whatever was done with it means that."""
        return min(filter(None, (self.read_at, self.acknowledged_at, self.clicked_at)))


@dataclass(frozen=True, slots=True)
class Mark:
    """When somebody marked all as read that had come to them before a position."""

    number: int
    position: int
    at: datetime


@dataclass(frozen=True, slots=True)
class People:
    """How many people a broadcast has come to, and how long its readers took together; None where that is not told."""

    targeted: int
    delivered: int
    read: int
    acknowledged: int
    clicked: int
    time_to_read: timedelta | None = None


def recount(
    snapshots: Mapping[str, int], parts: Iterable[Part], deeds: Iterable[Deed], marks: Iterable[Mark]
) -> dict[str, People]:
    """What every broadcast of which there is a snapshot has come to; `snapshots` are how many each holds."""
    done = {(deed.broadcast_id, deed.number): deed for deed in deeds}
    doers: defaultdict[str, BitMap] = defaultdict(BitMap)
    for broadcast_id, number in done:
        doers[broadcast_id].add(number)
    marked: defaultdict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        marked[mark.number].append(mark)
    markers = BitMap(marked)
    readings: defaultdict[str, list[tuple[timedelta, Deed | None]]] = defaultdict(list)
    delivered: defaultdict[str, int] = defaultdict(int)
    for part in parts:
        delivered[part.broadcast_id] += len(part.members)
        for number in part.members & (doers[part.broadcast_id] | markers):
            deed = done.get((part.broadcast_id, number))
            times = [mark.at for mark in marked.get(number, ()) if mark.position > part.position]
            times += [deed.first_at] if deed is not None else []
            if times:
                readings[part.broadcast_id].append((max(min(times) - part.arrived_at, timedelta()), deed))
    return {
        broadcast_id: _people(targeted, delivered[broadcast_id], readings[broadcast_id])
        for broadcast_id, targeted in snapshots.items()
    }


def _people(targeted: int, delivered: int, readings: list[tuple[timedelta, Deed | None]]) -> People:
    deeds = [deed for _, deed in readings if deed is not None]
    return People(
        targeted,
        delivered,
        len(readings),
        sum(deed.acknowledged_at is not None for deed in deeds),
        sum(deed.clicked_at is not None for deed in deeds),
        sum((taken for taken, _ in readings), timedelta()),
    )
