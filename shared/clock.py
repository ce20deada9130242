"""What time it is, as something that can be handed in, so that rules and tests need no real clock."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day, and a time that never jumps for measuring."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time of day, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        return time.monotonic()


class FixedClock:
    """A clock for tests that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        """`now` must be aware; it is kept in UTC."""
        self._now = now.astimezone(UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """The time that it stands at, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that it was moved since it was made."""
        return self._monotonic

    def move(self, seconds: float) -> None:
        """Moves both times ahead."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
