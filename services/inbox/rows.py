"""Turns rows of the inbox's tables into its own values."""

from uuid import UUID

from services.inbox.domain import EVERYBODY, Action, Badge, Content, Item, Page, Place, Receipt, Wedding
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
    """What was done with an item."""
    return Receipt(
        broadcast_id, row["read_at"], row["acknowledged_at"], row["dismissed_at"], row["clicked_at"]
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


def page_of(row: Row, page_size: int) -> Page:
    """A page, of which one more was asked for than it shows."""
    places = _places_of(row)
    return Page(places[:page_size], badge_of(row), row["total_count"], len(places) > page_size)


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
    )
    return tuple(
        # Every action implies that it was read.
        Place(position, broadcast_id, at, silent, read_at and Receipt(broadcast_id, read_at, *others))
        for position, broadcast_id, at, silent, read_at, *others in zip(*columns, strict=True)
    )


def _wedding_of(row: Row) -> Wedding | None:
    if row["wedding_id"] is None:
        return None
    return Wedding(row["wedding_id"], row["couple_name"] or "", row["wedding_date"])
