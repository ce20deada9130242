"""Owns by what the inbox tells its log from any other: cursors and remembered badges are good for that one alone."""

from uuid import UUID

from services.inbox.store import QUERIES
from shared.database import Queryable
from shared.served_log import ServedLog


def served_log() -> ServedLog:
    """The log to which this process' connections must lead."""
    return ServedLog("The inbox", QUERIES["find_log_identity"])


async def find_log_identity(connection: Queryable) -> UUID:
    """What tells the log that a connection leads to from any other. Raises DependencyUnavailable, also on a standby."""
    return await served_log().find(connection)
