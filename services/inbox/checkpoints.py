"""Owns remembering badges, here and in Redis, which may be down, slow or empty at any moment without a wrong count.

A badge says what was unread as of a position of the log, which stays true: Postgres is asked what came after.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from redis.asyncio import Redis

from services.inbox.domain import Badge
from services.inbox.groups import Group
from shared.optional_redis import OptionalRedis

_KEPT_FOR: Final = timedelta(days=7)
_KEPT_HERE: Final = 50_000
_LARGEST_GROUP: Final = 256
# Every so many positions a badge is worth writing anew even if it says the same.
_STALE_POSITIONS: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Checkpoints:
    """Badges by recipient.

    What this process has counted itself is as true as what Redis has, and nearer.
    """

    def __init__(self, redis: OptionalRedis, log_identity: UUID) -> None:
        self._redis = redis
        self._prefix = f"inbox:unread:{log_identity}:"
        self._here: OrderedDict[int, Badge] = OrderedDict()
        self._reads: Group[int, Badge | None] = Group(self._read, _LARGEST_GROUP)
        self._writes: Group[tuple[int, Badge], None] = Group(self._write, _LARGEST_GROUP)
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def is_resting(self) -> bool:
        """Whether Redis is left alone just now."""
        return self._redis.is_resting

    def here(self, recipient_number: int) -> Badge | None:
        """An earlier badge that this process remembers itself."""
        return self._here.get(recipient_number)

    async def find(self, recipient_number: int) -> Badge | None:
        """An earlier badge, None when there is none or Redis does not answer in time."""
        here = self._here.get(recipient_number)
        if here is not None or self.is_resting:
            return here
        there = await self._reads.ask(recipient_number)
        if there is not None:
            self._keep(recipient_number, there)
        return there

    async def find_all(self, recipient_numbers: Sequence[int]) -> list[Badge | None]:
        """The earlier badges of all of these."""
        missing = [number for number in recipient_numbers if number not in self._here]
        if missing and not self.is_resting:
            for number, badge in zip(missing, await self._reads.ask_all(missing), strict=True):
                if badge is not None:
                    self._keep(number, badge)
        return [self._here.get(number) for number in recipient_numbers]

    def note(self, recipient_number: int, badge: Badge, known: Badge | None) -> None:
        """Remember a badge, also in Redis unless the one that is known serves as well; does not wait for Redis."""
        self._keep(recipient_number, badge)
        if self.is_resting or (known is not None and _serves(known, badge)):
            return
        task = asyncio.create_task(self._writes.ask((recipient_number, badge)))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def forget(self, recipient_number: int) -> None:
        """Remember nothing of this recipient here."""
        self._here.pop(recipient_number, None)

    async def remove(self, recipient_number: int) -> None:
        """Remember nothing in Redis either, unless that is out of reach."""
        await self._redis.attempt(lambda redis: redis.delete(f"{self._prefix}{recipient_number}"))

    def _keep(self, recipient_number: int, badge: Badge) -> None:
        self._here[recipient_number] = badge
        self._here.move_to_end(recipient_number)
        if len(self._here) > _KEPT_HERE:
            self._here.popitem(last=False)

    async def close(self) -> None:
        """Finish writing, and end the connections."""
        await asyncio.gather(*self._writing)
        await self._redis.close()

    async def _read(self, recipient_numbers: Sequence[int]) -> list[Badge | None]:
        keys = [f"{self._prefix}{number}" for number in recipient_numbers]
        values = await self._redis.attempt(lambda redis: redis.mget(keys))
        return [_parse(value) for value in values] if values is not None else [None] * len(keys)

    async def _write(self, badges: Sequence[tuple[int, Badge]]) -> list[None]:
        def write(redis: Redis) -> Awaitable[list[object]]:
            pipeline = redis.pipeline(transaction=False)
            for number, badge in badges:
                _ = pipeline.set(f"{self._prefix}{number}", _format(badge), ex=_KEPT_FOR)
            return pipeline.execute()

        await self._redis.attempt(write)
        return [None] * len(badges)


def _serves(known: Badge, badge: Badge) -> bool:
    if known.position // _STALE_POSITIONS != badge.position // _STALE_POSITIONS:
        return False
    return replace(badge, position=known.position) == known


def _format(badge: Badge) -> str:
    until = (
        "" if badge.valid_until is None else str((badge.valid_until - _EPOCH) // timedelta(microseconds=1))
    )
    counts = f"{badge.unread_count}:{badge.total_count}:{badge.reads}:{badge.dismissals}"
    return f"{badge.position}:{counts}:{until}"


def _parse(value: bytes | str | None) -> Badge | None:
    """The badge that `_format` wrote; None for anything else that may be there."""
    if not isinstance(value, bytes):
        return None
    try:
        *numbers, until = str(value, "ascii").split(":")
        position, unread_count, total_count, reads, dismissals = map(int, numbers)
        valid_until = _EPOCH + timedelta(microseconds=int(until)) if until else None
        return Badge(unread_count, total_count, position, valid_until, reads, dismissals)
    except (ValueError, OverflowError):
        return None
