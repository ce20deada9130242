"""Owns what broadcasts say as items show it: read once and serialised once, because it is the same in every inbox."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from services.inbox.domain import Content, Place
from services.inbox.messages import as_first_field, content_message, place_message
from services.inbox.work_store import WorkStore

_KEPT: Final = 8_192


@dataclass(frozen=True, slots=True)
class _Text:
    """A broadcast's part of an item, and its whole items with which nobody has done anything yet, by arrival."""

    content: bytes
    untouched: dict[tuple[datetime, bool], bytes] = field(default_factory=dict)

    def item(self, place: Place) -> bytes:
        """The item at a place, as the first field of what it is shown in."""
        if place.receipt is not None:
            return self._item(place)
        arrival = place.delivered_at, place.silent
        item = self.untouched.get(arrival)
        if item is None:
            item = self.untouched[arrival] = self._item(place)
        return item

    def _item(self, place: Place) -> bytes:
        own = place_message(place.delivered_at, place.silent, place.receipt)
        return as_first_field(self.content + own.SerializeToString())


class Texts:
    """The texts that were shown last. What a broadcast says stays the same until `forget`."""

    def __init__(self, store: WorkStore, kept: int = _KEPT) -> None:
        self._store = store
        self._kept = kept
        self._texts: dict[UUID, _Text] = {}

    async def show(self, places: Sequence[Place]) -> bytes:
        """The items at some places, one after the other: `items`, the first field of a page and of a snapshot.

        Whoever asks has looked whether these are to be seen.
        """
        found = {each.broadcast_id: self._texts.get(each.broadcast_id) for each in places}
        missing = [broadcast_id for broadcast_id, text in found.items() if text is None]
        if missing:
            found |= self._keep(await self._store.find_contents(missing))
        return b"".join(
            text.item(place) for place in places if (text := found[place.broadcast_id]) is not None
        )

    def forget(self, broadcast_id: UUID) -> None:
        """A broadcast says something else by now."""
        self._texts.pop(broadcast_id, None)

    def _keep(self, contents: Iterable[Content]) -> dict[UUID, _Text]:
        texts = {each.broadcast_id: _Text(content_message(each).SerializeToString()) for each in contents}
        self._texts |= texts
        while len(self._texts) > self._kept:
            del self._texts[next(iter(self._texts))]
        return texts
