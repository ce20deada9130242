"""Owns ending what runs beside a run for as long as nobody ends it."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_S: Final = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until every one is over, however each of them has ended.

    Once is not enough: when what a task waits for comes true in the moment of the cancel, `asyncio.wait_for` before
    Python 3.12, by which nats-py waits for every answer, returns that and forgets the cancel.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        over, left = await asyncio.wait(left, timeout=_AGAIN_S)
        for task in over:
            _ = task.cancelled() or task.exception()  # seen, so that nobody is told that it was not
