"""Hears every announcement of a broadcast, on a NATS server of a benchmark's own, where one login may hear all."""

import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from wedsync.broadcast.v1.events_pb2 import BroadcastDue

from shared import subjects
from stack.nats import NatsServer, NatsUser
from stack.ports import Ports
from stack.processes import start

_USER = "bench"


@contextmanager
def nats_server() -> Iterator[str]:
    """A server with JetStream that is gone afterwards: its URL with a login that may say and hear everything."""
    with tempfile.TemporaryDirectory(prefix="wedsync-bench-nats-") as name:
        folder = Path(name)
        user = NatsUser(_USER, secrets.token_hex(16), (">",), (">",))
        port = Ports(folder / "ports.json").choose("nats")
        server = NatsServer(folder / "nats", folder, port, [user])
        running = start(server)
        try:
            parts = urlsplit(server.access.url)
            yield urlunsplit(parts._replace(netloc=f"{user.name}:{user.password}@{parts.netloc}"))
        finally:
            running.stop()


@dataclass(frozen=True, slots=True)
class Announced:
    """The first announcement of a broadcast: its place among all that were heard, and the Unix time."""

    place: int
    at: float


class Announcements:
    """What has been announced since `open`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.first: dict[str, Announced] = {}
        """By broadcast."""
        self.times: Counter[str] = Counter()
        """How often each was announced."""

    @classmethod
    async def open(cls, url: str) -> Self:
        """Hear from now on."""
        announcements = cls(await nats.connect(url))
        await announcements._client.subscribe(subjects.broadcast_due("*"), cb=announcements._hear)
        await announcements._client.flush()
        return announcements

    async def close(self) -> None:
        """Hear no more."""
        await self._client.close()

    async def _hear(self, message: Msg) -> None:
        broadcast_id = BroadcastDue.FromString(message.data).broadcast_id
        self.first.setdefault(broadcast_id, Announced(len(self.first), time.time()))
        self.times[broadcast_id] += 1
