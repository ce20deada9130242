"""Owns the patience of those who look at the end of a run: what cannot be seen in time is told, the rest is judged."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

_LEAST_S: Final = 10.0
"""What each look gets in any case, however long the others took: enough for what is asked by SQL."""

Seen = TypeVar("Seen")


class Looking:
    """A number of looks that share a time. A build may be broken in any way; none of them may keep a verdict back."""

    def __init__(self, patience_s: float, least_s: float = _LEAST_S) -> None:
        self._until = time.monotonic() + patience_s
        self._least_s = least_s
        self.unseen: list[str] = []
        """What could not be seen, and why."""

    async def at(self, what: str, look: Awaitable[Seen], otherwise: Seen) -> Seen:
        """What was seen; `otherwise` when looking fails or takes too long."""
        try:
            async with asyncio.timeout(max(self._least_s, self._until - time.monotonic())):
                return await look
        except Exception as error:  # noqa: BLE001  # see above
            self.unseen.append(f"{what} could not be seen: {error!r}")
            return otherwise
