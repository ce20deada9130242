"""Owns when a broadcast is counted, what a count must be, and what rows of analytics are made of. Days are of UTC."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, auto
from typing import Final
from uuid import UUID

from services.sender.domain import Author, Priority
from services.sender.filters import types_named
from shared import opaque
from shared.errors import FieldViolation

COUNTED_DAYS: Final = 90
"""Items live as long: after that nobody can do anything with a broadcast."""
LONGEST_RANGE: Final = 366
USUAL_RANGE: Final = 30
PAGE_SIZE: Final = 100

# What somebody did in a day's last moment may be committed in the next; a statement of the inbox takes 10 s at most.
_SETTLING: Final = timedelta(minutes=1)
# A broadcast is counted again when it has become that much older: often at first, and then once a day.
_GROWTH: Final = 4
# What is asked of the inbox in one question.
_MOST_BROADCASTS: Final = 100
_MOST_PEOPLE: Final = 1_000_000
_DAY: Final = timedelta(days=1)
_DAY_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Counts:
    """How many people a broadcast, or some together, has come to, and how long its readers took for that in all."""

    targeted: int
    delivered: int
    read: int
    acknowledged: int
    clicked: int
    time_to_read: timedelta

    @property
    def is_possible(self) -> bool:
        """Whether each counts no more people than it can: what is otherwise was not counted right."""
        in_order = self.targeted >= self.delivered >= self.read >= max(self.acknowledged, self.clicked)
        return in_order and min(self.acknowledged, self.clicked) >= 0 and self.time_to_read >= timedelta()

    @property
    def is_complete(self) -> bool:
        """Whether everybody has done all that there is to do, so that nothing can change any more."""
        return self.acknowledged == self.clicked == self.targeted

    @property
    def average_time_to_read(self) -> timedelta | None:
        """What a reader took; None when there is none."""
        return self.time_to_read / self.read if self.read else None

    @property
    def delivery_rate(self) -> float | None:
        """Delivered of targeted; None when nobody was."""
        return self.delivered / self.targeted if self.targeted else None

    @property
    def engagement_rate(self) -> float | None:
        """Read of delivered; None when it was delivered to nobody."""
        return self.read / self.delivered if self.delivered else None


@dataclass(frozen=True, slots=True)
class Tally:
    """A broadcast that is to be counted as of the end of `day`, and what was known of it at the moment `now`.

    `targeted` is None while the dispatcher has not told; `is_over` says that it will not be dispatched any more.
    """

    broadcast_id: str
    begun_at: datetime
    day: date
    now: datetime
    targeted: int | None = None
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """What came of a tally: the counts of its day, None when there was nothing to count yet, and how it goes on.

    `due_at` is None when it need not be counted any more.
    """

    tally: Tally
    counts: Counts | None
    next_day: date
    due_at: datetime | None


def day_of(moment: datetime) -> date:
    """The day that a moment is in."""
    return moment.astimezone(UTC).date()


def end_of(day: date) -> datetime:
    """The first moment that is not in a day any more."""
    return datetime.combine(day, time(), UTC) + _DAY


def is_settled(day: date, now: datetime) -> bool:
    """Whether all that was done on a day can be seen by now."""
    return now >= end_of(day) + _SETTLING


def follow(tally: Tally, counts: Counts | None, shortest: timedelta) -> Counted:
    """What follows once a tally was counted, or found to have nothing to count yet.

    The same day again while it runs, and the next one once it has settled: at once, if that has settled too. `shortest`
    is how long a broadcast is left alone at least.
    """
    is_over = tally.is_over if counts is None else counts.is_complete
    next_day = tally.day + _DAY if is_settled(tally.day, tally.now) else tally.day
    if is_over or next_day >= day_of(tally.begun_at) + COUNTED_DAYS * _DAY:
        return Counted(tally, counts, next_day, None)
    again = tally.now + max(shortest, (tally.now - tally.begun_at) / _GROWTH)
    settles = max(tally.now, end_of(next_day) + _SETTLING)
    return Counted(tally, counts, next_day, min(again, settles))


def leave(tally: Tally) -> Counted:
    """Nothing more can be counted of a broadcast that has left inboxes: what was counted before stands."""
    return Counted(tally, None, tally.day, None)


def portions(tallies: Iterable[Tally]) -> Iterator[list[Tally]]:
    """Tallies of one day each in as many parts as the inbox is to be asked in, so that no question takes it long."""
    by_day: defaultdict[date, list[Tally]] = defaultdict(list)
    for tally in tallies:
        by_day[tally.day].append(tally)
    for day in sorted(by_day):
        portion: list[Tally] = []
        people = 0
        for tally in by_day[day]:
            size = tally.targeted or 0
            if portion and (len(portion) == _MOST_BROADCASTS or people + size > _MOST_PEOPLE):
                yield portion
                portion, people = [], 0
            portion.append(tally)
            people += size
        yield portion


class Group(Enum):
    """What the rows of a day are about."""

    BROADCAST = auto()
    TYPE = auto()
    PRIORITY = auto()


@dataclass(frozen=True, slots=True)
class Question:
    """Which analytics are asked for; what is empty or None filters nothing. The days are as they were given."""

    group: Group
    first_day: date | None = None
    last_day: date | None = None
    broadcast_ids: tuple[str, ...] = ()
    type: str = ""
    priorities: tuple[Priority, ...] = ()
    created_by: str = ""
    wedding_id: str | None = None

    @property
    def types(self) -> tuple[str, ...] | None:
        """The types that are wanted; None for all."""
        return types_named(self.type)

    def days(self, today: date) -> "Days":
        """The days that are meant, which end today at the latest."""
        last = self.last_day or today
        return Days(self.first_day or last - (USUAL_RANGE - 1) * _DAY, last).until(today)


@dataclass(frozen=True, slots=True)
class Days:
    """Some days, the last one included."""

    first: date
    last: date

    def until(self, today: date) -> "Days":
        """Those of them that have begun."""
        return Days(self.first, min(self.last, today))


@dataclass(frozen=True, slots=True)
class Row:
    """What stood for one broadcast, type or priority at the end of a day, and in what order it is among its like."""

    day: date
    key: str
    counts: Counts
    broadcast_id: str = ""
    type: str = ""
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the last day that is counted to its end for every broadcast."""

    rows: list[Row] = field(default_factory=list)
    counted_through: date = date.min


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: after the row of this day and key, among those of these days."""

    days: Days
    day: date
    key: str


def range_violations(first_day: date | None, last_day: date | None, today: date) -> Iterator[FieldViolation]:
    """The rules that a range of days breaks; a day that is None was not given."""
    last = last_day or today
    first = first_day or last
    if last < first:
        yield FieldViolation("last_day", "must not be before first_day")
    elif (last - first).days >= LONGEST_RANGE:
        yield FieldViolation("last_day", f"must be within {LONGEST_RANGE} days, first_day included")


def write_page_token(place: Place, author: Author, question: Question) -> str:
    """The name of the page that follows a place, good for this caller and question only.

    It goes on with the days that the first page had, whatever day it is by then.
    """
    days = (place.days.first, place.days.last, place.day)
    raw = b"".join(each.toordinal().to_bytes(_DAY_BYTES) for each in days) + place.key.encode()
    return opaque.write_page_token(raw, _query(author, question))


def read_page_token(token: str, author: Author, question: Question) -> Place:
    """The place that a token names. Raises InvalidPageToken for one that this question did not give."""
    raw = opaque.read_page_token(token, _query(author, question))
    ordinals = [
        int.from_bytes(raw[start : start + _DAY_BYTES]) for start in range(0, 3 * _DAY_BYTES, _DAY_BYTES)
    ]
    try:
        first, last, day = map(date.fromordinal, ordinals)
        key = raw[3 * _DAY_BYTES :].decode()
        if question.group is Group.BROADCAST:
            key = str(UUID(key))
    except (ValueError, OverflowError) as error:
        raise opaque.refused_page_token() from error
    # It is no secret, so it may have been made up.
    if any(range_violations(first, last, last)) or not key.isprintable():
        raise opaque.refused_page_token()
    return Place(Days(first, last), day, key)


def _query(author: Author, question: Question) -> bytes:
    return repr((author, question)).encode()
