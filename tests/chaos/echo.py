"""Owns saying again what was said on NATS before: late, in another order, and under message ids that nobody knows."""

from collections import deque
from random import Random
from typing import Final
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import Header
from pyroaring import BitMap
from wedsync.broadcast.v1.events_pb2 import ArrivalKind, InboxDeliveries, InboxDelivery

from shared import subjects
from shared.audience import Audience

LATE_CHUNK: Final = 1_000_000
"""The number of chunks that this has made up: no dispatcher knows them, so it puts aside what it hears of them."""
_KEPT: Final = 3_000
_HEARD: Final = ("broadcast.>", "delivery.>", "directory.>")


class Echo:
    """Listens from `open` on."""

    def __init__(self, url: str, random: Random) -> None:
        """`url` carries the login of the observer."""
        self._url = url
        self._random = random
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=_KEPT)
        self._client: Client | None = None
        self.repeated = 0

    async def open(self) -> None:
        """Hear everything from now on, across every outage."""

        async def quiet(_: Exception) -> None: ...

        self._client = await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=quiet, name="observer"
        )
        for subject in _HEARD:
            await self._client.subscribe(subject, cb=self._hear)

    async def close(self) -> None:
        """Hear no more."""
        if self._client is not None:
            await self._client.close()

    async def repeat(self, count: int) -> int:
        """Say up to `count` messages again, in an order of chance; how many JetStream took."""
        chosen = self._random.sample(list(self._heard), min(count, len(self._heard)))
        taken = 0
        for subject, payload in chosen:
            taken += await self._say(subject, payload)
        self.repeated += taken
        return taken

    async def follow_cancel(self, broadcast_id: str, lane: str, members: BitMap) -> None:
        """Say again all that was said of a broadcast, the last first, and have a chunk of it come only now."""
        about = broadcast_id.encode()
        for subject, payload in reversed([each for each in self._heard if about in each[1]]):
            self.repeated += await self._say(subject, payload)
        if members:
            late = InboxDelivery(
                broadcast_id=broadcast_id,
                chunk=LATE_CHUNK,
                epoch=1,
                kind=ArrivalKind.ARRIVAL_KIND_ITEM,
                members=Audience.of(members).to_bytes(),
            )
            payload = InboxDeliveries(deliveries=[late]).SerializeToString()
            self.repeated += await self._say(subjects.delivery_inbox(lane), payload)

    async def _say(self, subject: str, payload: bytes) -> bool:
        if self._client is None or not self._client.is_connected:
            return False
        try:
            await self._client.jetstream(timeout=2.0).publish(
                subject, payload, headers={Header.MSG_ID.value: f"echo:{uuid4()}"}
            )
        except (NatsError, OSError, TimeoutError):
            return False
        return True

    async def _hear(self, message: Msg) -> None:
        if not (message.headers or {}).get(Header.MSG_ID, "").startswith("echo:"):
            self._heard.append((message.subject, message.data))
