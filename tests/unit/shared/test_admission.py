"""Who comes in when there is no room for all: turns, the share of calls that is refused, and hints for streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from shared import admission
from shared.admission import CallDoor, StreamDoor
from shared.errors import DeadlineExceeded, ServiceError, TooManyCalls
from shared.turns import Turns


class Context:
    """As much of a call's context as waiting needs."""

    def __init__(self, remaining_s: float | None = None) -> None:
        self._remaining_s = remaining_s

    def time_remaining(self) -> float | None:
        return self._remaining_s


def in_time(remaining_s: float | None = None) -> "grpc.aio.ServicerContext[Any, Any]":
    """The context of a call with so much time left; None is all the time in the world."""
    return Context(remaining_s)  # type: ignore[return-value]


async def until(true: Callable[[], bool]) -> None:
    """Returns once something is true."""
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def queued(turns: Turns, count: int) -> list[asyncio.Task[None]]:
    """So many who wait for their turn, in order."""
    waiting = [asyncio.create_task(turns.wait(in_time())) for _ in range(count)]
    await asyncio.sleep(0)
    return waiting


async def test_turns_are_taken_in_order() -> None:
    """Whoever waited longest is next, and nobody passes the queue."""
    turns = Turns(1)
    assert turns.take()
    first, second = await queued(turns, 2)
    assert not turns.take()
    turns.give()
    await first
    assert not second.done()
    turns.give()
    await second
    turns.give()
    assert turns.take()


async def test_turn_of_one_who_gave_up_goes_to_the_next() -> None:
    """A call that is cancelled while it waits, or just as its turn comes, keeps no place."""
    turns = Turns(1)
    assert turns.take()
    early, late, last = await queued(turns, 3)
    early.cancel()
    await asyncio.gather(early, return_exceptions=True)
    turns.give()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    await asyncio.wait_for(last, 5)


async def test_too_long_a_wait_is_refused() -> None:
    """Who waits longer than allowed is told to come again, and the one behind has the turn."""
    turns = Turns(1, longest_wait_s=0.05)
    assert turns.take()
    (old,) = await queued(turns, 1)
    await until(lambda: turns.oldest_wait_s(time.monotonic()) > 0.05)
    (young,) = await queued(turns, 1)
    turns.give()
    with pytest.raises(TooManyCalls):
        await old
    await young


async def test_nothing_is_worked_on_for_nobody() -> None:
    """A call whose deadline has come while it waited gives its turn back."""
    turns = Turns(1)
    assert turns.take()
    late = asyncio.create_task(turns.wait(in_time(remaining_s=0)))
    await asyncio.sleep(0)
    turns.give()
    with pytest.raises(DeadlineExceeded):
        await late
    assert turns.take()


@pytest.fixture
async def door() -> AsyncIterator[CallDoor]:
    """A door for calls."""
    door = CallDoor(Turns(64))
    yield door
    await door.close()


def waiting(seconds: list[float]) -> Callable[[], Awaitable[None]]:
    """A probe that takes as long as the list's only element says when it begins."""

    async def probe() -> None:
        await asyncio.sleep(seconds[0])

    return probe


async def come_until(door: CallDoor, true: Callable[[], bool]) -> tuple[int, int]:
    """Calls come steadily until something is true: how many came in and how many did not."""
    taken = refused = 0
    async with asyncio.timeout(10):
        while not true():
            for _ in range(5):
                if door.refusal() is None:
                    taken += 1
                else:
                    refused += 1
            await asyncio.sleep(0.01)
    return taken, refused


async def test_standing_queue_has_a_share_of_calls_refused_until_it_is_gone(door: CallDoor) -> None:
    """While calls wait too long inside gRPC ever more are refused; when they do not, all come in again."""
    wait_s = [0.4]
    door.measure_by(waiting(wait_s))
    taken, refused = await come_until(door, lambda: door.share > 0.5)
    assert min(taken, refused) > 0
    wait_s[0] = 0.0
    await come_until(door, lambda: door.share == 0)
    assert door.refusal() is None


async def test_moment_without_the_processor_refuses_nobody(door: CallDoor) -> None:
    """One long wait is no standing queue."""
    wait_s = [0.2]
    door.measure_by(waiting(wait_s))
    asyncio.get_running_loop().call_later(0.06, wait_s.__setitem__, 0, 0.0)
    ended = time.monotonic() + 1
    _, refused = await come_until(door, lambda: time.monotonic() > ended)
    assert refused == 0


async def test_few_calls_are_not_measured(door: CallDoor) -> None:
    """A quiet server has nothing to do for its door."""
    asked: list[None] = []

    async def probe() -> None:
        asked.append(None)

    door.measure_by(probe)
    for _ in range(4):
        assert door.refusal() is None
        await asyncio.sleep(0.06)
    assert asked == []


def hint_of(door: StreamDoor, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Keeps what is told to streams that are refused."""
    hints: list[float] = []
    made = admission.refusal

    def noted(error: ServiceError) -> admission.Handler:
        hints.append(error.retry_after_s or 0)
        return made(error)

    monkeypatch.setattr(admission, "refusal", noted)
    return hints


async def test_streams_open_a_few_at_a_time() -> None:
    """A stream holds its place until its first message, or its end, and no longer."""
    door = StreamDoor(2)
    first, second = door.begin(counts=True), door.begin(counts=True)
    assert door.refusal() is not None
    first.end(is_open=True)
    first.end(is_open=False)
    assert door.refusal() is None
    third = door.begin(counts=True)
    assert door.refusal() is not None
    second.end(is_open=False)
    third.end(is_open=True)
    assert door.refusal() is None


async def test_streams_of_the_suite_count_for_nothing() -> None:
    """What came in by no door takes no place at it."""
    door = StreamDoor(1)
    opening = door.begin(counts=False)
    assert door.refusal() is None
    opening.end(is_open=True)
    assert door.refusal() is None


async def test_refused_streams_are_spread_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told a later moment than the one before, up to half a minute."""
    door = StreamDoor(1)
    hints = hint_of(door, monkeypatch)
    door.begin(counts=True)
    for _ in range(5_000):
        assert door.refusal() is not None
    assert hints == sorted(hints)
    assert (hints[0], hints[-1]) == (0.1, 30.0)
