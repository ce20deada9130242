"""Owns the way to Postgres: the pool, the identity that row level policies see, retries, and what an outage looks like.

All session state is transaction-local (`set_config(…, true)`), so connections go back to the pool without asyncpg's
`RESET ALL`, which would cost every call a second round trip. The same makes the services fit to run behind a pooler in
transaction mode, with `statement_cache_size=0` unless it knows prepared statements (pgbouncer does from 1.21).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from shared.backoff import backoff_s
from shared.errors import DependencyUnavailable
from shared.queries import load
from shared.settings import SettingsError

Row: TypeAlias = asyncpg.Record
Value: TypeAlias = Any  # what a column holds is known to its query, not to the type checker
_Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
_Result = TypeVar("_Result")

RECIPIENT_SETTING: Final = "app.recipient"
"""What personal policies compare a row's recipient number with: `current_setting('app.recipient', true)::int`."""

_QUERIES: Final = load(Path(__file__).parent / "sql" / "database.sql")
_CONNECT_TIMEOUT_S: Final = 5.0
_CLOSE_TIMEOUT_S: Final = 5.0
_RETRY_FIRST_S: Final = 0.01
_RETRY_CEILING_S: Final = 0.5

# Lost, refused or overloaded connections. 57… also covers a statement that hit its timeout, 53… a full disk.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,  # TimeoutError is one
)
# What ending a transaction, or giving a connection back, may meet when there is no one left to tell.
_UNHEARD: Final = (*_LOST, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_CONFLICTS: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class Queryable(Protocol):
    """What runs statements: a Database, each in a transaction of its own, or a Transaction."""

    async def fetch(self, query: str, *arguments: object) -> list[Row]: ...

    async def fetchrow(self, query: str, *arguments: object) -> Row | None: ...

    async def fetchval(self, query: str, *arguments: object) -> Value: ...

    async def execute(self, query: str, *arguments: object) -> str: ...


class Transaction:
    """Statements that take effect together. Made by `Database.transaction`; it ends with that block."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Every row."""
        with _outages(self._connection):
            return await self._connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: object) -> Row | None:
        """The first row, or None."""
        with _outages(self._connection):
            return await self._connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: object) -> Value:
        """The first column of the first row, or None."""
        with _outages(self._connection):
            return await self._connection.fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: object) -> str:
        """Postgres' word on what was done, such as `UPDATE 3`."""
        with _outages(self._connection):
            return await self._connection.execute(query, *arguments)

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """The statement once for each row of arguments, in one go."""
        with _outages(self._connection):
            await self._connection.executemany(query, rows)


class Database:
    """A pool of connections of one login role. An outage is DependencyUnavailable, whatever asyncpg calls it.

    When the outage hits while a transaction commits, it may or may not have taken effect: what cannot bear that carries
    a key that makes a second attempt harmless.
    """

    def __init__(self, pool: asyncpg.Pool, acquire_timeout_s: float) -> None:
        self._pool = pool
        self._acquire_timeout_s = acquire_timeout_s

    async def fetch(self, query: str, *arguments: object) -> list[Row]:
        """Every row."""
        async with self._acquired() as connection:
            return await Transaction(connection).fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: object) -> Row | None:
        """The first row, or None."""
        async with self._acquired() as connection:
            return await Transaction(connection).fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: object) -> Value:
        """The first column of the first row, or None."""
        async with self._acquired() as connection:
            return await Transaction(connection).fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: object) -> str:
        """Postgres' word on what was done, such as `UPDATE 3`."""
        async with self._acquired() as connection:
            return await Transaction(connection).execute(query, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A READ COMMITTED transaction that commits when the block ends, and rolls back when it raises."""
        async with self._acquired() as connection:
            transaction = connection.transaction()
            with _outages(connection):
                await transaction.start()
            try:
                yield Transaction(connection)
            except BaseException:
                with suppress(*_UNHEARD):
                    await transaction.rollback()
                raise
            with _outages(connection):
                await transaction.commit()

    @asynccontextmanager
    async def identity_transaction(self, settings: Mapping[str, str]) -> AsyncIterator[Transaction]:
        """A transaction in which policies see these settings. Hot paths call SQL functions that set them themselves."""
        async with self.transaction() as transaction:
            await transaction.execute(_QUERIES["set_identity"], list(settings), list(settings.values()))
            yield transaction

    @asynccontextmanager
    async def as_recipient(self, number: int) -> AsyncIterator[Transaction]:
        """A transaction that sees only what is this recipient's."""
        async with self.identity_transaction({RECIPIENT_SETTING: str(number)}) as transaction:
            yield transaction

    async def retrying(self, work: Callable[[Transaction], Awaitable[_Result]], attempts: int = 5) -> _Result:
        """Run `work` in a transaction, and again in a fresh one when Postgres broke it off to resolve a conflict.

        The last conflict is raised as DependencyUnavailable. `work` must not act outside the transaction.
        """

        async def attempt_once() -> _Result:
            async with self.transaction() as transaction:
                return await work(transaction)

        return await _retry(attempt_once, attempts)

    async def fetch_retrying(self, query: str, *arguments: object, attempts: int = 5) -> list[Row]:
        """Every row of a statement that is the whole transaction, as `retrying` does it, in one round trip of three."""
        return await _retry(lambda: self.fetch(query, *arguments), attempts)

    async def check(self) -> None:
        """Return when a statement is answered; DependencyUnavailable otherwise."""
        await self.fetchval(_QUERIES["check_health"])

    async def close(self) -> None:
        """Let running statements finish for a few seconds, then close every connection."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[PoolConnectionProxy]:
        try:
            connection = await self._pool.acquire(timeout=self._acquire_timeout_s)
        except (*_LOST, asyncpg.InterfaceError) as error:
            raise DependencyUnavailable("The database cannot be reached.") from error
        try:
            yield connection
        finally:
            with suppress(*_UNHEARD):
                await self._pool.release(connection)


async def connect(
    url: str,
    *,
    application_name: str,
    min_size: int = 1,
    max_size: int = 10,
    acquire_timeout_s: float = 2.0,
    statement_timeout_s: float = 10.0,
    statement_cache_size: int = 200,
    session: Mapping[str, str] = MappingProxyType({}),
    on_connect: Callable[[Queryable], Awaitable[None]] | None = None,
) -> Database:
    """Open a pool, with `session` besides the usual settings. Nobody is given a connection that `on_connect` refuses.

    Raises DependencyUnavailable when Postgres cannot be reached, SettingsError for a URL of no use.
    """

    async def prepare(connection: asyncpg.Connection) -> None:
        await _set_codecs(connection)
        if on_connect is not None:
            await on_connect(Transaction(connection))

    with _outages(), _unusable(application_name):
        pool: asyncpg.Pool = await asyncpg.create_pool(
            url,
            min_size=min_size,
            max_size=max_size,
            init=prepare,
            reset=_keep_session,
            timeout=_CONNECT_TIMEOUT_S,
            # Postgres cancels a statement first; the client's own limit is for a server that is no longer there.
            command_timeout=statement_timeout_s + 1.0,
            statement_cache_size=statement_cache_size,
            # The driver would close what is idle for five minutes, and the first calls after a quiet night would pay.
            max_inactive_connection_lifetime=0,
            server_settings={
                "application_name": application_name,
                "statement_timeout": str(round(statement_timeout_s * 1000)),
                "idle_in_transaction_session_timeout": str(round(statement_timeout_s * 1000)),
                "timezone": "UTC",
                "jit": "off",
                **session,
            },
        )
    return Database(pool, acquire_timeout_s)


async def _retry(work: Callable[[], Awaitable[_Result]], attempts: int) -> _Result:
    """Do what may meet a conflict, and again after a while; the last conflict is raised as DependencyUnavailable."""
    for attempt in range(1, attempts + 1):
        try:
            return await work()
        except _CONFLICTS as error:
            if attempt == attempts:
                raise DependencyUnavailable("The database is too busy.") from error
            await asyncio.sleep(backoff_s(attempt, _RETRY_FIRST_S, _RETRY_CEILING_S))
    raise ValueError("attempts must be at least 1")


@contextmanager
def _outages(connection: _Connection | None = None) -> Iterator[None]:
    """Turn what a lost, refused or overloaded connection raises into DependencyUnavailable."""
    try:
        yield
    except _LOST as error:
        raise DependencyUnavailable("The database cannot be reached.") from error
    except asyncpg.InterfaceError as error:
        if connection is None or not _is_gone(connection):
            raise
        raise DependencyUnavailable("The database cannot be reached.") from error
    except asyncpg.InternalClientError as error:
        # What asyncpg says in the moment between the server's farewell and the end of the connection.
        if connection is not None and not _is_gone(connection):
            connection.terminate()
        raise DependencyUnavailable("The database cannot be reached.") from error


@contextmanager
def _unusable(application_name: str) -> Iterator[None]:
    """Say of a URL what asyncpg cannot make of it, such as that there is no file of authorities for `verify-full`."""
    try:
        yield
    except asyncpg.ClientConfigurationError as error:
        raise SettingsError(f"The database URL of {application_name}: {error}") from error


def _is_gone(connection: _Connection) -> bool:
    """Whether the connection was closed; the pool takes it away from its holder as soon as it notices."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


async def _set_codecs(connection: asyncpg.Connection) -> None:
    """jsonb is Python values, and a bit string is bytes, its first bit the highest of the first byte.

    A query must give the length, `$1::bit(4096)[]`: to Postgres `bit` alone is one bit, and a cast cuts off the rest.
    """
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    await connection.set_type_codec(
        "bit", schema="pg_catalog", encoder=_encode_bits, decoder=_decode_bits, format="binary"
    )


def _encode_bits(bits: bytes) -> bytes:
    return (len(bits) * 8).to_bytes(4, "big") + bits


def _decode_bits(wire: bytes) -> bytes:
    return wire[4:]


async def _keep_session(_connection: asyncpg.Connection) -> None:
    """Return a connection as it is: see the head of this module."""
