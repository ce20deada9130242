"""Owns what a measurement looks like: percentiles, the promises it is held to, the machine, a table, a file."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentiles of samples, in the unit of the samples (nearest rank)."""

    samples: int
    median: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a result: a case, ours, the baseline when there is one, and facts beside them by column title."""

    case: str
    ours: Summary
    baseline: Summary | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The baseline's median over ours: how many times faster ours is, where less is better."""
        return self.baseline.median / self.ours.median if self.baseline else None


@dataclass(frozen=True, slots=True)
class Bound:
    """A promise: `measured` is at most `limit`, or at least, where more is better."""

    what: str
    measured: float
    limit: float
    unit: str = "ms"
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the promise was kept in this run."""
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit

    def __str__(self) -> str:
        word = "at least" if self.is_least else "at most"
        verdict = "met" if self.is_met else "NOT MET"
        return f"{verdict}: {self.what} {self.measured:,.4g} {self.unit}, {word} {self.limit:,.4g}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario measured: rows in one unit, the baseline's name where there is one, and its promises."""

    scenario: str
    title: str
    rows: Sequence[Row]
    bounds: Sequence[Bound] = ()
    unit: str = "ms"
    baseline: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str


def summarize(samples: Sequence[float]) -> Summary:
    """The percentiles of at least one sample."""
    ordered = sorted(samples)

    def rank(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return Summary(
        len(ordered), round(statistics.median(ordered), 3), rank(0.90), rank(0.99), round(ordered[-1], 3)
    )


def machine() -> Machine:
    """This one."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def write(result: Result, folder: Path = RESULTS) -> Path:
    """Keeps a result as `<scenario>.json`; answers its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result.scenario}.json"
    kept = {
        "scenario": result.scenario,
        "title": result.title,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(machine()),
        "settings": dict(result.settings),
        "unit": result.unit,
        "rows": [_row(row, result.baseline) for row in result.rows],
        "bounds": [{**asdict(bound), "is_met": bound.is_met} for bound in result.bounds],
    }
    path.write_text(json.dumps(kept, indent=2) + "\n")
    return path


def show(result: Result, console: Console) -> None:
    """Prints a result as a table, and under it each promise with what became of it."""
    table = Table(title=f"{result.title}, {result.unit}", title_justify="left")
    facts = list(dict.fromkeys(name for row in result.rows for name in row.facts))
    columns = ["runs", "p50", "p90", "p99", "max"]
    columns += [f"{result.baseline} p50", "ratio"] if result.baseline else []
    table.add_column("case")
    for column in (*columns, *facts):
        table.add_column(column, justify="right")
    for row in result.rows:
        table.add_row(
            row.case, *_cells(row, result.baseline), *(_cell(row.facts.get(name)) for name in facts)
        )
    console.print(table)
    for bound in result.bounds:
        console.print(f"  {bound}")


def _cells(row: Row, baseline: str) -> list[str]:
    ours = row.ours
    cells = [str(ours.samples), *map(_cell, (ours.median, ours.p90, ours.p99, ours.max))]
    if baseline:
        cells += [_cell(row.baseline.median if row.baseline else None), _cell(row.ratio)]
    return cells


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _row(row: Row, baseline: str) -> dict[str, object]:
    kept: dict[str, object] = {"case": row.case, "ours": asdict(row.ours)}
    if row.baseline and row.ratio is not None:
        kept |= {"baseline": {"name": baseline, **asdict(row.baseline)}, "ratio": round(row.ratio, 2)}
    return kept | {"facts": dict(row.facts)}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
