"""Owns the way to Redis, which may be down, slow or empty at any moment: what it does not say in time is not known."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shared.metrics import REDIS_CALLS

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 0.05
"""How long a call may wait for Redis."""
_REST_S: Final = 1.0
_Result = TypeVar("_Result")


class OptionalRedis:
    """A Redis that nobody depends on. After a failure it is left alone for a second, so that few calls pay for that."""

    def __init__(self, client: Redis, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._rests_until = 0.0

    @classmethod
    def open(cls, url: str, timeout_s: float = TIMEOUT_S) -> Self:
        """One that gives up in time and does not try again by itself; nothing is connected yet.

        More time than usual is for work that no call waits for.
        """
        client = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(client, timeout_s)

    @property
    def is_resting(self) -> bool:
        """Whether it is left alone just now."""
        return time.monotonic() < self._rests_until

    async def attempt(self, ask: Callable[[Redis], Awaitable[_Result]]) -> _Result | None:
        """What it answers, None when it rests or does not answer in time."""
        if self.is_resting:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await ask(self._client)
        except (RedisError, OSError, TimeoutError) as error:
            if not self.is_resting:
                log.warning("redis_unreachable", error=type(error).__name__)
            self._rests_until = time.monotonic() + _REST_S
            REDIS_CALLS.labels("failed").inc()
            return None
        REDIS_CALLS.labels("answered").inc()
        return result

    async def check(self) -> None:
        """Return when it answers; raises whatever keeps it from that."""
        async with asyncio.timeout(self._timeout_s):
            await self._client.ping()

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()
