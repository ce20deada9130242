"""What a policy is worth: what it lets somebody do, and what somebody could do if it were not there as it is."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg


@dataclass(frozen=True, slots=True)
class Deed:
    """One statement by a login, in the name of whom the settings say."""

    login: str
    statement: str
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Leak:
    """A policy: what is possible by it alone, and what is not because of its condition or because of whom it is for."""

    table: str
    policy: str
    lets: Deed
    keeps: Deed


def select(table: str) -> str:
    """Reads whatever there is to be seen, and of no column more than that it is there."""
    return f"SELECT FROM {table}"


def own_rows(
    table: str, policy: str, column: str, login: str, settings: Mapping[str, object], me: object
) -> Leak:
    """A policy by which a person sees what is theirs: without it nobody else's rows would be kept from them."""
    lets = Deed(login, select(table), settings)
    keeps = Deed(login, f"SELECT FROM {table} WHERE {column} <> '{me}'", settings)
    return Leak(table, policy, lets, keeps)


def workers_rows(table: str, policy: str, service: str) -> Leak:
    """A policy by which a worker sees everybody's rows: were it for all, the login of the calls would see them too."""
    return Leak(
        table, policy, Deed(f"{service}_worker", select(table)), Deed(f"{service}_api", select(table))
    )


async def touched(connection: asyncpg.Connection, deed: Deed) -> int:
    """How many rows a deed reads or writes, all of which is forgotten; 0 when row level security refuses it."""
    try:
        async with _forgotten(connection):
            await connection.execute(f"SET LOCAL ROLE {deed.login}")
            for name, value in deed.settings.items():
                await connection.execute("SELECT set_config($1, $2, true)", name, str(value))
            status = await connection.execute(deed.statement)
    except asyncpg.InsufficientPrivilegeError as error:
        if "row-level security" not in str(error):
            raise
        return 0
    return int(status.rpartition(" ")[2])


@asynccontextmanager
async def _forgotten(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()
