"""How what is too old goes: batches by the time that they take, chores to their end, none that keeps another back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from structlog.testing import capture_logs

from shared import cleaning
from shared.cleaning import Batch, BatchSize, Cleaned, Cleaner, Hasty, TookTooLong
from shared.clock import FixedClock
from shared.database import Row
from shared.errors import DependencyUnavailable
from shared.settings import Environment, SettingsError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TERM = timedelta(days=90)


@dataclass(slots=True)
class SlowTable:
    """Stands in for the connection: so many rows, each of which takes so long; what takes too long is broken off."""

    clock: FixedClock
    rows: int
    row_s: float = 0.0
    batches: list[int] = field(default_factory=list)
    is_closed: bool = False

    async def fetchrow(self, query: str, *arguments: object) -> dict[str, object]:
        """Remove as many rows as the last argument says."""
        wanted = arguments[-1]
        assert isinstance(wanted, int)
        removed = min(self.rows, wanted)
        seconds = removed * self.row_s
        self.clock.move(min(seconds, cleaning._BROKEN_OFF_AFTER_S))
        if seconds > cleaning._BROKEN_OFF_AFTER_S:
            raise DependencyUnavailable from asyncpg.QueryCanceledError()
        self.rows -= removed
        self.batches.append(removed)
        return {"removed": removed, "is_last": removed < wanted}

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


@dataclass(slots=True)
class CountedChore:
    """A chore whose rows are in the table that is cleaned."""

    what: str = "rows"
    kept_for: timedelta = TERM
    due: int = 5
    failure: Exception | None = None

    async def count(self) -> int:
        """As the test says."""
        if self.failure is not None:
            raise self.failure
        return self.due

    async def remove(self, hasty: Hasty, size: int) -> Batch:
        """From the table."""
        if self.failure is not None:
            raise self.failure
        return await hasty.run("", size)


async def rested(_: float) -> None:
    """Rest no longer than others need to have a turn."""
    await asyncio.sleep(0)


def cleaner(table: SlowTable, *chores: CountedChore, rest: Callable[[float], object] = rested) -> Cleaner:
    """A cleaner of a table."""

    async def opening() -> SlowTable:
        return table

    return Cleaner(chores or (CountedChore(),), opening, table.clock, 3600.0, rest=rest)  # type: ignore[arg-type]


def test_batches_grow_while_they_are_quick_and_stop_growing_in_time() -> None:
    """From a few rows to as many as take about as long as is aimed at, and never beyond a bound."""
    size = BatchSize()
    sizes = []
    for _ in range(20):
        sizes.append(size.rows)
        size.note(size.rows * 20e-6)
    assert sizes[:4] == [64, 128, 256, 512]
    assert sizes[-1] == sizes[-2] == 512
    for _ in range(20):
        size.note(0.0)
    assert size.rows == 10_000


def test_a_batch_that_took_long_is_followed_by_a_smaller_one() -> None:
    """Down to a single row, and no further."""
    size = BatchSize(1000)
    size.note(0.05)
    assert size.rows == 500
    assert size.note_broken_off()
    assert size.rows == 125
    size = BatchSize(2)
    assert size.note_broken_off()
    assert not size.note_broken_off()
    assert size.rows == 1


async def test_everything_that_is_due_goes_in_batches_that_take_about_as_long_as_they_may() -> None:
    """Ten thousand rows of 0.1 ms: no batch is near the time at which the server breaks off."""
    table = SlowTable(FixedClock(NOW), rows=10_000, row_s=1e-4)
    (cleaned,) = await cleaner(table).clean_up()
    assert (cleaned.count, cleaned.error, table.rows) == (10_000, "", 0)
    assert max(table.batches) * 1e-4 <= 2 * cleaning._AIM_S
    assert cleaned.longest_s == pytest.approx(max(table.batches) * 1e-4)
    assert table.is_closed


async def test_what_is_broken_off_is_tried_in_smaller_parts() -> None:
    """Rows of 30 ms: the first batch of 64 would take two seconds, and is cut down to what the server lets pass."""
    table = SlowTable(FixedClock(NOW), rows=5, row_s=0.03)
    (cleaned,) = await cleaner(table).clean_up()
    assert (cleaned.count, cleaned.error) == (5, "")
    assert max(table.batches) * 0.03 <= cleaning._BROKEN_OFF_AFTER_S


async def test_a_row_that_takes_too_long_by_itself_is_told_and_left() -> None:
    """There is nothing smaller to try: the chore ends, others go on, and the answer says so."""
    table = SlowTable(FixedClock(NOW), rows=5, row_s=1.0)
    done = CountedChore(what="others", failure=None)
    with capture_logs() as logs:
        first, second = await cleaner(table, CountedChore(), done).clean_up()
    assert (first.count, first.error) == (0, "DEPENDENCY_UNAVAILABLE")
    assert second.what == "others"
    (line,) = [each for each in logs if each["event"] == "cleanup_finished"]
    assert line["log_level"] == "warning"
    assert line["failed"] == ["rows", "others"]


async def test_between_two_batches_everybody_else_has_as_long() -> None:
    """The disk is half theirs, however much there is to remove."""
    clock = FixedClock(NOW)
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    table = SlowTable(clock, rows=3_000, row_s=1e-4)
    await cleaner(table, rest=rest).clean_up()
    taken = [each * 1e-4 for each in table.batches]
    assert len(rests) == len(taken) - 1
    assert all(pause >= seconds - 1e-9 for pause, seconds in zip(rests, taken, strict=False))


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("failure", "reason"),
    [(DependencyUnavailable(), "DEPENDENCY_UNAVAILABLE"), (ValueError("a defect"), "INTERNAL")],
)
async def test_one_that_cannot_be_done_keeps_no_other_back(
    failure: Exception, reason: str, dry_run: bool
) -> None:
    """Neither an outage nor a defect; each says what became of it."""
    table = SlowTable(FixedClock(NOW), rows=5)
    broken = CountedChore(what="broken", failure=failure)
    first, second = await cleaner(table, broken, CountedChore()).clean_up(dry_run=dry_run)
    assert (first.what, first.count, first.error) == ("broken", 0, reason)
    assert (second.what, second.count, second.error) == ("rows", 5, "")


async def test_a_dry_run_counts_and_opens_no_connection_to_remove_by() -> None:
    """Nothing is touched, and nothing has taken any time."""
    table = SlowTable(FixedClock(NOW), rows=5)
    (cleaned,) = await cleaner(table).clean_up(dry_run=True)
    assert cleaned == Cleaned("rows", TERM, 5)
    assert (table.rows, table.batches, table.is_closed) == (5, [], False)
    assert not cleaned.message().HasField("longest_batch")


async def test_without_a_connection_every_chore_says_so() -> None:
    """None of them was begun."""

    async def opening() -> None:
        raise DependencyUnavailable

    chores = (CountedChore("a"), CountedChore("b"))
    refused = Cleaner(chores, opening, FixedClock(NOW), 3600.0)  # type: ignore[arg-type]
    cleaned = await refused.clean_up()
    assert [(each.what, each.count, each.error) for each in cleaned] == [
        ("a", 0, "DEPENDENCY_UNAVAILABLE"),
        ("b", 0, "DEPENDENCY_UNAVAILABLE"),
    ]


async def test_a_run_is_told_in_one_line() -> None:
    """What went, by kind, how long the longest batch was, and whether anything was left."""
    table = SlowTable(FixedClock(NOW), rows=500, row_s=1e-4)
    with capture_logs() as logs:
        await cleaner(table).clean_up()
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("cleanup_finished", "info")
    assert (line["removed"], line["failed"], line["dry_run"]) == ({"rows": 500}, [], False)
    assert line["longest_batch_ms"] == pytest.approx(max(table.batches) / 10, abs=0.1)


async def test_two_runs_in_one_process_take_turns() -> None:
    """Whoever asks while one runs waits for it, and removes what is left: nothing is counted twice."""
    table = SlowTable(FixedClock(NOW), rows=1_000)
    both = cleaner(table)
    first, second = await asyncio.gather(both.clean_up(), both.clean_up())
    assert first[0].count + second[0].count == 1_000
    assert second[0].count == 0


async def test_stopping_ends_a_run_after_the_batch_in_hand() -> None:
    """A process that ends does not wait for millions of rows."""
    table = SlowTable(FixedClock(NOW), rows=1_000_000)
    stopped: list[Cleaner] = []

    async def rest(_: float) -> None:
        stopped[0].stop()

    stopped.append(cleaner(table, rest=rest))
    (cleaned,) = await stopped[0].clean_up()
    assert cleaned.count == 64
    async with asyncio.timeout(5):
        await stopped[0].run()


async def test_it_cleans_up_by_itself_now_and_then() -> None:
    """Again and again, until it is stopped."""
    table = SlowTable(FixedClock(NOW), rows=5)
    runs = 0

    async def opening() -> SlowTable:
        nonlocal runs
        runs += 1
        if runs == 3:
            itself.stop()
        return table

    itself = Cleaner((CountedChore(),), opening, table.clock, 0.001)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await itself.run()
    assert runs == 3


async def test_an_outage_is_no_batch_that_took_too_long() -> None:
    """Only what the server broke off is tried again in smaller parts."""

    class Gone:
        async def fetchrow(self, query: str, *arguments: object) -> Row | None:
            raise DependencyUnavailable from asyncpg.ConnectionDoesNotExistError()

    hasty = Hasty(Gone(), FixedClock(NOW))  # type: ignore[arg-type]
    with pytest.raises(DependencyUnavailable):
        await hasty.run("", 1)
    with pytest.raises(TookTooLong):
        await Hasty(SlowTable(FixedClock(NOW), 1, 1.0), FixedClock(NOW)).run("", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["6", "3651", "90.5", "soon"])
def test_days_are_whole_and_within_bounds(text: str) -> None:
    """The variable is named, with its rule."""
    with pytest.raises(SettingsError, match="X_DAYS must be a whole number from 7 to 3650"):
        cleaning.days(Environment({"X_DAYS": text}), "X_DAYS", 90)


def test_settings_have_their_usual_values() -> None:
    """Days as a time span, and an hour between two runs."""
    assert cleaning.days(Environment({}), "X_DAYS", 90) == TERM
    assert cleaning.days(Environment({"X_DAYS": "7"}), "X_DAYS", 90) == timedelta(days=7)
    assert cleaning.interval_s(Environment({}), "X") == 3600.0
    with pytest.raises(SettingsError, match="X_RETENTION_INTERVAL_S"):
        cleaning.interval_s(Environment({"X_RETENTION_INTERVAL_S": "0"}), "X")
