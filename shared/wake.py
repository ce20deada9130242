"""Owns waiting for a hint: an event that says there is work, or the time after which one looks without it."""

import asyncio


async def wait_for_hint(event: asyncio.Event, timeout_s: float) -> None:
    """Return when the event is set, and after `timeout_s` at the latest."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
