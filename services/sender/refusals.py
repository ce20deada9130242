"""Owns remembering which limits are used up, here and in Redis, so that a flood of sends costs the database nothing.

What was counted is never taken back, so a limit that is used up stays so until its reset time. A refusal that is
forgotten, because Redis is gone or memory is full, is found out again by one query; none is believed for too long.
"""

import asyncio
import hashlib
import struct
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast
from uuid import UUID

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from services.sender.limits import Limit, Limits, Quota, Standing, Tally
from shared.clock import Clock
from shared.optional_redis import OptionalRedis
from shared.wake import wait_for_hint

REDIS_TIMEOUT_S: Final = 0.5
"""How long Redis may take, for which no call waits."""

# Redis tells of a moment of the database's clock; ours will not be wrong by more than this.
_DOUBT: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(days=1)
_KEPT_BYTES: Final = 16 << 20
_ENTRY_BYTES: Final = 500
_ID_BYTES: Final = 16
# What is larger, or past that many, each process finds out for itself.
_LARGEST_SHARED: Final = 16 << 10
_MOST_SHARED: Final = 2_000
_LEARNS_EVERY_S: Final = 1.0
_NUMBERS: Final = struct.Struct(">qiiii")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit that is used up. `free_at` is when it no longer is, by the monotonic clock of this process."""

    quota: Quota
    request_ids: bytes
    free_at: float
    believed_until: float

    def may_repeat(self, request_id: str) -> bool:
        """Whether this may be the repetition of a send that was accepted: no other was, within 24 hours."""
        try:
            wanted = UUID(request_id).bytes
        except ValueError:
            return False
        count = len(self.request_ids) // _ID_BYTES
        place = bisect_left(range(count), wanted, key=self._id)
        return place < count and self._id(place) == wanted

    def _id(self, place: int) -> bytes:
        return self.request_ids[place * _ID_BYTES : (place + 1) * _ID_BYTES]


class Refusals:
    """Refusals by what is counted together. Those that were noted first make room when there are too many.

    A send looks here alone. What other processes found out comes from Redis, once a second and at the start, so that
    nobody waits for Redis, whatever has become of it.
    """

    def __init__(self, redis: OptionalRedis, identity: UUID, limits: Limits, clock: Clock) -> None:
        """`identity` is that of the counts, so that a Redis may be shared, or outlive a database."""
        self._redis = redis
        self._stream = f"sender:refusals:{identity}"
        self._limits = limits
        self._clock = clock
        self._here: OrderedDict[bytes, Refusal] = OrderedDict()
        self._bytes = 0
        self._read_after = b"-"
        self._writing: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    def find(self, tally: Tally) -> Refusal | None:
        """What is known of a limit that is used up."""
        key = self._key(tally)
        refusal = self._here.get(key)
        if refusal is None or self._clock.monotonic() < refusal.believed_until:
            return refusal
        self._forget(key)
        return None

    def note(self, tally: Tally, standing: Standing, asked_at: float) -> None:
        """Remember a limit of which nothing is left, as the database was asked for it at `asked_at` (monotonic).

        Does not wait for Redis.
        """
        key, free_at = self._key(tally), asked_at + standing.retry_after_s
        self._keep(key, Refusal(standing.quota, standing.request_ids, free_at, free_at))
        if standing.retry_after_s > _DOUBT.total_seconds() and len(standing.request_ids) <= _LARGEST_SHARED:
            task = asyncio.create_task(self._share(key, standing))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def forget(self, tallies: Iterable[Tally]) -> None:
        """Remember nothing of these here and in Redis; other processes do until the limit is free, by a digest."""
        keys = {self._key(tally) for tally in tallies}
        for key in keys:
            self._forget(key)
        if keys:
            await self._redis.attempt(lambda redis: self._remove(redis, keys))

    def retry_after_s(self, refusal: Refusal) -> float:
        """How long until the next one is free."""
        return refusal.free_at - self._clock.monotonic()

    async def learn(self) -> None:
        """Take in what has come to Redis since it was read last."""
        answer = await self._redis.attempt(
            lambda redis: redis.xrange(self._stream, self._read_after, count=_MOST_SHARED)
        )
        for entry_id, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], answer or []):
            self._read_after = b"(" + entry_id
            self._take_in(fields)

    async def run(self) -> None:
        """Learn again and again until `stop`."""
        while not self._ended.is_set():
            await self.learn()
            await wait_for_hint(self._ended, _LEARNS_EVERY_S)

    def stop(self) -> None:
        """Make `run` return."""
        self._ended.set()

    async def close(self) -> None:
        """Finish writing, and end the connections."""
        await asyncio.gather(*self._writing)
        await self._redis.close()

    def _keep(self, key: bytes, refusal: Refusal) -> None:
        self._forget(key)
        self._here[key] = refusal
        self._bytes += _size(refusal)
        while self._bytes > _KEPT_BYTES:
            self._forget(next(iter(self._here)))

    def _forget(self, key: bytes) -> None:
        refusal = self._here.pop(key, None)
        if refusal is not None:
            self._bytes -= _size(refusal)

    def _key(self, tally: Tally) -> bytes:
        """Names nobody; with another limit, because its configuration has changed, it is another key."""
        limit, author = self._limits.of(tally), tally.author
        parts = (author.name, tally.type, tally.priority, tally.wedding_id, limit.hour, limit.day)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()

    async def _share(self, key: bytes, standing: Standing) -> None:
        quota, reset_time = standing.quota, standing.quota.reset_time
        if reset_time is None:
            return
        reset_us = (reset_time - _EPOCH) // _MICROSECOND
        numbers = (reset_us, quota.limit.hour, quota.hour_used, quota.limit.day, quota.day_used)
        # The moment is told, and not how long it is until then: Redis may wake up and keep this much later.
        fields: dict[FieldT, EncodableT] = {
            "key": key,
            "quota": _NUMBERS.pack(*numbers),
            "request_ids": standing.request_ids,
        }

        def add(redis: Redis) -> Awaitable[list[object]]:
            pipeline = redis.pipeline(transaction=False)
            _ = pipeline.xadd(self._stream, fields, maxlen=_MOST_SHARED, approximate=True)
            _ = pipeline.expire(self._stream, _LONGEST)
            return pipeline.execute()

        await self._redis.attempt(add)

    async def _remove(self, redis: Redis, keys: Set[bytes]) -> None:
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], await redis.xrange(self._stream))
        told = [entry_id for entry_id, fields in entries if fields.get(b"key") in keys]
        if told:
            await redis.xdel(self._stream, *told)

    def _take_in(self, fields: Mapping[bytes, bytes]) -> None:
        """Keep what another process shared, unless it is known here, where it is known to the moment."""
        key, refusal = fields.get(b"key", b""), self._read(fields)
        known = self._here.get(key)
        if refusal is not None and (known is None or known.quota != refusal.quota):
            self._keep(key, refusal)

    def _read(self, fields: Mapping[bytes, bytes]) -> Refusal | None:
        """The refusal that `_share` wrote; None for anything else, and for what cannot be true any more."""
        numbers, request_ids = fields.get(b"quota", b""), fields.get(b"request_ids", b"")
        if len(numbers) != _NUMBERS.size or len(request_ids) % _ID_BYTES:
            return None
        reset_us, hour_limit, hour_used, day_limit, day_used = _NUMBERS.unpack(numbers)
        left = timedelta(microseconds=reset_us) - (self._clock.now() - _EPOCH)
        if not _DOUBT < left <= _LONGEST + _DOUBT:
            return None
        reset_time = _EPOCH + timedelta(microseconds=reset_us)
        quota = Quota(Limit(hour_limit, day_limit), hour_used, day_used, reset_time)
        if quota.hour_remaining and quota.day_remaining:
            return None
        free_at = self._clock.monotonic() + left.total_seconds()
        return Refusal(quota, request_ids, free_at, free_at - _DOUBT.total_seconds())


def _size(refusal: Refusal) -> int:
    return _ENTRY_BYTES + len(refusal.request_ids)
