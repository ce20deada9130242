"""Owns the pages of an inbox: where one begins, what the next is called, and that together they have each item once."""

from dataclasses import dataclass

from services.inbox.domain import LAST_POSITION, POSITION_BYTES, Badge, Filter, Place
from shared import opaque


@dataclass(frozen=True, slots=True)
class PageStart:
    """Where a page begins: below a position, once all of `tops` are shown, of which earlier pages had `shown`.

    `tops` are the positions of what was pinned when the first page was given. They stay on top whatever is pinned or
    taken down meanwhile, so that the pages have each item once.
    """

    below: int
    tops: tuple[int, ...] = ()
    shown: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of one inbox, how many the filter has in all, and where the next page begins, None after the last."""

    places: tuple[Place, ...]
    badge: Badge
    total_count: int
    following: PageStart | None


def write_page_token(start: PageStart, recipient_number: int, wanted: Filter) -> str:
    """The name of a page, good for this recipient and filter only."""
    place = bytes([start.shown]) + b"".join(
        position.to_bytes(POSITION_BYTES) for position in (start.below, *start.tops)
    )
    return opaque.write_page_token(place, _query(recipient_number, wanted))


def read_page_token(token: str, recipient_number: int, wanted: Filter) -> PageStart:
    """Where the page begins that a token names. Raises InvalidPageToken for one that this query did not give."""
    place = opaque.read_page_token(token, _query(recipient_number, wanted))
    shown, raw = place[:1], place[1:]
    positions = [
        int.from_bytes(raw[start : start + POSITION_BYTES]) for start in range(0, len(raw), POSITION_BYTES)
    ]
    if not positions or len(raw) % POSITION_BYTES or max(positions) > LAST_POSITION:
        raise opaque.refused_page_token()
    return PageStart(positions[0], tuple(positions[1:]), shown[0])


def following(
    places: tuple[Place, ...], page_size: int, top_count: int, tops: tuple[int, ...], start: PageStart | None
) -> PageStart | None:
    """What follows a page, None after the last: `places` are one more than it shows, first `top_count` that are pinned.

    `tops` is what is pinned for all pages of this query, and `start` where this page began, None for the first.
    """
    if len(places) <= page_size:
        return None
    if top_count >= page_size:
        # The next may begin with others that are pinned, or right below the last of them.
        before = tops.index(places[page_size - 1].position) + 1
        return PageStart(LAST_POSITION if start is None else start.below, tops, before)
    return PageStart(places[page_size - 1].position, tops, len(tops))


def _query(recipient_number: int, wanted: Filter) -> bytes:
    return recipient_number.to_bytes(POSITION_BYTES) + wanted.fingerprint()
