"""Puts the demo world into an empty database, in bulk: the directory, who edited what, and the inbox's own wall."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import asyncpg

from shared.queries import load
from stack.errors import StackError
from stack.world import Wedding, World

SEED: Final = 7
_BATCH: Final = 20_000
_QUERIES: Final = load(Path(__file__).with_name("load.sql"))
_RECIPIENT_COLUMNS: Final = (
    "number",
    "user_id",
    "display_name",
    "role",
    "user_type",
    "tier",
    "email",
    "phone",
    "time_zone",
)
_PREFERENCES_COLUMNS: Final = (
    "recipient_number",
    "system",
    "business",
    "collaboration",
    "wedding",
    "critical_only",
    "channels",
    "quiet_enabled",
    "quiet_start",
    "quiet_end",
    "quiet_time_zone",
)
_WEDDING_COLUMNS: Final = ("wedding_id", "couple_name", "wedding_date", "status", "time_zone", "team_version")
_TEAM_COLUMNS: Final = ("wedding_id", "recipient_number")
_FIRST_TEAM_VERSION: Final = 1

Progress = Callable[[int], None]


async def load_world(admin_url: str, recipients: int, progress: Progress) -> int:
    """Loads a world of that many people unless there are people already; answers how many there are now.

    `progress` hears after each part how many rows of recipients are in. The services must not be running: they read
    all of it when they start. Raises StackError when the administrator may not load past row level security.
    """
    connection = await asyncpg.connect(admin_url)
    try:
        present: int = await connection.fetchval(_QUERIES["count_recipients"])
        if present or not recipients:
            return present
        await _load(connection, World(recipients, SEED, datetime.now(UTC).date()), progress)
        await connection.execute(_QUERIES["analyze_recipients"])
    except (asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError) as error:
        raise StackError(
            f"The demo world cannot be loaded with this administrator: {error}",
            "Use a superuser in DATABASE_URL, or start without a demo world: --recipients 0.",
        ) from error
    finally:
        await connection.close()
    return recipients


async def _load(connection: asyncpg.Connection, world: World, progress: Progress) -> None:
    weddings = list(world.weddings())
    async with connection.transaction():
        await connection.execute(_QUERIES["skip_foreign_keys"])
        people = (
            (
                each.number,
                each.user_id,
                each.display_name,
                each.role,
                each.user_type,
                each.tier,
                each.email,
                each.phone,
                each.time_zone,
            )
            for each in world.people()
        )
        await _copy(connection, "preferences.recipients", _RECIPIENT_COLUMNS, people, progress)
        edited = (
            (
                each.number,
                each.system,
                each.business,
                each.collaboration,
                each.wedding,
                each.critical_only,
                each.channels,
                each.quiet_enabled,
                each.quiet_start,
                each.quiet_end,
                each.quiet_zone,
            )
            for each in world.edited_preferences()
        )
        await _copy(connection, "preferences.preferences", _PREFERENCES_COLUMNS, edited)
        await _copy_weddings(connection, weddings)
        await connection.execute(_QUERIES["continue_numbers"], world.recipients)


async def _copy_weddings(connection: asyncpg.Connection, weddings: list[Wedding]) -> None:
    rows = (
        (
            each.wedding_id,
            each.couple_name,
            each.wedding_date,
            each.status,
            each.time_zone,
            _FIRST_TEAM_VERSION,
        )
        for each in weddings
    )
    await _copy(connection, "preferences.weddings", _WEDDING_COLUMNS, rows)
    await _copy(connection, "preferences.team_members", _TEAM_COLUMNS, _teams(weddings))
    versions = ((each.wedding_id, _FIRST_TEAM_VERSION) for each in weddings)
    await _copy(connection, "inbox.teams", ("wedding_id", "version"), versions)
    await _copy(connection, "inbox.team_members", _TEAM_COLUMNS, _teams(weddings))


def _teams(weddings: Iterable[Wedding]) -> Iterator[tuple[object, ...]]:
    return ((each.wedding_id, number) for each in weddings for number in each.team)


async def _copy(
    connection: asyncpg.Connection,
    table: str,
    columns: Iterable[str],
    rows: Iterator[tuple[object, ...]],
    progress: Progress | None = None,
) -> None:
    schema, _, name = table.partition(".")
    done, batch = 0, _next(rows)
    while batch:
        copying = asyncio.create_task(
            connection.copy_records_to_table(name, schema_name=schema, columns=list(columns), records=batch)
        )
        done += len(batch)
        # The next part is made up while Postgres takes this one.
        batch = await asyncio.to_thread(_next, rows)
        await copying
        if progress is not None:
            progress(done)


def _next(rows: Iterator[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return list(islice(rows, _BATCH))
