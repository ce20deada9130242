"""Looks for texts and ids in all that a suite keeps: tables, streams, Redis, and what its processes have logged."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import nats
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from shared import subjects
from stack.credentials import Secrets
from stack.permissions import PROVISIONER, SERVICES
from tests.e2e.client import Client

_COLUMNS: Final = """
    SELECT table_schema, table_name, column_name, udt_name
    FROM information_schema.columns
    WHERE table_schema = ANY ($1) AND is_generated = 'NEVER'
    ORDER BY table_schema, table_name, ordinal_position
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked for, and where it is: `schema.table.column`, a stream, a key or a file."""

    marker: str | UUID
    place: str


async def search(client: Client, markers: Sequence[str | UUID]) -> list[Finding]:
    """Every place that has one of these in it, as text or, of an id, as its sixteen bytes."""
    found: list[Finding] = []
    async for place, content in _everything(client):
        found += [Finding(each, place) for each in markers if _is_in(each, content)]
    return list(dict.fromkeys(found))


def _is_in(marker: str | UUID, content: bytes) -> bool:
    if isinstance(marker, UUID):
        return any(each in content for each in (str(marker).encode(), marker.hex.encode(), marker.bytes))
    return marker.encode() in content


async def _everything(client: Client) -> AsyncIterator[tuple[str, bytes]]:
    stack = client.stack
    async for each in _tables(stack.environment["DATABASE_URL"]):
        yield each
    async for each in _streams(stack.environment["NATS_URL"], stack.state.secrets):
        yield each
    async for each in _redis(stack.environment["REDIS_URL"]):
        yield each
    # Messages that were taken off a stream are in its files for a while.
    for folder in (stack.state.logs, stack.state.path / "nats"):
        for each in _files(folder):
            yield each


async def _tables(url: str) -> AsyncIterator[tuple[str, bytes]]:
    """All values of every column, whatever its type: as text, and what is kept as bytes as it is."""
    connection = await asyncpg.connect(url)
    try:
        columns = await connection.fetch(_COLUMNS, list(SERVICES))
        assert {each["table_schema"] for each in columns} == set(SERVICES)
        for schema, table, column, kind in columns:
            name = f"{schema}.{table}.{column}"
            value = f'"{column}"' if kind == "bytea" else f"""convert_to("{column}"::text, 'UTF8')"""
            whole = f'SELECT {value} AS content FROM {schema}.{table} WHERE "{column}" IS NOT NULL'  # noqa: S608
            for row in await connection.fetch(whole):
                yield name, row["content"]
    finally:
        await connection.close()


async def _streams(url: str, secrets: Path) -> AsyncIterator[tuple[str, bytes]]:
    """Every message that a stream still has, with its subject and headers."""
    password = Secrets(secrets).password(f"nats_{PROVISIONER}")
    prefix = subjects.inbox_prefix(PROVISIONER).encode()
    connection = await nats.connect(url, user=PROVISIONER, password=password, inbox_prefix=prefix)
    try:
        context = connection.jetstream()
        for stream in await context.streams_info():
            name = str(stream.config.name)
            for sequence in range(stream.state.first_seq, stream.state.last_seq + 1):
                try:
                    message = await context.get_msg(name, sequence)
                except NotFoundError:
                    continue
                said = f"{message.subject} {message.headers}".encode()
                yield f"stream {name}", said + b" " + (message.data or b"")
    finally:
        await connection.close()


async def _redis(url: str) -> AsyncIterator[tuple[str, bytes]]:
    """Every key with whatever is under it."""
    async with Redis.from_url(url) as redis:
        async for key in redis.scan_iter():
            yield f"redis {key!r}", key + b" " + (await redis.dump(key) or b"")
            kind = await redis.type(key)
            if kind == b"stream":
                yield f"redis {key!r}", repr(await redis.xrange(key)).encode()


def _files(folder: Path) -> Iterable[tuple[str, bytes]]:
    """Every file, as it is: what each process of the stack has printed, for one, the servers too."""
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    assert files, f"there is nothing in {folder}"
    for file in files:
        yield f"file {file.relative_to(folder.parent)}", file.read_bytes()
