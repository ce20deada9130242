"""Clocks: the real one is aware and in UTC, the fixed one moves only when told."""

from datetime import UTC, datetime, timedelta, timezone

from shared.clock import FixedClock, SystemClock


def test_system_clock_tells_aware_utc() -> None:
    """Now is now, in UTC, and the measuring time does not go back."""
    clock = SystemClock()
    before = clock.monotonic()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() >= before


def test_fixed_clock_moves_only_when_told() -> None:
    """It stands still in UTC, and both of its times move by the same seconds."""
    clock = FixedClock(datetime(2026, 11, 22, 9, 30, tzinfo=timezone(timedelta(hours=1))))
    assert (clock.now().isoformat(), clock.monotonic()) == ("2026-11-22T08:30:00+00:00", 0.0)
    clock.move(90.5)
    assert (clock.now().isoformat(), clock.monotonic()) == ("2026-11-22T08:31:30.500000+00:00", 90.5)
