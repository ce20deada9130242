"""Owns who is asleep: led on from minute to minute and from change to change, at the cost of what is different then."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from services.preferences.quiet_hours import QuietWindow, next_edge, quiet_until, wall_clock
from shared.audience import Audience

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

Asleep: TypeAlias = tuple[tuple[datetime, Audience], ...]
"""Those who are asleep by the moment at which that ends, soonest first."""


@dataclass(frozen=True, slots=True)
class _Night:
    """Those with one window; from `since` until before `until` they are asleep until `end`, or without one awake."""

    sleepers: Audience
    since: datetime = _LAST
    until: datetime = _FIRST
    end: datetime | None = None

    def of(self, sleepers: Audience) -> "_Night":
        """The same of others."""
        return _Night(sleepers, self.since, self.until, self.end)


class QuietPeople:
    """Who has which quiet window; nobody has two.

    A window is looked at anew when its next edge has passed. What is kept for that is about the last minute that was
    asked for: an earlier one is answered as well.
    """

    def __init__(self, windows: Iterable[tuple[QuietWindow, Audience]] = ()) -> None:
        """Each window with those who have it."""
        self._nights = {window: _Night(sleepers) for window, sleepers in windows}
        self._minute: datetime | None = None
        self._asleep: Asleep = ()

    def replaced(self, altered: Mapping[QuietWindow, Audience], changed: Audience) -> "QuietPeople":
        """With other people in some windows, nobody in those that are gone; only those who have `changed` differ."""
        people = QuietPeople()
        people._minute, people._nights = self._minute, dict(self._nights)
        asleep = [(end, _without(sleepers, changed)) for end, sleepers in self._asleep]
        for window, sleepers in altered.items():
            if not sleepers:
                people._nights.pop(window, None)
                continue
            known = self._nights.get(window)
            night = known.of(sleepers) if known is not None else _night(window, sleepers, self._minute)
            people._nights[window] = night
            if night.end is not None:
                asleep.append((night.end, sleepers & changed))
        people._asleep = _by_end(asleep)
        return people

    def asleep(self, now: datetime) -> Asleep:
        """Those inside their window at `now`."""
        self._go_to(_minute(now))
        return self._asleep

    def inside(self, moment: datetime, members: Audience) -> Audience:
        """Those of `members` who are inside their window at any moment; `asleep` says so of everybody at once."""
        minute = _minute(moment)
        return members & Audience.union_of(
            night.sleepers
            for window, night in self._nights.items()
            if window.covers(wall_clock(window.time_zone, minute)) and not night.sleepers.isdisjoint(members)
        )

    def differing(self, before: datetime, now: datetime, members: Audience) -> Audience:
        """Those of `members` who are asleep at one of the two and not at the other, or not until the same moment."""
        earlier, later = _minute(before), _minute(now)
        if earlier == later:
            return Audience()
        self._go_to(later)
        return members & Audience.union_of(
            night.sleepers
            for window, night in self._nights.items()
            if not night.since <= earlier < night.until
            and not night.sleepers.isdisjoint(members)
            and _was_otherwise(window, night, earlier)
        )

    def _go_to(self, minute: datetime) -> None:
        """Make what is kept be about this minute."""
        if minute == self._minute:
            return
        passed = [window for window, night in self._nights.items() if not night.since <= minute < night.until]
        for window in passed:
            self._nights[window] = _night(window, self._nights[window].sleepers, minute)
        if self._minute is not None and self._minute < minute:
            kept = [(end, sleepers) for end, sleepers in self._asleep if end > minute]
            anew = [self._nights[window] for window in passed]
        else:
            kept, anew = [], list(self._nights.values())
        ends = ((night.end, night.sleepers) for night in anew if night.end is not None)
        self._asleep = _by_end((*kept, *ends))
        self._minute = minute


def _night(window: QuietWindow, sleepers: Audience, minute: datetime | None) -> _Night:
    """As of a minute; without one, nobody has asked yet."""
    if minute is None:
        return _Night(sleepers)
    end = quiet_until(window, minute)
    return _Night(sleepers, minute, end or next_edge(window, minute), end)


def _was_otherwise(window: QuietWindow, night: _Night, minute: datetime) -> bool:
    """Whether at this minute they were not asleep, or not until the same moment, or not awake, as they are now."""
    if not window.covers(wall_clock(window.time_zone, minute)):
        return night.end is not None
    # Whoever was asleep then and is asleep now may have been awake in between.
    return night.end is None or quiet_until(window, minute) != night.end


def _by_end(sleepers: Iterable[tuple[datetime, Audience]]) -> Asleep:
    by_end: defaultdict[datetime, list[Audience]] = defaultdict(list)
    for end, members in sleepers:
        if members:
            by_end[end].append(members)
    return tuple((end, _together(by_end[end])) for end in sorted(by_end))


def _without(sleepers: Audience, changed: Audience) -> Audience:
    """A copy only where there is somebody to be left out, which of most sets there is not."""
    return sleepers if sleepers.isdisjoint(changed) else sleepers - changed


def _together(parts: Sequence[Audience]) -> Audience:
    return parts[0] if len(parts) == 1 else Audience.union_of(parts)


def _minute(moment: datetime) -> datetime:
    """The minute of a moment: windows begin and end, and since 1972 clocks are changed, at whole minutes only."""
    return moment.replace(second=0, microsecond=0)
