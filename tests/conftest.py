"""The real servers for tests: fresh ones, or those that DATABASE_URL, NATS_URL and REDIS_URL name."""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

import grpc.aio
import pytest
from hypothesis import settings

from stack import servers
from stack.credentials import Secrets
from stack.nats import NatsAccess
from stack.permissions import SERVICES
from stack.ports import Ports
from stack.postgres import binaries
from stack.processes import RunningProgram, start
from stack.provision import SuiteDatabase, migrate_services, provision_database
from stack.servers import Place, Source
from stack.valkey import ValkeyServer

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

# gRPC ends its runtime with the last server and channel, which tests come to again and again, and the thread that polls
# for it can fall over what is freed then (issue 43364 of grpc/grpc). Held once more, it stays until the end.
grpc.aio.init_grpc_aio()

_Access = TypeVar("_Access")
MakeSuite: TypeAlias = Callable[..., Awaitable[SuiteDatabase]]


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """Where the servers keep their files: outside pytest's folder, which the user of Postgres could not enter."""
    folder = Path(tempfile.mkdtemp(prefix="wedsync-tests-"))
    folder.chmod(0o711)
    yield Place(folder, Ports(folder / "ports.json"), Secrets(folder / "secrets.json"))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(place: Place) -> Iterator[str]:
    """The administrator's URL of a PostgreSQL server."""
    yield from _running(servers.postgres(place))


@pytest.fixture(scope="session")
def nats_server(place: Place) -> Iterator[NatsAccess]:
    """A NATS server with JetStream and the suite's users."""
    yield from _running(servers.nats(place))


@pytest.fixture(scope="session")
def valkey_server(place: Place) -> Iterator[str]:
    """The URL of a Valkey server."""
    yield from _running(servers.valkey(place))


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[tuple[str, RunningProgram]]:
    """A Valkey for one test alone, which may put it to sleep or kill it: its URL and its process."""
    port = Ports(tmp_path / "valkey-ports.json").choose("own_valkey")
    server = ValkeyServer(tmp_path / "valkey", tmp_path, port, "opens-nothing")
    running = start(server)
    yield server.url, running
    with suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGCONT)
    running.stop()


@pytest.fixture(scope="session")
def make_database(postgres: str) -> Callable[[str], str]:
    """Makes a fresh, empty database, named after a word; answers the administrator's URL of it."""
    numbers = itertools.count(1)

    def make(word: str) -> str:
        name = f"test_{word}_{os.getpid()}_{next(numbers)}"
        command = [str(binaries() / "createdb"), f"--maintenance-db={postgres}", "--template=template0", name]
        subprocess.run(command, check=True, capture_output=True)
        return urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))

    return make


@pytest.fixture(scope="module")
def database_url(make_database: Callable[[str], str]) -> str:
    """The administrator's URL of a fresh database, one for each test module."""
    return make_database("module")


@pytest.fixture(scope="session")
def make_suite(make_database: Callable[[str], str], place: Place) -> MakeSuite:
    """Makes a fresh database with every service's roles and schema, and the tables of those named (or of all)."""

    async def make(*services: str) -> SuiteDatabase:
        suite = await provision_database(make_database("_".join(services) or "suite"), place.secrets.password)
        await migrate_services(suite.admin_url, services or SERVICES)
        return suite

    return make


def _running(source: Source[_Access]) -> Iterator[_Access]:
    if source.server is None:
        yield source.access
        return
    running = start(source.server)
    yield source.access
    # At once, as when its parent dies: what an orderly stop would write first is deleted right afterwards.
    os.kill(running.pid, running.program.death_signal)
    running.wait(running.program.stop_timeout_s)
    running.kill()
