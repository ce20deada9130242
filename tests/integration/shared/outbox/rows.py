"""How tests write to an outbox, and what they read of its rows."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from shared.database import Database

Add: TypeAlias = Callable[..., Awaitable[None]]
"""Adds a row by its key; see the fixture `add`."""


async def state_of(database: Database, key: str) -> tuple[str, int, int]:
    """State, epoch and attempts of a row."""
    row = await database.fetchrow("SELECT state, epoch, attempts FROM post.outbox WHERE key = $1", key)
    assert row is not None
    return tuple(row)


async def epoch_of(database: Database, key: str) -> int:
    """How often the row was claimed."""
    _, epoch, _ = await state_of(database, key)
    return epoch


async def has_failed(database: Database, key: str) -> bool:
    """Whether publishing the row has failed at least once."""
    _, _, attempts = await state_of(database, key)
    return attempts > 0
