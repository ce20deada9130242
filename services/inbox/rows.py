"""Turns rows of the inbox's tables into its own values."""

from uuid import UUID

from services.inbox.domain import EVERYBODY, Action, Badge, Content, Item, Place, Receipt, Wedding
from services.inbox.paging import Page, PageStart, following
from shared.database import Row


def content_of(row: Row) -> Content:
    """What a broadcast says."""
    return Content(
        broadcast_id=row["broadcast_id"],
        type=row["type"],
        category=row["category"],
        priority=row["priority"],
        title=row["title"],
        message=row["message"],
        action=Action(row["action_label"], row["action_url"]) if row["action_label"] is not None else None,
        wedding=_wedding_of(row),
        wall=tuple(wedding_id for wedding_id in row["wall"] if wedding_id != EVERYBODY),
        expires_at=row["expires_at"],
    )


def item_of(row: Row) -> Item:
    """A broadcast in an inbox."""
    return Item(
        position=row["position"],
        content=content_of(row),
        delivered_at=row["arrived_at"],
        silent=row["silent"],
        receipt=receipt_of(row["broadcast_id"], row),
    )


def receipt_of(broadcast_id: UUID, row: Row) -> Receipt:
    """What was done with an item, and where it is kept."""
    return Receipt(
        broadcast_id,
        row["read_at"],
        row["acknowledged_at"],
        row["dismissed_at"],
        row["clicked_at"],
        row["snoozed_until"],
        row["pinned_at"],
    )


def badge_of(row: Row) -> Badge:
    """A count of what somebody has."""
    return Badge(
        row["unread_count"],
        row["all_count"],
        row["log_position"],
        row["valid_until"],
        row["reads"],
        row["dismissals"],
    )


def page_of(row: Row, page_size: int, start: PageStart | None = None) -> Page:
    """A page, of which one more was asked for than it shows; `start` is where it began, None for the first."""
    places = _places_of(row)
    after = following(places, page_size, row["top_count"], tuple(row["tops_given"]), start)
    return Page(places[:page_size], badge_of(row), row["total_count"], after)


def _places_of(row: Row) -> tuple[Place, ...]:
    """The places of a page, which come as arrays: null when there is none."""
    if row["positions"] is None:
        return ()
    columns = (
        row["positions"],
        row["broadcast_ids"],
        row["arrived_at"],
        row["silent"],
        row["read_at"],
        row["acknowledged_at"],
        row["dismissed_at"],
        row["clicked_at"],
        row["snoozed_until"],
        row["pinned_at"],
    )
    return tuple(
        # Every action implies that it was read, but not that it is kept somewhere.
        Place(position, broadcast_id, at, silent, Receipt(broadcast_id, *known) if any(known) else None)
        for position, broadcast_id, at, silent, *known in zip(*columns, strict=True)
    )


def _wedding_of(row: Row) -> Wedding | None:
    if row["wedding_id"] is None:
        return None
    return Wedding(row["wedding_id"], row["couple_name"] or "", row["wedding_date"])
