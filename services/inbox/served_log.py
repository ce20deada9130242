"""Owns which log this process serves: cursors and remembered badges are good for that one, and for no other."""

import asyncio
from contextlib import suppress
from typing import Final
from uuid import UUID

from services.inbox.store import QUERIES
from shared.database import Database, Queryable
from shared.errors import DependencyUnavailable

_LOOK_EVERY_S: Final = 1.0


class LogReplaced(LookupError):
    """The database leads to another log than the one that this process serves."""


class ServedLog:
    """The log to which the first connection led. Every later one must lead to it as well, or is not used.

    So nothing that this process remembers meets a log that was put back, or that of a server which took over:
    the process ends, and the next remembers nothing.
    """

    def __init__(self) -> None:
        self._identity: UUID | None = None
        self._is_replaced = False

    @property
    def identity(self) -> UUID:
        """What tells it from any other."""
        if self._identity is None:
            raise LookupError("no connection was made yet that leads to a log")
        return self._identity

    async def confirm(self, connection: Queryable) -> None:
        """Return when a connection leads to this log, or to the first there is. Raises DependencyUnavailable."""
        found = await find_log_identity(connection)
        if self._identity is None:
            self._identity = found
        if found != self._identity:
            self._is_replaced = True
            raise DependencyUnavailable("The inbox was put back to another state; try again soon.")

    async def watch(self, database: Database) -> None:
        """Raise LogReplaced as soon as that is known; until then, look.

        Behind a pooler another server may show by no new connection.
        """
        while not self._is_replaced:
            await asyncio.sleep(_LOOK_EVERY_S)
            # Of an outage the tail of the log tells.
            with suppress(DependencyUnavailable):
                await self.confirm(database)
        raise LogReplaced


async def find_log_identity(connection: Queryable) -> UUID:
    """What tells the log that a connection leads to from any other. Raises DependencyUnavailable, also on a standby."""
    identity: UUID | None = await connection.fetchval(QUERIES["find_log_identity"])
    if identity is None:
        raise DependencyUnavailable("The database is a standby.")
    return identity
