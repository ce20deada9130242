"""Owns that bulk steps aside: while something urgent has just begun, lanes of normal and low begin nothing new."""

import asyncio
from typing import Final, Self

from nats.aio.msg import Msg

from services.dispatcher.domain import Priority
from shared import subjects
from shared.clock import Clock
from shared.messaging import Messaging

# However much that is urgent comes, bulk goes on for as long as it has waited.
_LONGEST_S: Final = 0.1


class Courtesy:
    """When bulk may go on. What it hears are hints: without them urgent ones take longer, and nothing is wrong."""

    def __init__(self, clock: Clock, aside_s: float) -> None:
        """`aside_s` is about what an urgent broadcast takes from its announcement to its inboxes; 0 for never."""
        self._clock = clock
        self._aside_s = aside_s
        self._until = 0.0

    @classmethod
    async def listening(cls, messaging: Messaging, clock: Clock, aside_s: float) -> Self:
        """One that hears of everything urgent from now on."""
        courtesy = cls(clock, aside_s)
        for priority in Priority:
            if not priority.is_bulk:
                await messaging.subscribe(subjects.broadcast_due(priority.slug), courtesy.hear)
        return courtesy

    async def step_aside(self) -> None:
        """Return once nothing urgent has begun just now, or after a while in any case."""
        now = self._clock.monotonic()
        longest = now + _LONGEST_S
        while (until := min(self._until, longest)) > now:
            await asyncio.sleep(until - now)
            now = self._clock.monotonic()

    async def hear(self, _: Msg | None = None) -> None:
        """Something urgent was announced."""
        self._until = self._clock.monotonic() + self._aside_s
