"""Owns the run's own suite on loopback: its servers, its demo world and its processes, each to be broken alone."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from redis.asyncio import from_url as redis_from_url

from shared.errors import DependencyUnavailable
from shared.provisioning import ProvisioningError, provision
from stack.credentials import Secrets
from stack.load import load_world
from stack.nats import NatsServer, NatsUser
from stack.permissions import PROVISIONER, users
from stack.ports import Ports
from stack.postgres import PostgresServer
from stack.processes import RunningProgram, Server
from stack.provision import SuiteDatabase, migrate_services, provision_database
from stack.services import Surroundings
from stack.state import StateFolder
from stack.tokens import TokenMint
from stack.valkey import ValkeyServer
from tests.chaos.arming import Arming
from tests.chaos.nursery import SERVICES, Nursery
from tests.chaos.processes import Death, KeptProcess, table
from tests.chaos.terms import SETTINGS, streams

OBSERVER: Final = "observer"
"""A login on NATS that hears everything and may say it again."""
_READY_S: Final = 60.0
_POLL_S: Final = 0.05


class KeptServer:
    """Postgres, NATS or Valkey, which stays down when it is taken down, until it is put up again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._running: RunningProgram | None = None

    async def up(self) -> None:
        """Start it and return when it can be used."""
        self._running = self._server.spawn()
        async with asyncio.timeout(_READY_S):
            while not await asyncio.to_thread(self._server.is_ready):
                if self._running.exit_code() is not None:
                    raise self._running.failure("ended before it was ready")
                await asyncio.sleep(_POLL_S)

    async def ensure_up(self) -> None:
        """Start it again when it was taken down, or has ended."""
        if self._running is None or self._running.exit_code() is not None:
            await self.up()

    async def down(self, *, at_once: bool = True) -> None:
        """End it: as when its parent dies, or in order."""
        running, self._running = self._running, None
        if running is None:
            return
        if not at_once:
            await asyncio.to_thread(running.stop)
            return
        os.kill(running.pid, running.program.death_signal)
        await running.exited()


class Site:
    """A whole suite in a folder of its own. Enter it to start it."""

    def __init__(
        self, recipients: int, arming: Callable[[Path], Arming], on_death: Callable[[Death], None]
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wedsync-chaos-"))
        self.folder.chmod(0o711)  # passed through by the user that Postgres runs as
        self.state = StateFolder(self.folder)
        self.state.logs.mkdir()
        self.recipients = recipients
        self.arming = arming(self.state.logs / "failpoints.log")
        self.mint = TokenMint(self.state.keys)
        self._on_death = on_death
        self._ports = Ports(self.state.ports)
        secrets = Secrets(self.state.secrets)
        self._password = secrets.password
        logins = [*users(secrets.password), NatsUser(OBSERVER, secrets.password(OBSERVER), (">",), (">",))]
        postgres = PostgresServer(
            self.folder / "postgres",
            self.state.logs,
            self._ports.choose("postgres"),
            secrets.password("postgres"),
        )
        nats = NatsServer(self.folder / "nats", self.state.logs, self._ports.choose("nats"), logins)
        valkey = ValkeyServer(
            self.folder / "valkey", self.state.logs, self._ports.choose("valkey"), secrets.password("valkey")
        )
        self.admin_url, self.nats_access, self.redis_url = postgres.url(), nats.access, valkey.url
        self.postgres, self.nats, self.valkey = KeptServer(postgres), KeptServer(nats), KeptServer(valkey)
        self.nats_store = self.folder / "nats" / "store"
        self.processes: list[KeptProcess] = []
        self.addresses: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(self.postgres.up(), self.nats.up(), self.valkey.up())
            database = await provision_database(self.admin_url, self._password)
            await migrate_services(self.admin_url)
            await self.provision_streams()
            await load_world(self.admin_url, self.recipients, lambda _: None)
            await self._start_services(database)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def of(self, service: str) -> list[KeptProcess]:
        """The processes of a service."""
        return [each for each in self.processes if each.service == service]

    async def provision_streams(self) -> None:
        """Make streams and consumers as an operator does, also after the store was lost; NATS must be coming up."""
        password = self.nats_access.passwords[PROVISIONER]
        async with asyncio.timeout(_READY_S):
            while True:
                try:
                    await provision(
                        self.nats_access.url, user=PROVISIONER, password=password, streams=streams()
                    )
                except (DependencyUnavailable, ProvisioningError):
                    await asyncio.sleep(_POLL_S)
                else:
                    return

    async def flush_redis(self) -> None:
        """Have Redis forget everything."""
        async with redis_from_url(self.redis_url) as client:
            await client.flushall()

    async def until_ready(self) -> None:
        """Return when every process serves."""
        async with asyncio.timeout(_READY_S):
            await asyncio.gather(*(each.until_ready() for each in self.processes))

    async def mend(self) -> None:
        """Every server runs again, and NATS has its streams."""
        await asyncio.gather(self.postgres.ensure_up(), self.nats.ensure_up(), self.valkey.ensure_up())
        await self.provision_streams()

    async def stop(self) -> None:
        """End everything; the folder stays."""
        await asyncio.gather(*(each.stop() for each in self.processes))
        await asyncio.gather(*(server.down() for server in (self.valkey, self.nats)))
        await self.postgres.down(at_once=False)

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _start_services(self, database: SuiteDatabase) -> None:
        surroundings = Surroundings(
            database=database,
            nats=self.nats_access,
            redis_url=self.redis_url,
            jwks=self.mint.jwks,
            tokens=self.state.tokens,
            logs=self.state.logs,
            ports=self._ports,
        )
        for service in SERVICES:
            self.mint.write_service_token(service, ["internal"], self.state.tokens)
        self.addresses = surroundings.addresses()
        nursery = Nursery()
        self.processes = [
            KeptProcess(each, surroundings, nursery, self.arming, self._on_death) for each in table(SETTINGS)
        ]
        for process in self.processes:
            process.start()
        await self.until_ready()
        for process in self.processes:
            self.arming.declare(process.service, process.declared())
