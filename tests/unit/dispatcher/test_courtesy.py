"""How bulk steps aside for what is urgent, and for how long."""

import asyncio
import time

from services.dispatcher.courtesy import Courtesy
from shared.clock import SystemClock


async def aside_for(courtesy: Courtesy) -> float:
    """Seconds that bulk waits now."""
    began = time.monotonic()
    await courtesy.step_aside()
    return time.monotonic() - began


async def test_bulk_waits_for_what_was_announced_just_now() -> None:
    """Until it must have arrived; before anything was announced, and with no time to step aside, not at all."""
    courtesy = Courtesy(SystemClock(), 0.05)
    assert await aside_for(courtesy) < 0.04
    await courtesy.hear()
    assert await aside_for(courtesy) >= 0.04
    never = Courtesy(SystemClock(), 0.0)
    await never.hear()
    assert await aside_for(never) < 0.04


async def test_bulk_goes_on_however_much_is_urgent() -> None:
    """It waits a tenth of a second at most, while urgent ones come all the time."""
    courtesy = Courtesy(SystemClock(), 0.05)

    async def flood() -> None:
        while True:
            await courtesy.hear()
            await asyncio.sleep(0.005)

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0)
    assert 0.09 <= await asyncio.wait_for(aside_for(courtesy), 5)
    flooding.cancel()
