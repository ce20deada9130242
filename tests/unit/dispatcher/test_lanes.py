"""How long a lane waits before it looks by itself."""

from datetime import UTC, datetime

from services.dispatcher.lanes import Pauses
from shared.clock import FixedClock


def pauses(clock: FixedClock, *, hears_reports: bool) -> Pauses:
    """Those of a lane that has just begun."""
    return Pauses(clock, hears_reports=hears_reports)


def a_clock() -> FixedClock:
    """Any time will do."""
    return FixedClock(datetime(2026, 11, 22, tzinfo=UTC))


def test_a_lane_that_is_woken_looks_every_second() -> None:
    """Reports wake it, so looking more often would find nothing."""
    clock = a_clock()
    own = pauses(clock, hears_reports=True)
    assert own.next_s() == 1.0
    own.note_progress()
    assert [own.next_s() for _ in range(3)] == [1.0, 1.0, 1.0]


def test_a_lane_that_nobody_wakes_looks_soon_and_then_ever_later() -> None:
    """From 20 ms after it has sent something to 0.1 s while it is busy, and every second after a long calm."""
    clock = a_clock()
    alone = pauses(clock, hears_reports=False)
    assert alone.next_s() == 1.0
    alone.note_progress()
    assert [alone.next_s() for _ in range(5)] == [0.02, 0.04, 0.08, 0.1, 0.1]
    alone.note_progress()
    assert alone.next_s() == 0.02
    clock.move(11)
    for _ in range(10):
        alone.next_s()
    assert alone.next_s() == 1.0
