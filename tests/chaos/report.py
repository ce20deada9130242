"""Owns what a run prints, and whether it was clean."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.checker import AFTER_CANCEL, DUPLICATE, LOST, MISCOUNT, UNEXPECTED, Verdict
from tests.chaos.recovery import Recovery, percentile

_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Report:
    """One run: the verdict on it, what was done to it, and what else was seen."""

    seed: int
    seconds: float
    verdict: Verdict
    faults: Counter[str]
    kills: Counter[str]
    lost_steps: Counter[str]
    unfired: Sequence[str]
    undone: Sequence[str]
    recoveries: Sequence[Recovery]
    delays_s: Sequence[float]
    """From the acceptance of a broadcast, or its due time, to the moment at which it was sent."""
    codes: Mapping[str, int]
    other: Sequence[str]
    """What must not be either: dead letters, walls that differ, receipts that are gone, slow recoveries."""
    notes: Sequence[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found, and everything that could have provoked it has happened."""
        return not (self.verdict.findings or self.unfired or self.undone or self.other)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"chaos: seed {self.seed}, {self.seconds:.0f} s"
        yield from self._sets()
        killing = f"{self.kills.total()} times, {len(self.kills)} different"
        yield f"  failpoints that killed  {killing}; not fired: {len(self.unfired)}"
        yield from (f"    NOT FIRED {name}" for name in self.unfired)
        yield f"  steps left out          {_counts(self.lost_steps)}"
        for name, count in sorted(self.faults.items()):
            yield f"  {count:4} x {name}"
        yield from (f"    NOT DONE {name}" for name in self.undone)
        yield from self._recoveries()
        yield f"  answers                 {_counts(self.codes)}"
        yield from (f"  note: {note}" for note in self.notes)
        yield from (f"  VIOLATION {each}" for each in self.other)
        for finding in self.verdict.findings[:_SHOWN]:
            yield f"  VIOLATION {finding.kind}: {finding.about}: {finding.detail} ({finding.count})"
        if len(self.verdict.findings) > _SHOWN:
            yield f"  and {len(self.verdict.findings) - _SHOWN} more"
        yield "  clean" if self.is_clean else f"  NOT CLEAN: repeat it with --seed {self.seed}"

    def _sets(self) -> Iterator[str]:
        verdict = self.verdict
        yield (
            f"  attempted {verdict.attempted}, accepted {verdict.acknowledged}, recovered {verdict.recovered}, "
            f"delivered {verdict.delivered}"
        )
        kinds = (LOST, UNEXPECTED, DUPLICATE, AFTER_CANCEL, MISCOUNT)
        yield "  " + ", ".join(f"{kind} {verdict.count(kind)}" for kind in kinds)

    def _recoveries(self) -> Iterator[str]:
        accepted = [each.accepted_s for each in self.recoveries if each.accepted_s is not None]
        arrived = [each.arrived_s for each in self.recoveries if each.arrived_s is not None]
        spans = (
            ("a kill to the next accepted send", accepted),
            ("a kill to all that was under way", arrived),
            ("acceptance to sent, all broadcasts", self.delays_s),
        )
        for what, values in spans:
            yield f"  from {what}: p50 {percentile(values, 0.5):.2f} s, max {max(values, default=0):.2f} s"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
