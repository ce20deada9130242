"""How a process ends: it waits for a signal or a broken background task, then takes its steps down in order."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class DrainStep:
    """One thing to end, by its name in the log; past `timeout_s` it is given up and the next one begins."""

    name: str
    run: Callable[[], Awaitable[object]]
    timeout_s: float = 5.0


class Loop(Protocol):
    """What runs beside the calls until it is told to come to its end."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


async def end_loops(loops: Iterable[Loop], background: Iterable[asyncio.Task[None]]) -> None:
    """Tell each loop to come to its end, and wait for all that runs in the background."""
    for loop in loops:
        loop.stop()
    await asyncio.wait(list(background))


async def run_until_signal(steps: Sequence[DrainStep], background: Iterable[asyncio.Task[None]] = ()) -> int:
    """Waits for SIGTERM, SIGINT or the end of a background task, then takes the steps; answers the exit code.

    Background tasks are expected to run for as long as the process: one that ends makes the exit code 1, so that a
    supervisor starts afresh. A second signal gives up whatever step is being taken and all that follow.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for each in SIGNALS:
        loop.add_signal_handler(each, received.put_nowait, each)
    try:
        failed = await _wait_for_end(received, list(background))
        return max(int(failed), await _drain_unless_hurried(steps, received))
    finally:
        for each in SIGNALS:
            loop.remove_signal_handler(each)


async def drain(steps: Iterable[DrainStep]) -> bool:
    """Takes the steps in order, each logged; a failing or slow one does not stop the next. True when all went well."""
    went_well = True
    for step in steps:
        started = time.monotonic()
        try:
            async with asyncio.timeout(step.timeout_s):
                await step.run()
        except Exception:
            # What is left to end matters more than why this did not.
            went_well = False
            log.exception("drain_step_failed", step=step.name)
        else:
            log.info("drain_step_finished", step=step.name, ms=round((time.monotonic() - started) * 1e3, 1))
    return went_well


async def _wait_for_end(
    received: asyncio.Queue[signal.Signals], background: list[asyncio.Task[None]]
) -> bool:
    """Whether it was a background task that ended, rather than a signal that came."""
    first_signal = asyncio.create_task(received.get())
    finished, _ = await asyncio.wait({first_signal, *background}, return_when=asyncio.FIRST_COMPLETED)
    if first_signal in finished:
        log.info("drain_started", signal=first_signal.result().name)
        return False
    first_signal.cancel()
    for task in background:
        if task in finished:
            error = None if task.cancelled() else task.exception()
            log.error("background_task_ended", task=task.get_name(), exc_info=error)
    return True


async def _drain_unless_hurried(steps: Sequence[DrainStep], received: asyncio.Queue[signal.Signals]) -> int:
    draining = asyncio.create_task(drain(steps))
    second_signal = asyncio.create_task(received.get())
    finished, unfinished = await asyncio.wait({draining, second_signal}, return_when=asyncio.FIRST_COMPLETED)
    for task in unfinished:
        task.cancel()
    if draining not in finished:
        log.warning("drain_abandoned")
        return 1
    return 0 if draining.result() else 1
