"""The real servers for tests: fresh ones, or those that DATABASE_URL, NATS_URL and REDIS_URL name."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from stack import permissions, ports
from stack.credentials import Secrets
from stack.nats import NatsAccess, NatsServer
from stack.postgres import PostgresServer, binaries
from stack.processes import start
from stack.valkey import ValkeyServer

MakeDatabase = Callable[[str], str]


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Where the servers keep their files: outside pytest's folder, which the user of Postgres could not enter."""
    folder = Path(tempfile.mkdtemp(prefix="wedsync-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server_secrets(server_folder: Path) -> Secrets:
    """The passwords of this run's servers."""
    return Secrets(server_folder / "secrets.json")


@pytest.fixture(scope="session")
def postgres(server_folder: Path, server_secrets: Secrets) -> Iterator[str]:
    """The administrator's URL of a PostgreSQL server."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    server = PostgresServer(
        server_folder / "postgres",
        server_folder / "logs",
        ports.choose("postgres"),
        server_secrets.password("postgres"),
    )
    running = start(server)
    yield server.url()
    running.stop()


@pytest.fixture(scope="session")
def make_database(postgres: str) -> MakeDatabase:
    """Makes a fresh, empty database, named after a word; answers the administrator's URL of it."""
    numbers = itertools.count(1)

    def make(word: str) -> str:
        name = f"test_{word}_{os.getpid()}_{next(numbers)}"
        subprocess.run(
            [binaries() / "createdb", f"--maintenance-db={postgres}", "--template=template0", name],
            check=True,
            capture_output=True,
        )
        return urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))

    return make


@pytest.fixture(scope="module")
def database_url(make_database: MakeDatabase) -> str:
    """The administrator's URL of a fresh database, one for each test module."""
    return make_database("module")


@pytest.fixture(scope="session")
def nats_server(server_folder: Path, server_secrets: Secrets) -> Iterator[NatsAccess]:
    """A NATS server with JetStream and the suite's users."""
    if given := os.environ.get("NATS_URL"):
        yield NatsAccess(given, {})
        return
    users = permissions.users(server_secrets.password)
    server = NatsServer(server_folder / "nats", server_folder / "logs", ports.choose("nats"), users)
    running = start(server)
    yield NatsAccess(server.url, {user.name: user.password for user in users})
    running.stop()


@pytest.fixture(scope="session")
def valkey_server(server_folder: Path, server_secrets: Secrets) -> Iterator[str]:
    """The URL of a Valkey server."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    server = ValkeyServer(
        server_folder / "valkey",
        server_folder / "logs",
        ports.choose("valkey"),
        server_secrets.password("valkey"),
    )
    running = start(server)
    yield server.url
    running.stop()
