"""Waits in tests for what must come true, with a deadline, instead of sleeping and hoping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE_S = 20.0
_Result = TypeVar("_Result")


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; a failed assertion past the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.005)


async def until_equal(expected: _Result, ask: Callable[[], Awaitable[_Result]]) -> None:
    """Ask until the answer is the expected one; a failed assertion with the last answer past the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while (actual := await ask()) != expected:
        assert time.monotonic() < deadline, f"expected {expected!r}, and it is still {actual!r}"
        await asyncio.sleep(0.01)
