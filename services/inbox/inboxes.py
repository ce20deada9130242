"""Owns reading one recipient's inbox: pages, items and the badge, with what is remembered of the badge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.inbox.checkpoints import Checkpoints
from services.inbox.domain import LARGEST_PAGE, PAGE_SIZE, Badge, Filter, Item
from services.inbox.groups import Group
from services.inbox.paging import read_page_token, write_page_token
from services.inbox.store import InboxStore
from services.inbox.texts import Texts
from services.inbox.work_store import WorkStore
from shared.errors import NotFound

_COUNTS_TOGETHER: Final = 32


@dataclass(frozen=True, slots=True)
class Listing:
    """A page as it is answered: `items` as a message has them; the token is empty when no page follows."""

    items: bytes
    badge: Badge
    total_count: int
    next_page_token: str


@dataclass(frozen=True, slots=True)
class FirstPage:
    """What a stream starts with: `items` as a message has them."""

    items: bytes
    badge: Badge


class Inboxes:
    """What a recipient sees of their own."""

    def __init__(self, store: InboxStore, checkpoints: Checkpoints, texts: Texts, walls: WorkStore) -> None:
        """`walls` knows of what this recipient may not see, too."""
        self._store = store
        self._checkpoints = checkpoints
        self._texts = texts
        self._walls = walls
        # A group of receipts is answered at once, each with its badge.
        self._counts: Group[tuple[int, Badge], Badge] = Group(self._count, _COUNTS_TOGETHER)

    async def list_items(
        self, recipient_number: int, wanted: Filter, page_size: int = 0, page_token: str = ""
    ) -> Listing:
        """A page of at most `page_size` items (0 for the usual size). Raises InvalidPageToken."""
        start = read_page_token(page_token, recipient_number, wanted) if page_token else None
        known = await self._checkpoints.find(recipient_number)
        size = min(page_size or PAGE_SIZE, LARGEST_PAGE)
        page = await self._store.list_items(recipient_number, wanted, start, size, known)
        self._checkpoints.note(recipient_number, page.badge, known)
        token = write_page_token(page.following, recipient_number, wanted) if page.following else ""
        return Listing(await self._texts.show(page.places), page.badge, page.total_count, token)

    async def list_first_pages(self, recipient_numbers: Sequence[int]) -> list[FirstPage]:
        """The first page of everything, of each of these people, in their order."""
        known = await self._checkpoints.find_all(recipient_numbers)
        pages = await self._store.list_first_pages(recipient_numbers, PAGE_SIZE, known)
        for number, page, earlier in zip(recipient_numbers, pages, known, strict=True):
            self._checkpoints.note(number, page.badge, earlier)
        return [FirstPage(await self._texts.show(page.places), page.badge) for page in pages]

    async def get_item(self, recipient_number: int, broadcast_id: UUID) -> Item:
        """An item. Raises NotFound when it is not in this inbox."""
        item = await self._store.get_item(recipient_number, broadcast_id)
        if item is None:
            raise await self.not_found(recipient_number, broadcast_id)
        return item

    async def not_found(self, recipient_number: int, broadcast_id: UUID) -> NotFound:
        """The error for what is not in this inbox, which knows whether a wall keeps it out."""
        is_behind = await self._walls.is_behind_wall(recipient_number, broadcast_id)
        return NotFound.or_not_yours() if is_behind else NotFound()

    async def count_unread(self, recipient_number: int) -> Badge:
        """The badge as of now."""
        known = await self._checkpoints.find(recipient_number)
        if known is None:
            # Takes much longer than the others, who would wait for it.
            badge = await self._store.count_items(recipient_number, None)
        else:
            badge = await self._counts.ask((recipient_number, known))
        self._checkpoints.note(recipient_number, badge, known)
        return badge

    async def _count(self, asked: Sequence[tuple[int, Badge]]) -> list[Badge]:
        numbers, known = zip(*asked, strict=True)
        return await self._store.count_items_of_many(numbers, known)
