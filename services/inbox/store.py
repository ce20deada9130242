"""Owns what a recipient may see: one method a query, as the login under personal policies; domain values out."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from services.inbox.domain import MOST_PINNED, Badge, Filter, Item
from services.inbox.paging import Page, PageStart
from services.inbox.rows import badge_of, item_of, page_of
from shared.database import Database
from shared.queries import load

SCHEMA: Final = "inbox"
QUERIES: Final = load(Path(__file__).with_name("queries.sql"))


class InboxStore:
    """One recipient's own inbox at a time; nobody else's can be seen through it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_items(
        self,
        recipient_number: int,
        wanted: Filter,
        start: PageStart | None,
        page_size: int,
        known: Badge | None,
    ) -> Page:
        """Up to `page_size` items from a start on, None for the first; `known`, an earlier badge, spares counting."""
        row = await self._database.fetchrow(
            QUERIES["list_items"],
            recipient_number,
            wanted.unread_only,
            wanted.priorities or None,
            wanted.exact_type,
            wanted.type_prefix,
            wanted.query,
            wanted.wedding_id,
            wanted.include_dismissed,
            wanted.include_snoozed,
            start and start.below,
            start and start.tops,
            start.shown if start else 0,
            MOST_PINNED,
            page_size + 1,
            *_checkpoint(known),
        )
        if row is None:
            raise LookupError("list_items answers exactly one row")
        return page_of(row, page_size, start)

    async def list_first_pages(
        self, recipient_numbers: Sequence[int], page_size: int, known: Iterable[Badge | None]
    ) -> list[Page]:
        """Everybody's newest `page_size` items; `known` are earlier badges of theirs."""
        checkpoints = zip(*map(_checkpoint, known), strict=True)
        rows = await self._database.fetch(
            QUERIES["list_first_pages"],
            recipient_numbers,
            *map(list, checkpoints),
            MOST_PINNED,
            page_size + 1,
        )
        return [page_of(row, page_size) for row in rows]

    async def get_item(self, recipient_number: int, broadcast_id: UUID) -> Item | None:
        """An item, None when it is not in this inbox."""
        row = await self._database.fetchrow(QUERIES["get_item"], recipient_number, broadcast_id)
        return item_of(row) if row is not None else None

    async def count_items(self, recipient_number: int, known: Badge | None) -> Badge:
        """The badge as of now; `known` is an earlier one, which may spare counting."""
        row = await self._database.fetchrow(QUERIES["count_items"], recipient_number, *_checkpoint(known))
        if row is None:
            raise LookupError("count_items answers exactly one row")
        return badge_of(row)

    async def count_items_of_many(
        self, recipient_numbers: Sequence[int], known: Iterable[Badge]
    ) -> list[Badge]:
        """Everybody's badge as of now; `known` are earlier ones of theirs."""
        checkpoints = zip(*map(_checkpoint, known), strict=True)
        rows = await self._database.fetch(
            QUERIES["count_items_of_many"], recipient_numbers, *map(list, checkpoints)
        )
        return [badge_of(row) for row in rows]


def _checkpoint(known: Badge | None) -> tuple[object, ...]:
    if known is None:
        return (None,) * 6
    return (
        known.position,
        known.unread_count,
        known.total_count,
        known.valid_until,
        known.reads,
        known.dismissals,
    )
