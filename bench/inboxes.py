"""Fills the inboxes of a user base as months of use would: broadcasts that arrived, and what people did with them."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from services.inbox.domain import ArrivalKind, Chunk, Content
from services.inbox.work_store import ChunkRows, WorkStore
from shared import database
from shared.audience import Audience
from shared.queries import load
from stack.credentials import Secrets
from stack.provision import SuiteDatabase
from stack.state import StateFolder

BROADCASTS: Final = 4_000
ITEMS_EACH: Final = 500
READ_SHARE: Final = 0.6
_TOGETHER: Final = 50
_SEED: Final = 11
_QUERIES: Final = load(Path(__file__).with_name("queries.sql"), schema="bench")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an inbox: who they are, and what of theirs is unread, oldest first."""

    user_id: UUID
    number: int
    unread: tuple[UUID, ...]


async def fill(admin_url: str, state: StateFolder, recipients: int, callers: int) -> list[Person]:
    """Lets thousands of broadcasts arrive with everybody in turn, and these callers read most of theirs."""
    chance = random.Random(_SEED)
    ids: list[UUID] = []
    async with _work_store(admin_url, state) as store:
        for _ in range(BROADCASTS // _TOGETHER):
            contents = [_content() for _ in range(_TOGETHER)]
            chunks = [
                ChunkRows.of(Chunk(content.broadcast_id, 0, ArrivalKind.ITEM, _audience(recipients, chance)))
                for content in contents
            ]
            await store.merge(chunks, contents)
            ids += [content.broadcast_id for content in contents]
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute(_QUERIES["read_most"], callers, READ_SHARE)
        await connection.execute(_QUERIES["note_reading"])
        await connection.execute(_QUERIES["analyze_inboxes"])
        rows = await connection.fetch(_QUERIES["find_unread"], callers)
    finally:
        await connection.close()
    return [Person(row["user_id"], row["number"], tuple(row["unread"])) for row in rows]


@asynccontextmanager
async def _work_store(admin_url: str, state: StateFolder) -> AsyncIterator[WorkStore]:
    suite = SuiteDatabase(admin_url, Secrets(state.secrets).password)
    worked = await database.connect(suite.url("inbox", "worker"), application_name="bench")
    try:
        yield WorkStore(worked)
    finally:
        await worked.close()


def _audience(recipients: int, chance: random.Random) -> Audience:
    return Audience.of(chance.sample(range(1, recipients + 1), recipients * ITEMS_EACH // BROADCASTS))


def _content() -> Content:
    return Content(
        broadcast_id=uuid4(),
        type="journey.updated",
        category=3,
        priority=3,
        title="The journey of your wedding has moved on",
        message="The venue has confirmed the date, and the photographer has sent a plan for the day. Have a look. "
        * 2,
        action=None,
        wedding=None,
        wall=(),
        expires_at=None,
    )
