"""Owns what is removed and told of one person, kept under their number or user id, as the login of the workers."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from services.inbox.domain import Content
from services.inbox.store import QUERIES
from services.inbox.work_store import content_object
from shared.database import Database, Row


class PrivacyStore:
    """One person at a time, wherever something is kept about them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def erase(self, user_id: UUID, recipient_number: int) -> None:
        """Forget who a number was, and have every node do so."""
        await self._database.fetch_retrying(QUERIES["erase_inbox"], user_id, recipient_number)

    async def replace_contents(self, contents: Iterable[Content]) -> None:
        """From now on these broadcasts say this, and every node shows it."""
        given = [content_object(content) for content in contents]
        await self._database.execute(QUERIES["replace_contents"], given)

    async def list_items(self, recipient_number: int, before: int, count: int) -> list[Row]:
        """Up to `count` that came before a position of the log, the newest first."""
        return await self._database.fetch(QUERIES["export_items"], recipient_number, before, count)

    async def list_receipts(self, recipient_number: int, after: UUID | None, count: int) -> list[Row]:
        """Up to `count` receipts, by broadcast, from the one that follows `after`."""
        return await self._database.fetch(QUERIES["export_receipts"], recipient_number, after, count)

    async def list_arrangements(self, recipient_number: int, after: UUID | None, count: int) -> list[Row]:
        """Up to `count` items that are snoozed or pinned, or were, by broadcast, from the one that follows `after`."""
        return await self._database.fetch(QUERIES["export_arrangements"], recipient_number, after, count)

    async def list_marks(self, recipient_number: int, before: int, count: int) -> list[Row]:
        """Up to `count` times of "all read" before a position of the log, the newest first."""
        return await self._database.fetch(QUERIES["export_marks"], recipient_number, before, count)

    async def list_calls(self, user_id: UUID, after: tuple[datetime, UUID], count: int) -> list[Row]:
        """Up to `count` remembered calls, the oldest first, after the one of this time and id."""
        return await self._database.fetch(QUERIES["export_calls"], str(user_id), *after, count)
