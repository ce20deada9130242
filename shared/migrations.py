"""Owns bringing a service's schema up to its numbered migrations: forward only, each in one transaction."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from shared.queries import load

_QUERIES: Final = load(Path(__file__).parent / "sql" / "migrations.sql")
_FILE_NAME: Final = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+\.sql")
_SERVICE: Final = re.compile(r"[a-z][a-z0-9_]*")
# Not `END;`, which also closes the body of a function.
_TRANSACTION_CONTROL: Final = re.compile(
    r"^\s*(?:begin|start\s+transaction|commit|rollback)\s*;", re.IGNORECASE | re.MULTILINE
)


class MigrationError(Exception):
    """The schema could not be migrated; the message names the file, and the line where Postgres told it."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of a service's `migrations/`."""

    number: int
    path: Path
    sql: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, by which the history knows it."""
        return self.path.name


async def migrate(connection: asyncpg.Connection, service: str, directory: Path) -> list[str]:
    """Apply what is missing to the schema `service`, as `<service>_owner`; answers the names of the files applied.

    `connection` is an administrator's, outside a transaction. Role and schema must be there. Any number of processes
    may call this at once. Raises MigrationError: for a file that breaks a rule, that was changed or removed after it
    was applied, or that Postgres refuses; what came before it stays applied.
    """
    if not _SERVICE.fullmatch(service):
        raise MigrationError(f"{service!r} is not the name of a service")
    applied = []
    for migration in read(directory):
        try:
            if await _apply(connection, service, migration):
                applied.append(migration.name)
        except asyncpg.PostgresError as error:
            raise MigrationError(_describe(migration, error)) from error
    await _check_for_unknown(connection, service, directory)
    return applied


def read(directory: Path) -> list[Migration]:
    """The migrations of a folder in order. Raises MigrationError for a name, gap or file that breaks a rule."""
    migrations = [_read_file(path) for path in sorted(directory.glob("*.sql"))]
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(
                f"{migration.path}: the next number is {expected:04}; each is there once, without gaps"
            )
    if not migrations:
        raise MigrationError(f"{directory} has no migrations")
    return migrations


def _read_file(path: Path) -> Migration:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise MigrationError(f"{path}: the name must be like 0001_what_it_adds.sql")
    sql = path.read_text(encoding="utf-8")
    if not re.match(r"-- \S", sql):
        raise MigrationError(f"{path}:1: a migration opens with a comment that says why")
    control = _TRANSACTION_CONTROL.search(sql)
    if control is not None:
        line = sql.count("\n", 0, control.end()) + 1
        raise MigrationError(f"{path}:{line}: each file is one transaction already")
    return Migration(int(match["number"]), path, sql, hashlib.sha256(sql.encode()).hexdigest())


async def _apply(connection: asyncpg.Connection, service: str, migration: Migration) -> bool:
    """Apply one file unless it is there; whether it was applied."""
    async with connection.transaction():
        await connection.execute(_QUERIES["wait_for_turn"], service)
        await connection.execute(_QUERIES["become_owner"], f"{service}_owner", service)
        await connection.execute(_QUERIES["create_history"])
        history = {row["number"]: row for row in await connection.fetch(_QUERIES["list_applied"])}
        known = history.get(migration.number)
        if known is not None:
            if (known["name"], known["sha256"]) != (migration.name, migration.sha256):
                raise MigrationError(
                    f"{migration.path}: changed after it was applied; add a new file instead"
                )
            return False
        if history and max(history) > migration.number:
            raise MigrationError(
                f"{migration.path}: {max(history):04} is applied already; migrations only go forward"
            )
        await connection.execute(migration.sql)
        await connection.execute(
            _QUERIES["record_applied"], migration.number, migration.name, migration.sha256
        )
        return True


async def _check_for_unknown(connection: asyncpg.Connection, service: str, directory: Path) -> None:
    async with connection.transaction():
        await connection.execute(_QUERIES["become_owner"], f"{service}_owner", service)
        names = [row["name"] for row in await connection.fetch(_QUERIES["list_applied"])]
    missing = [name for name in names if not (directory / name).exists()]
    if missing:
        raise MigrationError(
            f"{directory}: the schema also has {', '.join(missing)}, which is not among these files"
        )


def _describe(migration: Migration, error: asyncpg.PostgresError) -> str:
    """`file:line: what Postgres said`; without the line when it gave no position in the file."""
    position = error.as_dict().get("position")
    line = f":{migration.sql.count(chr(10), 0, int(position) - 1) + 1}" if position else ""
    said = [str(error), *(part for part in (error.detail, error.hint, error.context) if part)]
    return f"{migration.path}{line}: {' | '.join(said)}"
