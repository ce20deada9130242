"""The end of a process: in order, each step within its time, and over early for whoever is in a hurry."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from shared.drain import DrainStep, drain, run_until_signal


class Diary:
    """Steps that write down when they were taken."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def step(self, name: str, *, fails: bool = False) -> DrainStep:
        """A step that ends at once, well or badly."""

        async def run() -> None:
            self.entries.append(name)
            if fails:
                raise RuntimeError(name)

        return DrainStep(name, run)

    def endless(self, name: str, timeout_s: float) -> DrainStep:
        """A step that never ends of itself."""

        async def run() -> None:
            self.entries.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.entries.append(f"{name} given up")

        return DrainStep(name, run, timeout_s)


@pytest.fixture
def diary() -> Diary:
    """An empty diary."""
    return Diary()


async def when(condition: Callable[[], bool]) -> None:
    """Returns once a condition holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def forever() -> None:
    """A background task that does what it should."""
    await asyncio.Event().wait()


async def test_steps_are_taken_in_order(diary: Diary) -> None:
    """One after another, as they are listed, and each leaves a line."""
    with capture_logs() as lines:
        went_well = await drain(
            [diary.step("stop_fetching"), diary.step("drain_nats"), diary.step("close_pools")]
        )
    assert (went_well, diary.entries) == (True, ["stop_fetching", "drain_nats", "close_pools"])
    assert [line["step"] for line in lines if line["event"] == "drain_step_finished"] == diary.entries


async def test_step_that_fails_does_not_stop_the_others(diary: Diary) -> None:
    """Pools are closed even if NATS could not be drained, and the failure is told."""
    with capture_logs() as lines:
        went_well = await drain([diary.step("drain_nats", fails=True), diary.step("close_pools")])
    assert (went_well, diary.entries) == (False, ["drain_nats", "close_pools"])
    assert [line["step"] for line in lines if line["event"] == "drain_step_failed"] == ["drain_nats"]


async def test_step_that_takes_too_long_is_given_up(diary: Diary) -> None:
    """Its time is up, it is cancelled, and the next one begins."""
    went_well = await drain([diary.endless("end_streams", 0.01), diary.step("close_pools")])
    assert (went_well, diary.entries) == (False, ["end_streams", "end_streams given up", "close_pools"])


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_signal_begins_the_end(diary: Diary, sent: signal.Signals) -> None:
    """Nothing is taken down before the signal; afterwards the exit code is 0."""
    running = asyncio.create_task(run_until_signal([diary.step("close_pools")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert diary.entries == []
    os.kill(os.getpid(), sent)
    assert (await running, diary.entries) == (0, ["close_pools"])


@pytest.mark.parametrize("fail", [True, False], ids=["fails", "returns"])
async def test_background_task_that_ends_ends_the_process(diary: Diary, *, fail: bool) -> None:
    """A consumer that died leaves nothing half alive: all is taken down, and the exit code asks for a restart."""

    async def consume() -> None:
        if fail:
            raise RuntimeError("lost the stream")

    healthy = asyncio.create_task(forever())
    with capture_logs() as lines:
        code = await run_until_signal(
            [diary.step("close_pools")], [healthy, asyncio.create_task(consume(), name="consumer")]
        )
    healthy.cancel()
    assert (code, diary.entries) == (1, ["close_pools"])
    assert [line["task"] for line in lines if line["event"] == "background_task_ended"] == ["consumer"]


async def test_second_signal_gives_up_the_rest(diary: Diary) -> None:
    """Whoever presses Ctrl-C twice does not wait."""
    steps = [diary.endless("end_streams", 60), diary.step("close_pools")]
    running = asyncio.create_task(run_until_signal(steps))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await when(lambda: diary.entries == ["end_streams"])
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 1
    await when(lambda: diary.entries == ["end_streams", "end_streams given up"])


async def test_failed_step_is_in_the_exit_code(diary: Diary) -> None:
    """An end that was not clean is not reported as one."""
    ends: Callable[[], Awaitable[None]] = asyncio.Event().wait  # type: ignore[assignment]
    running = asyncio.create_task(run_until_signal([DrainStep("drain_nats", ends, 0.01)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 1
