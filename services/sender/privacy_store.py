"""Owns what is removed and told of one person, wherever the sender's tables name them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from services.sender.domain import ERASED_MESSAGE, ERASED_TITLE, Author, Priority
from services.sender.limits import Tally
from shared.database import Database, Row, Transaction
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_NOBODY: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What somebody was answered, by whom and by which of their calls it is known."""

    caller: str
    method: str
    request_id: UUID
    response: bytes


class ErasureStore:
    """One person's erasure, step by step, as the worker; each step may be done again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace_words(self, user_id: UUID, count: int) -> list[str]:
        """Have up to `count` broadcasts say nothing any more that were meant for them alone; which those are."""
        rows = await self._database.fetch(
            _QUERIES["erase_words"], user_id, ERASED_TITLE, ERASED_MESSAGE, count
        )
        return [str(row["broadcast_id"]) for row in rows]

    async def take_out(self, user_id: UUID, broadcast_ids: Sequence[str] = ()) -> None:
        """Name them no more in the targeting of these broadcasts, and of any that was meant for others too."""
        await self._database.execute(_QUERIES["erase_from_targeting"], user_id, broadcast_ids)

    async def find_answers_naming(self, user_id: UUID) -> list[KeptAnswer]:
        """What others were answered that names them."""
        rows = await self._database.fetch(_QUERIES["find_answers_naming"], user_id)
        return [KeptAnswer(row["caller"], row["method"], row["request_id"], row["response"]) for row in rows]

    async def change_answers(self, user_id: UUID, answers: Iterable[KeptAnswer]) -> None:
        """Keep these in place of what was answered."""
        async with self._database.transaction() as transaction:
            for each in answers:
                await transaction.execute(
                    _QUERIES["erase_from_answer"],
                    user_id,
                    each.caller,
                    each.method,
                    each.request_id,
                    each.response,
                )

    async def remove_own(self, user_id: UUID) -> list[Tally]:
        """Remove what they were answered and how much they sent; what of it counted together."""
        kinds = await self._database.fetch(_QUERIES["erase_own"], user_id)
        return list(_tallies(Author(str(user_id), is_service=False), kinds))


class ExportStore:
    """What is kept about one person: as the worker, and what is their own under their own name."""

    def __init__(self, called: Database, worked: Database) -> None:
        self._called = called
        self._worked = worked

    async def list_sent(self, user_id: UUID, after: tuple[datetime, UUID], count: int) -> list[Row]:
        """Up to `count` broadcasts that they sent, in order, behind one."""
        return await self._worked.fetch(_QUERIES["export_sent"], str(user_id), *after, count)

    async def list_naming(self, user_id: UUID, after: tuple[datetime, UUID], count: int) -> list[Row]:
        """Up to `count` broadcasts whose targeting names them, in order, behind one."""
        return await self._worked.fetch(_QUERIES["export_naming"], user_id, *after, count)

    async def list_audit_entries(self, user_id: UUID, before: int, count: int) -> list[Row]:
        """Up to `count` entries of the audit log that are about them, newest first, before a position."""
        return await self._worked.fetch(_QUERIES["export_audit_log"], user_id, before, count)

    async def list_counts(self, user_id: UUID) -> list[Row]:
        """What counts for their limits."""
        async with self._as(user_id) as transaction:
            return await transaction.fetch(_QUERIES["export_counts"], str(user_id))

    async def list_calls(self, user_id: UUID, after: tuple[datetime, UUID], count: int) -> list[Row]:
        """Up to `count` remembered calls, the oldest first, behind one."""
        async with self._as(user_id) as transaction:
            return await transaction.fetch(_QUERIES["export_calls"], str(user_id), *after, count)

    def _as(self, user_id: UUID) -> AbstractAsyncContextManager[Transaction]:
        return self._called.identity_transaction({"sender.caller": str(user_id)})


def _tallies(author: Author, kinds: Iterable[Row]) -> Iterator[Tally]:
    for row in kinds:
        wedding_id = None if row["wedding_id"] == _NOBODY else str(row["wedding_id"])
        yield Tally(author, row["type"], Priority(row["priority"]), wedding_id)
