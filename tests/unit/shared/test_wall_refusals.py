"""Refused attempts are added up: each is counted once, and no number of them or of callers takes more than its room."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.clock import FixedClock
from shared.errors import DependencyUnavailable
from shared.wall_refusals import OTHERS, RefusalKeeper, RefusedAttempts, WallRefusals

NOON = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
MINUTE = NOON.replace(second=0)
SEND, READ = "SenderService/SendBroadcast", "SenderService/GetBroadcast"


class Record:
    """Where attempts are written, like the audit log: what is told again is known; it can be away."""

    def __init__(self) -> None:
        self.events: dict[UUID, RefusedAttempts] = {}
        self.batches: list[int] = []
        self.is_down = False
        self.is_heard = True

    async def write(self, attempts: Sequence[RefusedAttempts]) -> None:
        if self.is_down:
            raise DependencyUnavailable
        self.batches.append(len(attempts))
        for each in attempts:
            self.events.setdefault(each.event_id, each)
        if not self.is_heard:
            raise DependencyUnavailable

    def lines(self) -> dict[tuple[datetime, str, str], int]:
        """What was written, by minute, caller and method."""
        found = {(each.minute, each.caller, each.method): each.attempts for each in self.events.values()}
        assert len(found) == len(self.events)
        return found


def test_attempts_are_added_up_by_caller_method_and_minute() -> None:
    """A minute is told when it is over, and the one that runs is not."""
    clock = FixedClock(NOON)
    refusals = WallRefusals(clock)
    for caller, method in (("olu", SEND), ("olu", SEND), ("olu", READ), ("forms", SEND)):
        refusals.note(caller, method)
    assert refusals.over() == []
    clock.move(30)
    refusals.note("olu", SEND)
    over = refusals.over()
    assert {(each.minute, each.caller, each.method, each.attempts) for each in over} == {
        (MINUTE, "olu", SEND, 2),
        (MINUTE, "olu", READ, 1),
        (MINUTE, "forms", SEND, 1),
    }
    refusals.forget(over)
    assert refusals.over() == []
    assert [(each.minute, each.attempts) for each in refusals.all()] == [(MINUTE + timedelta(minutes=1), 1)]


def test_more_callers_than_are_kept_apart_share_a_line() -> None:
    """10,000 attempts by 1,000 callers are 101 lines, and every attempt is in one of them."""
    refusals = WallRefusals(FixedClock(NOON), apart_a_minute=100)
    for number in range(10_000):
        refusals.note(f"caller-{number % 1_000}", SEND)
    lines = refusals.all()
    assert len(lines) == 101
    assert sum(each.attempts for each in lines) == 10_000
    (others,) = [each for each in lines if each.caller == OTHERS]
    assert others.attempts == 9_000


def test_the_next_minute_keeps_callers_apart_again() -> None:
    """Who floods a minute hides others in that one only."""
    clock = FixedClock(NOON)
    refusals = WallRefusals(clock, apart_a_minute=1)
    refusals.note("flood", SEND)
    refusals.note("olu", SEND)
    clock.move(60)
    refusals.note("olu", SEND)
    assert [each.caller for each in refusals.all()] == ["flood", OTHERS, "olu"]


def test_what_cannot_be_written_takes_no_more_room_than_it_may() -> None:
    """While nothing is written for hours, a method has a line a minute beyond the bound; later there is room again."""
    clock = FixedClock(NOON)
    refusals = WallRefusals(clock, apart_a_minute=10, apart=25)
    for _ in range(100):
        for number in range(20):
            refusals.note(f"caller-{number}", SEND)
        clock.move(60)
    lines = refusals.over()
    assert sum(each.caller != OTHERS for each in lines) == 25
    assert len(lines) == 25 + 100
    assert sum(each.attempts for each in lines) == 2_000
    refusals.forget(lines)
    refusals.note("caller-1", SEND)
    assert [each.caller for each in refusals.all()] == ["caller-1"]


def test_a_clock_that_is_put_back_opens_no_minute_again() -> None:
    """What was told of a minute stays all of it."""
    clock = FixedClock(NOON)
    refusals = WallRefusals(clock)
    refusals.note("olu", SEND)
    clock.move(60)
    refusals.note("olu", SEND)
    refusals.forget(refusals.over())
    clock.move(-60)
    refusals.note("olu", SEND)
    assert [(each.minute, each.attempts) for each in refusals.all()] == [(MINUTE + timedelta(minutes=1), 2)]


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from([SEND, READ])),
        st.sampled_from([10.0, 45.0]),
        st.sampled_from(["write", "outage", "lost answer"]),
    ),
    max_size=60,
)


@given(steps)
async def test_every_attempt_is_counted_once(taken: list[object]) -> None:
    """Whatever happens in which order: outages, and answers that get lost after the attempts were written."""
    clock, record = FixedClock(NOON), Record()
    refusals = WallRefusals(clock, apart_a_minute=3, apart=5)
    keeper = RefusalKeeper(refusals, record.write)
    noted: Counter[tuple[datetime, str]] = Counter()
    for step in taken:
        match step:
            case (str(caller), str(method)):
                refusals.note(caller, method)
                noted[clock.now().replace(second=0), method] += 1
            case float(seconds):
                clock.move(seconds)
            case _:
                record.is_down, record.is_heard = step == "outage", step != "lost answer"
                await keeper._attempt(refusals.over)
    record.is_down, record.is_heard = False, True
    await keeper.finish()
    written: Counter[tuple[datetime, str]] = Counter()
    for (minute, _, method), attempts in record.lines().items():
        written[minute, method] += attempts
    assert written == noted


async def test_everything_is_written_at_the_end() -> None:
    """Also the minute that runs, in batches that the audit log takes."""
    record = Record()
    keeper = RefusalKeeper(WallRefusals(FixedClock(NOON), apart_a_minute=1_000), record.write)
    running = asyncio.create_task(keeper.run())
    for number in range(450):
        keeper.refusals.note(f"caller-{number}", SEND)
    keeper.stop()
    await running
    assert record.batches == [200, 200, 50]
    assert len(record.events) == 450


async def test_a_minute_is_written_once_it_is_over() -> None:
    """Without anybody asking for it."""
    clock, record = FixedClock(NOON), Record()
    keeper = RefusalKeeper(WallRefusals(clock), record.write)
    keeper.refusals.note("olu", SEND)
    clock.move(29.99)
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(10):
        while not record.events:
            await asyncio.sleep(0.005)
            clock.move(0.005)
    assert record.lines() == {(MINUTE, "olu", SEND): 1}
    keeper.stop()
    await running
