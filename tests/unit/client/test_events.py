"""What a watched inbox says, by its class."""

from wedsync.broadcast.client import Updated
from wedsync.broadcast.client.events import event_of
from wedsync.broadcast.v1.inbox_pb2 import InboxEvent, InboxItem, ItemsUpdated, Receipt


def test_an_update_has_what_changed_and_what_is_back() -> None:
    """Receipts by their items, and the items whose snooze has ended."""
    receipt, item = Receipt(broadcast_id="a"), InboxItem(broadcast_id="a", title="Cake tasting")
    told = InboxEvent(cursor="7", updated=ItemsUpdated(receipts=[receipt], items=[item]))
    assert event_of(told) == Updated("7", (receipt,), None, (item,))
