"""Owns which ordered log a process serves: what it remembers is good for that one, and for no other."""

import asyncio
from contextlib import suppress
from typing import Final
from uuid import UUID

from shared.database import Database, Queryable
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

_LOOK_EVERY_S: Final = 1.0


class LogReplaced(LookupError):
    """The database leads to another log than the one that this process serves."""


class ServedLog:
    """The log to which the first connection led. Every later one must lead to it as well, or is not used.

    So nothing that this process remembers meets a log that was put back, or that of a server which took over:
    the process ends, and the next remembers nothing.
    """

    def __init__(self, service: str, query: str) -> None:
        """`service` is said in errors; `query` finds what tells the log from any other, null on a standby."""
        self._service = service
        self._query = query
        self._identity: UUID | None = None
        self._is_replaced = False

    @property
    def identity(self) -> UUID:
        """What tells it from any other."""
        if self._identity is None:
            raise LookupError("no connection was made yet that leads to a log")
        return self._identity

    @property
    def is_replaced(self) -> bool:
        """Whether a connection has led to another one."""
        return self._is_replaced

    async def find(self, connection: Queryable) -> UUID:
        """What tells the log that a connection leads to. Raises DependencyUnavailable, also on a standby."""
        identity: UUID | None = await connection.fetchval(self._query)
        if identity is None:
            raise DependencyUnavailable("The database is a standby.")
        return identity

    async def confirm(self, connection: Queryable) -> None:
        """Return when a connection leads to this log, or to the first there is. Raises DependencyUnavailable."""
        found = await self.find(connection)
        if self._identity is None:
            self._identity = found
        if found != self._identity:
            self._is_replaced = True
            raise DependencyUnavailable(f"{self._service} was put back to another state; try again soon.")


class LogWatch:
    """Looks now and then which log the database leads to: behind a pooler another may show by no new connection."""

    def __init__(self, served: ServedLog, database: Database) -> None:
        self._served = served
        self._database = database
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Raise LogReplaced as soon as that is known; look until `stop`."""
        while not self._stopping.is_set():
            if self._served.is_replaced:
                raise LogReplaced
            await wait_for_hint(self._stopping, _LOOK_EVERY_S)
            # Of an outage others tell.
            with suppress(DependencyUnavailable):
                await self._served.confirm(self._database)

    def stop(self) -> None:
        """Make `run` return."""
        self._stopping.set()
