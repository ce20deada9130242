"""Owns what is answered from memory: badges and first pages to which, as the log shows, nothing has happened since."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.inbox.checkpoints import Checkpoints
from services.inbox.domain import Filter
from services.inbox.groups import Group
from services.inbox.inboxes import Inboxes, Listing
from services.inbox.live import Tail
from shared.clock import Clock
from shared.ordered_log import OrderedLog

_LARGEST_GROUP: Final = 1_024
_KEPT_BYTES: Final = 24 << 20
_UNFILTERED: Final = Filter()
# Only the database's clock says when something expires; ours will not be wrong by more than this.
_DOUBT: Final = timedelta(minutes=1)


@dataclass(slots=True)
class _FirstPage:
    """A first page of `page_size`, to which nothing has happened up to a position."""

    page_size: int
    listing: Listing
    position: int


class Memory:
    """Everybody's badge and first page, as of what was committed when they were asked for.

    Whoever asks while the end of the log is being looked up waits for the next look-up, which all of them share.
    """

    def __init__(
        self, inboxes: Inboxes, checkpoints: Checkpoints, tail: Tail, ordered_log: OrderedLog, clock: Clock
    ) -> None:
        self._inboxes = inboxes
        self._checkpoints = checkpoints
        self._tail = tail
        self._log = ordered_log
        self._clock = clock
        self._heads: Group[None, int] = Group(self._find_head, _LARGEST_GROUP)
        self._pages: OrderedDict[int, _FirstPage] = OrderedDict()
        self._pages_bytes = 0

    async def count_unread(self, recipient_number: int) -> int:
        """How much is unread."""
        known = self._checkpoints.here(recipient_number)
        if known is not None and self._holds(known.valid_until):
            head = await self._heads.ask(None)
            if self._tail.was_quiet_for(recipient_number, known.position, head):
                if head > known.position:
                    self._checkpoints.note(recipient_number, replace(known, position=head), known)
                return known.unread_count
        return (await self._inboxes.count_unread(recipient_number)).unread_count

    async def list_items(
        self, recipient_number: int, wanted: Filter, page_size: int, page_token: str
    ) -> Listing:
        """A page, as `Inboxes` gives it. Raises InvalidPageToken."""
        if page_token or wanted != _UNFILTERED:
            return await self._inboxes.list_items(recipient_number, wanted, page_size, page_token)
        page = self._pages.get(recipient_number)
        if page is not None and page.page_size == page_size and self._holds(page.listing.badge.valid_until):
            head = await self._heads.ask(None)
            if self._tail.was_quiet_for(recipient_number, page.position, head):
                page.position = max(page.position, head)
                self._pages.move_to_end(recipient_number)
                return page.listing
        listing = await self._inboxes.list_items(recipient_number, wanted, page_size)
        self._keep(recipient_number, _FirstPage(page_size, listing, listing.badge.position))
        return listing

    def forget(self, recipient_number: int) -> None:
        """Keep nothing of what they were shown."""
        page = self._pages.pop(recipient_number, None)
        if page is not None:
            self._pages_bytes -= len(page.listing.items)

    def _keep(self, recipient_number: int, page: _FirstPage) -> None:
        """Remember a page; those that were read longest ago make room for it."""
        previous = self._pages.pop(recipient_number, None)
        self._pages[recipient_number] = page
        self._pages_bytes += len(page.listing.items) - (len(previous.listing.items) if previous else 0)
        while self._pages_bytes > _KEPT_BYTES:
            _, oldest = self._pages.popitem(last=False)
            self._pages_bytes -= len(oldest.listing.items)

    def _holds(self, valid_until: datetime | None) -> bool:
        return valid_until is None or self._clock.now() + _DOUBT < valid_until

    async def _find_head(self, asked: Sequence[None]) -> list[int]:
        return [await self._log.head()] * len(asked)
