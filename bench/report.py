"""Owns what a measurement looks like: samples with their percentiles, the machine, a table, a file."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """One line of a result: a case, ours in milliseconds, the baseline in milliseconds when there is one."""

    case: str
    ours: Summary
    baseline: Summary | None
    facts: Mapping[str, float]

    @property
    def times_faster(self) -> float | None:
        """How many times the baseline's median ours fits in."""
        return self.baseline.median / self.ours.median if self.baseline else None


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


def write(scenario: str, rows: Sequence[Row], settings: Mapping[str, object]) -> Path:
    """Keeps a result as `bench/results/<scenario>.json`; answers its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{scenario}.json"
    result = {
        "scenario": scenario,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": asdict(machine()),
        "settings": dict(settings),
        "unit": "ms",
        "rows": [
            {
                "case": row.case,
                "ours": asdict(row.ours),
                "baseline": asdict(row.baseline) if row.baseline else None,
                "times_faster": round(row.times_faster, 2) if row.times_faster else None,
                **row.facts,
            }
            for row in rows
        ],
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def show(title: str, baseline: str, rows: Sequence[Row], console: Console) -> None:
    """Prints a result as a table, in milliseconds."""
    table = Table(title=title, title_justify="left")
    for column in ("case", "runs", "p50", "p90", "p99", "max", f"{baseline} p50", "times faster"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for row in rows:
        ours = row.ours
        table.add_row(
            row.case,
            str(ours.samples),
            *(f"{value:,.1f}" for value in (ours.median, ours.p90, ours.p99, ours.max)),
            f"{row.baseline.median:,.1f}" if row.baseline else "",
            f"{row.times_faster:,.1f}" if row.times_faster else "",
        )
    console.print(table)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
