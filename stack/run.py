"""Brings the whole suite up in order, keeps it up, and takes it down again."""

import asyncio
import signal
from collections.abc import Sequence

from stack import servers
from stack.credentials import Secrets
from stack.environment import write_environment
from stack.errors import StackError
from stack.load import load_world
from stack.permissions import PROVISIONER, SERVICES
from stack.ports import Ports
from stack.processes import Server
from stack.provision import SuiteDatabase, migrate_services, provision_database, provision_streams
from stack.screen import Screen
from stack.servers import Place
from stack.services import ServiceProcess, ServiceServer, Surroundings
from stack.state import StateFolder
from stack.supervisor import Supervisor
from stack.tokens import SERVICE_TOKEN_LIFETIME_S, TokenMint
from stack.world import demo_id

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stack:
    """One run of the suite on a state folder that the caller holds."""

    def __init__(
        self,
        state: StateFolder,
        screen: Screen,
        processes: Sequence[Sequence[ServiceProcess]],
        recipients: int,
    ) -> None:
        """Choose ports and read secrets; nothing is started yet. `recipients` is the size of a new demo world."""
        self._state = state
        self._screen = screen
        self._recipients = recipients
        self._ports = Ports(state.ports)
        self._secrets = Secrets(state.secrets)
        self._mint = TokenMint(state.keys)
        place = Place(state.path, self._ports, self._secrets)
        self._postgres = servers.postgres(place)
        self._nats = servers.nats(place)
        self._valkey = servers.valkey(place)
        self._groups = processes
        for process in (each for group in processes for each in group):
            process.choose_ports(
                self._ports
            )  # before anything is started that would have to be stopped again
        self._supervisor = Supervisor(screen.restarting, self._after_restart)

    async def run(self) -> None:
        """Start everything, wait for a signal, stop everything. Raises StackError when it cannot go on."""
        self._state.env.unlink(missing_ok=True)
        serving = asyncio.create_task(self._serve())
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._end, serving)
        await asyncio.wait({serving})
        self._state.env.unlink(missing_ok=True)
        await self._stop()
        if not serving.cancelled():
            serving.result()

    def _end(self, serving: asyncio.Task[None]) -> None:
        """The first signal ends the serving; one more ends the patience with what stops slowly."""
        if serving.done():
            self._supervisor.hurry()
        serving.cancel()

    async def _stop(self) -> None:
        try:
            with self._screen.step("Stopping everything"):
                await self._supervisor.stop()
        except OSError:  # the terminal is gone, and with it the place to tell about progress
            await self._supervisor.stop()

    async def _serve(self) -> None:
        await self._start_servers()
        with self._screen.step("Roles, schemas and migrations"):
            database = await provision_database(self._postgres.access, self._secrets.password)
            await migrate_services(self._postgres.access)
        with self._screen.step("Streams and consumers"):
            await provision_streams(self._nats.access)
        await self._load_world()
        surroundings = self._surroundings(database)
        await self._start_services(surroundings)
        self._ports.save()
        addresses = self._write_environment(surroundings)
        self._screen.ready(addresses, self._state.env, self._state.logs)
        await self._supervisor.while_kept(self._renew_tokens(surroundings))

    async def _start_servers(self) -> None:
        own = [each.server for each in (self._postgres, self._nats, self._valkey) if each.server is not None]
        names = ", ".join(each.name for each in own)
        with self._screen.step(f"Starting {names}" if own else "Using the servers that are there"):
            self._supervisor.keep(own)
            await self._supervisor.until_ready(own)

    async def _load_world(self) -> None:
        """People and weddings for an empty database; one that has people keeps those, however many."""
        wanted = self._recipients
        with self._screen.step("The demo world") as tell:
            present = await load_world(
                self._postgres.access, wanted, lambda done: tell(f"{done:,} of {wanted:,} people")
            )
            tell(f"{present:,} people")

    async def _start_services(self, surroundings: Surroundings) -> None:
        self._write_tokens()
        everyone: list[Server] = []
        with self._screen.step("Starting the services"):
            for group in self._groups:
                members = [ServiceServer(process, surroundings) for process in group]
                self._supervisor.keep(members)
                everyone += members
            await self._supervisor.until_ready(everyone)

    def _surroundings(self, database: SuiteDatabase) -> Surroundings:
        return Surroundings(
            database=database,
            nats=self._nats.access,
            redis_url=self._valkey.access,
            jwks=self._mint.jwks,
            tokens=self._state.tokens,
            logs=self._state.logs,
            ports=self._ports,
        )

    def _write_tokens(self) -> None:
        for service in SERVICES:
            self._mint.write_service_token(service, ["internal"], self._state.tokens)

    def _write_environment(self, surroundings: Surroundings) -> dict[str, str]:
        urls = {
            "DATABASE_URL": self._postgres.access,
            "NATS_URL": self._nats.access.url_for(PROVISIONER),
            "REDIS_URL": self._valkey.access,
        }
        started = (self._postgres.server, self._nats.server, self._valkey.server)
        own = [name for name, server in zip(urls, started, strict=True) if server is not None]
        addresses = surroundings.addresses()
        token = self._mint.mint_user_token(demo_id("admin"))
        folder = {"STACK_STATE_DIR": str(self._state.path)}
        write_environment(self._state.env, {**addresses, **urls, **folder, "BROADCAST_TOKEN": token}, own)
        return addresses

    async def _renew_tokens(self, surroundings: Surroundings) -> None:
        """Replace every token well before it ends, for as long as the stack runs."""
        while True:
            await asyncio.sleep(SERVICE_TOKEN_LIFETIME_S / 3)
            self._write_tokens()
            self._write_environment(surroundings)

    async def _after_restart(self, server: Server) -> None:
        """A NATS server that lost its store comes back without streams."""
        if server is self._nats.server:
            try:
                await provision_streams(self._nats.access)
            except StackError as error:
                self._screen.failed(error)
