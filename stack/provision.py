"""Makes the suite's place on its servers, again and again without harm: roles, schemas, tables, streams, consumers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from shared.errors import DependencyUnavailable
from shared.migrations import MigrationError, migrate
from shared.provisioning import ProvisioningError, provision
from shared.queries import load
from stack.errors import StackError
from stack.nats import NatsAccess
from stack.permissions import PROVISIONER, SERVICES
from stack.state import CHECKOUT

LOGINS: Final = ("api", "worker")
_QUERIES_FILE: Final = Path(__file__).with_name("queries.sql")
_ATTEMPTS: Final = 10
_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class SuiteDatabase:
    """A database with the suite in it: the administrator's URL and each service's own."""

    admin_url: str
    password: Callable[[str], str]

    def url(self, service: str, login: str = "api") -> str:
        """The URL by which a service's `api` or `worker` login reaches the database."""
        parts = urlsplit(self.admin_url)
        host = parts.netloc.rpartition("@")[2]
        secret = quote(self.password(_password_name(service, login)), safe="")
        return urlunsplit(parts._replace(netloc=f"{service}_{login}:{secret}@{host}"))

    def environment(self, service: str) -> dict[str, str]:
        """The variables by which a service finds its database."""
        name = service.upper()
        return {
            f"{name}_DATABASE_URL": self.url(service, "api"),
            f"{name}_WORKER_DATABASE_URL": self.url(service, "worker"),
        }


async def provision_database(admin_url: str, password: Callable[[str], str]) -> SuiteDatabase:
    """Make or renew roles and schemas; `password` answers for a name such as `postgres_sender_api`.

    Raises StackError when the administrator may not do this, or when a role has powers that it must not have.
    """
    async with administrator(admin_url) as connection:
        for service in SERVICES:
            await _make_place(connection, service, password)
        await connection.execute(load(_QUERIES_FILE, schema="public")["close_database"])
    return SuiteDatabase(admin_url, password)


async def migrate_services(admin_url: str, services: Sequence[str] = SERVICES) -> dict[str, list[str]]:
    """Apply the services' missing migrations; answers the files applied by service."""
    applied = {}
    async with administrator(admin_url) as connection:
        for service in services:
            folder = CHECKOUT / "services" / service / "migrations"
            try:
                applied[service] = await migrate(connection, service, folder)
            except MigrationError as error:
                raise StackError(
                    f"The migrations of {service} cannot be applied.\n{error}",
                    "Put the file right; `make reset` starts from nothing if the data may go.",
                ) from error
    return applied


async def provision_streams(access: NatsAccess) -> list[str]:
    """Make the streams and consumers that are missing, and change what differs; answers what was done."""
    try:
        if PROVISIONER in access.passwords:
            return await provision(access.url, user=PROVISIONER, password=access.passwords[PROVISIONER])
        return await provision(access.url)
    except (DependencyUnavailable, ProvisioningError) as error:
        place = urlsplit(access.url)
        raise StackError(
            f"NATS at {place.hostname}:{place.port} does not take the streams: {error}",
            "Check NATS_URL if you have set it: its user needs $JS.API.>; otherwise look into nats.log.",
        ) from error


@asynccontextmanager
async def administrator(admin_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The administrator's connection, for the time of the block. Raises StackError when it cannot be made."""
    try:
        connection = await asyncpg.connect(admin_url)
    except (OSError, asyncpg.PostgresError) as error:
        place = urlsplit(admin_url)
        raise StackError(
            f"PostgreSQL at {place.hostname}:{place.port} does not let the stack in: {error}",
            "Check DATABASE_URL if you have set it; otherwise `make reset` makes a new cluster with new secrets.",
        ) from error
    try:
        yield connection
    finally:
        await connection.close()


async def _make_place(connection: asyncpg.Connection, service: str, password: Callable[[str], str]) -> None:
    for _ in range(_ATTEMPTS):
        try:
            powerful = await _make_roles_and_schema(connection, service, password)
        except (asyncpg.InternalServerError, asyncpg.UniqueViolationError):
            # Another stack or test changes the same cluster-wide roles at this moment.
            await asyncio.sleep(_PAUSE_S)
            continue
        if powerful:
            raise StackError(
                f"In this PostgreSQL cluster {', '.join(powerful)} can do more than a service may.",
                "Take those attributes and memberships away, or use another cluster.",
            )
        return
    raise StackError(
        "Somebody else keeps changing the roles of this cluster.", "Try again when they are done."
    )


async def _make_roles_and_schema(
    connection: asyncpg.Connection, service: str, password: Callable[[str], str]
) -> list[str]:
    """Answers the roles that have powers which they must not have."""
    queries = load(_QUERIES_FILE, schema=service)
    passwords = [password(_password_name(service, login)) for login in LOGINS]
    async with connection.transaction():
        await connection.execute(queries["keep_passwords"], *passwords)
        await connection.execute(queries["make_roles"])
        await connection.execute(queries["open_schema"])
        return [row["role_name"] for row in await connection.fetch(queries["find_powers"])]


def _password_name(service: str, login: str) -> str:
    return f"postgres_{service}_{login}"
