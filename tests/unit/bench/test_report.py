"""What a measurement says: percentiles, promises kept and broken, the table and the file."""

import json
from io import StringIO
from pathlib import Path

from rich.console import Console

from bench.report import Bound, Result, Row, show, summarize, write

RESULT = Result(
    scenario="delivery",
    title="Send accepted → durable",
    rows=[
        Row("10,000", summarize([20.0, 30.0, 10.0]), summarize([400.0]), {"send p50": 5.5}),
        Row("10", summarize([1.0])),
    ],
    bounds=[Bound("10,000 p50", 20.0, 30.0), Bound("beside rows", 20.0, 25.0, "times faster", is_least=True)],
    baseline="rows",
)


def test_percentiles_are_nearest_ranks() -> None:
    """Of a hundred samples from 1 to 100, in whatever order."""
    summary = summarize([float(value) for value in reversed(range(1, 101))])
    assert (100, 50.5, 91.0, 100.0, 100.0) == (
        summary.samples,
        summary.median,
        summary.p90,
        summary.p99,
        summary.max,
    )


def test_a_limit_itself_still_keeps_the_promise() -> None:
    """At most and at least include the limit, and nothing beyond it."""
    assert Bound("p50", 30.0, 30.0).is_met
    assert not Bound("p50", 30.01, 30.0).is_met
    assert Bound("rate", 400.0, 400.0, "a second", is_least=True).is_met
    assert not Bound("rate", 399.9, 400.0, "a second", is_least=True).is_met


def test_a_table_shows_the_baseline_the_facts_and_what_became_of_each_promise() -> None:
    """A reader sees which promise was broken, by how much, and where there was nothing to compare with."""
    output = StringIO()
    show(RESULT, Console(file=output, width=120))
    lines = output.getvalue().splitlines()
    assert "Send accepted → durable, ms" == lines[0].strip()
    [row] = [line for line in lines if line.startswith("│ 10,000")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert ["10,000", "3", "20", "30", "30", "30", "400", "20", "5.5"] == cells
    assert [
        "met: 10,000 p50 20 ms, at most 30",
        "NOT MET: beside rows 20 times faster, at least 25",
    ] == [line.strip() for line in lines[-2:]]


def test_a_result_is_kept_with_its_machine_and_promises(tmp_path: Path) -> None:
    """Whoever reads the file later can tell where it was measured and what was promised."""
    kept = json.loads(write(RESULT, tmp_path).read_text())
    assert kept["machine"]["cores"] > 0
    assert [("10,000", 20.0, "rows", 20.0), ("10", 1.0, None, None)] == [
        (row["case"], row["ours"]["median"], row.get("baseline", {}).get("name"), row.get("ratio"))
        for row in kept["rows"]
    ]
    assert [True, False] == [bound["is_met"] for bound in kept["bounds"]]
