"""Owns how long it took after each kill until the suite was itself again. Pure: times in, times out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from one moment to another; both in Unix time."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """After one kill: seconds until the next send was accepted, and until all that was on its way had arrived.

    None when nothing was sent after it, or nothing was on its way.
    """

    accepted_s: float | None
    arrived_s: float | None


def recovery(killed_at: float, tries: Iterable[Span], broadcasts: Iterable[Span]) -> Recovery:
    """`tries` are sends that were answered with OK; `broadcasts` were due at `began` and sent at `ended`."""
    accepted = [each.ended - killed_at for each in tries if each.began >= killed_at]
    arrived = [each.ended - killed_at for each in broadcasts if each.began <= killed_at < each.ended]
    return Recovery(min(accepted, default=None), max(arrived, default=None))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of them; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
