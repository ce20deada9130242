"""How streams are admitted while thousands come at once, by the inbox processes' own figures.

Those who come have much to do themselves then, and see an answer only when they get to it.
"""

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final, Self

import psutil

from stack.background import BackgroundStack

_LOOK_S: Final = 0.2
_TIMEOUT_S: Final = 5.0
_PEOPLE: Final = re.compile(r"^wedsync_inbox_people (\S+)$", re.MULTILINE)
# The first and the last are left out: not all processes are there yet, and the last come when they were told to.
_FIRST, _LAST = 0.1, 0.9


class Admissions:
    """How many people are on streams of all inbox processes together, looked at again and again."""

    def __init__(self, stack: BackgroundStack, people: int) -> None:
        """`people` are expected."""
        self._stack = stack
        self._people = people
        self._seen: list[tuple[float, float]] = []

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Self]:
        """Looks for the time of the block."""
        following = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def unsteadiness(self) -> float:
        """How many were admitted in the busiest second, as many times those of a mean one: 1.0 when all are alike."""
        begin, end = self._reached(_FIRST), self._reached(_LAST)
        mean = (self._count_at(end) - self._count_at(begin)) / max(end - begin, 1.0)
        busiest = max(self._count_at(at + 1.0) - count for at, count in self._seen if begin <= at <= end)
        return busiest / max(mean, 1.0)

    async def _follow(self) -> None:
        while True:
            counted = await asyncio.to_thread(self._count)
            if counted is not None:
                self._seen.append((monotonic(), counted))
            await asyncio.sleep(_LOOK_S)

    def _count(self) -> float | None:
        """On all processes, of which one that does not listen yet has nobody; None when one does not answer."""
        total = 0.0
        for process in self._stack.services("inbox"):
            try:
                listen = process.environ()["INBOX_METRICS_LISTEN"]
                with urllib.request.urlopen(f"http://{listen}/metrics", timeout=_TIMEOUT_S) as response:
                    total += float(_PEOPLE.findall(response.read().decode())[0])
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    return None
            except (OSError, IndexError, psutil.Error):
                return None
        return total

    def _reached(self, share: float) -> float:
        """When so many were there."""
        for at, count in self._seen:
            if count >= share * self._people:
                return at
        raise RuntimeError("the figures of the inbox processes do not say that people came back")

    def _count_at(self, moment: float) -> float:
        """How many were there then, as far as it was looked at."""
        return next((count for at, count in self._seen if at >= moment), self._seen[-1][1])
