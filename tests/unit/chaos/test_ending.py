"""What runs beside a run ends when it is to, also when it has not heard that the first time."""

import asyncio

from tests.chaos.ending import end

DEADLINE_S = 10.0


async def test_a_forgotten_cancel_is_repeated() -> None:
    """As `asyncio.wait_for` forgets it for what comes true in that moment; the task goes on to its next wait."""
    forgotten = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(DEADLINE_S)
        except asyncio.CancelledError:
            forgotten.set()
        await asyncio.sleep(DEADLINE_S)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S / 2):
        await end([task])
    assert forgotten.is_set()
    assert task.cancelled()


async def test_tasks_that_are_over_are_nobodys_concern() -> None:
    """However they ended, and also when there are none."""

    async def fail() -> None:
        raise ValueError("a defect")

    tasks = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.wait(tasks)
    await end(tasks)
    await end([])
