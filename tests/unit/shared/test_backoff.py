"""How long to wait before trying again."""

from hypothesis import given
from hypothesis import strategies as st

from shared.backoff import backoff_s


def test_it_doubles_up_to_the_ceiling() -> None:
    """Without spread the waits are half of 1, 2, 4 … seconds, then half of the ceiling."""
    assert [backoff_s(attempt, 1.0, 10.0, spread=0.0) for attempt in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_it_stays_within_its_bounds(attempt: int, spread: float) -> None:
    """However many attempts there were, the wait is at least half the first and at most the ceiling."""
    assert 0.05 <= backoff_s(attempt, 0.1, 30.0, spread) <= 30.0


def test_chance_spreads_it() -> None:
    """Two that failed together do not come back together."""
    assert len({backoff_s(3, 1.0, 10.0) for _ in range(20)}) > 1
