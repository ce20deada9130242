"""Owns what is done to the servers and processes of a run, one thing after the other, in an order of chance."""

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import asyncpg

from stack.permissions import SERVICES
from stack.provision import LOGINS
from tests.chaos.echo import Echo
from tests.chaos.processes import KeptProcess
from tests.chaos.reading import QUERIES
from tests.chaos.site import Site
from tests.chaos.terms import CHUNK_LEASE_S, DEDUPE_WINDOW_S, POLL_S, RELAY_LEASE_S

_PAUSED_S: Final = max(RELAY_LEASE_S, CHUNK_LEASE_S) + POLL_S
_GAP_S: Final = (0.2, 0.8)
_REPEATED: Final = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done, between two moments of Unix time."""

    name: str
    began: float
    ended: float


class Faults:
    """Every fault of the catalogue; `done` is what has happened."""

    def __init__(self, site: Site, echo: Echo, random: Random) -> None:
        self._site = site
        self._echo = echo
        self._random = random
        self.done: list[Fault] = []
        self.catalogue: dict[str, Callable[[], Awaitable[None]]] = {
            "NATS stopped": self._nats_stopped,
            "NATS store lost its tail": self._nats_lost_its_tail,
            "NATS store deleted": self._nats_lost_its_store,
            "NATS down past the dedupe window": self._nats_down_for_long,
            "Postgres restarted at once": self._postgres_restarted,
            "Postgres out of connections": self._postgres_full,
            "Redis flushed": self._redis_flushed,
            "Redis killed": self._redis_killed,
            "sender paused past its lease": lambda: self._paused("sender"),
            "dispatcher paused past its lease": lambda: self._paused("dispatcher"),
            "inbox paused past its lease": lambda: self._paused("inbox"),
            "every inbox killed": lambda: self._outage("inbox"),
            "every dispatcher killed": lambda: self._outage("dispatcher"),
            "every sender killed": lambda: self._outage("sender"),
            "preferences killed": lambda: self._outage("preferences"),
            "a process killed": self._killed,
            "messages repeated late": self._repeated,
        }

    def counts(self) -> Counter[str]:
        """How often each has happened."""
        return Counter(fault.name for fault in self.done)

    def missing(self) -> list[str]:
        """What has not happened yet."""
        return sorted(self.catalogue.keys() - self.counts().keys())

    async def run(self, names: Sequence[str]) -> None:
        """Do these, in this order."""
        for name in names:
            await self.do(name)
            await asyncio.sleep(self._random.uniform(*_GAP_S))

    async def do(self, name: str) -> None:
        """Do one and note it."""
        began = time.time()
        await self.catalogue[name]()
        self.done.append(Fault(name, began, time.time()))

    async def kill_one(self) -> KeptProcess:
        """Kill a process of chance; answers which."""
        running = [each for each in self._site.processes if each.is_running]
        chosen = self._random.choice(running)
        chosen.signal(signal.SIGKILL)
        return chosen

    async def _nats_stopped(self) -> None:
        await self._site.nats.down(at_once=False)
        await asyncio.sleep(self._random.uniform(0.5, 1.5))
        await self._nats_up()

    async def _nats_down_for_long(self) -> None:
        await self._site.nats.down()
        await asyncio.sleep(DEDUPE_WINDOW_S + 1.0)
        await self._nats_up()

    async def _nats_lost_its_tail(self) -> None:
        """What was stored and acknowledged for some seconds is gone, and what was acknowledged before is back."""
        store, kept = self._site.nats_store, self._site.folder / "nats" / "earlier"
        await self._site.nats.down()
        await asyncio.to_thread(shutil.copytree, store, kept)
        await self._nats_up()
        await asyncio.sleep(self._random.uniform(1.0, 2.5))
        await self._site.nats.down()
        await asyncio.to_thread(shutil.rmtree, store)
        kept.rename(store)
        await self._nats_up()

    async def _nats_lost_its_store(self) -> None:
        await self._site.nats.down()
        await asyncio.to_thread(shutil.rmtree, self._site.nats_store)
        await self._nats_up()

    async def _nats_up(self) -> None:
        await self._site.nats.up()
        await self._site.provision_streams()

    async def _postgres_restarted(self) -> None:
        await self._site.postgres.down()
        await self._site.postgres.up()

    async def _postgres_full(self) -> None:
        """No login gets a connection, and those that have one lose it."""
        connection = await asyncpg.connect(self._site.admin_url)
        try:
            await self._limit_connections(connection, 0)
            await connection.execute(QUERIES["end_sessions"])
            await asyncio.sleep(self._random.uniform(1.0, 2.0))
        finally:
            await self._limit_connections(connection, -1)
            await connection.close()

    async def _limit_connections(self, connection: asyncpg.Connection, limit: int) -> None:
        for role in (f"{service}_{login}" for service in SERVICES for login in LOGINS):
            statement = await connection.fetchval(QUERIES["connection_limit"], role, limit)
            await connection.execute(statement)

    async def _redis_flushed(self) -> None:
        await self._site.flush_redis()

    async def _redis_killed(self) -> None:
        await self._site.valkey.down()
        await asyncio.sleep(self._random.uniform(0.3, 1.0))
        await self._site.valkey.up()

    async def _paused(self, service: str) -> None:
        """It stands still for longer than what it holds is its own, then goes on as if nothing had happened."""
        while not (running := [each for each in self._site.of(service) if each.is_running]):
            await asyncio.sleep(0.05)
        paused = self._random.choice(running)
        paused.signal(signal.SIGSTOP)
        await asyncio.sleep(_PAUSED_S)
        paused.signal(signal.SIGCONT)

    async def _outage(self, service: str) -> None:
        processes = self._site.of(service)
        for process in processes:
            process.hold()
        await asyncio.sleep(self._random.uniform(0.5, 1.5))
        for process in processes:
            process.release()

    async def _killed(self) -> None:
        await self.kill_one()

    async def _repeated(self) -> None:
        while not await self._echo.repeat(_REPEATED):
            await asyncio.sleep(0.2)
