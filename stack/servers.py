"""Decides where each of the three servers comes from, its wheel or the environment, and how it is reached."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from stack import permissions
from stack.credentials import Secrets
from stack.environment import OWN_URLS
from stack.nats import NatsAccess, NatsServer
from stack.ports import Ports
from stack.postgres import PostgresServer
from stack.processes import Server
from stack.valkey import ValkeyServer

_Access = TypeVar("_Access")


@dataclass(frozen=True, slots=True)
class Place:
    """Where servers of our own keep their files, and what they are given."""

    folder: Path
    ports: Ports
    secrets: Secrets

    @property
    def logs(self) -> Path:
        """The folder of their logs."""
        return self.folder / "logs"


@dataclass(frozen=True, slots=True)
class Source(Generic[_Access]):
    """How to reach a server, and the server itself when it is ours to start."""

    access: _Access
    server: Server | None


def postgres(place: Place) -> Source[str]:
    """The administrator's URL: DATABASE_URL, or that of a server of our own."""
    given = _given("DATABASE_URL")
    if given is not None:
        return Source(given, None)
    port, password = place.ports.choose("postgres"), place.secrets.password("postgres")
    server = PostgresServer(place.folder / "postgres", place.logs, port, password)
    return Source(server.url(), server)


def nats(place: Place) -> Source[NatsAccess]:
    """NATS_URL with the login in it, or a server of our own with a user for each service."""
    given = _given("NATS_URL")
    if given is not None:
        return Source(NatsAccess(given, {}), None)
    users = permissions.users(place.secrets.password)
    server = NatsServer(place.folder / "nats", place.logs, place.ports.choose("nats"), users)
    return Source(server.access, server)


def valkey(place: Place) -> Source[str]:
    """REDIS_URL, or the URL of a server of our own."""
    given = _given("REDIS_URL")
    if given is not None:
        return Source(given, None)
    port, password = place.ports.choose("valkey"), place.secrets.password("valkey")
    server = ValkeyServer(place.folder / "valkey", place.logs, port, password)
    return Source(server.url, server)


def _given(variable: str) -> str | None:
    if variable in os.environ.get(OWN_URLS, "").split():
        return None
    return os.environ.get(variable) or None
