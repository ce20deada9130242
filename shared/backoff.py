"""Owns how long to wait before trying again: exponential, bounded, and spread so that many do not come back at once."""

import random


def backoff_s(attempt: int, first_s: float, ceiling_s: float, spread: float | None = None) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) failed.

    It is between the half and the whole of `first_s`, doubled for each attempt, up to `ceiling_s`. `spread` in [0, 1)
    picks the place between the two; without it, chance does.
    """
    whole = min(ceiling_s, first_s * 2.0 ** min(attempt - 1, 63))
    return whole * (0.5 + 0.5 * (random.random() if spread is None else spread))
