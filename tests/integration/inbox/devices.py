"""Devices of people for tests: each keeps its badge and what it shows by its stream alone, as an app does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from wedsync.broadcast.v1 import inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from tests.integration.inbox.site import Metadata


@dataclass(slots=True)
class Device:
    """One screen: the badge on it, and the items that it shows, after the events that have come."""

    stub: InboxServiceStub
    metadata: Metadata
    cursor: str = ""
    badge: int = 0
    shown: set[str] = field(default_factory=set)

    async def watch(self) -> None:
        """Follow the inbox until cancelled, from the cursor on."""
        request = inbox_pb2.WatchInboxRequest(cursor=self.cursor)
        async for response in self.stub.WatchInbox(request, metadata=self.metadata):
            self.take(response.event)

    def take(self, event: inbox_pb2.InboxEvent) -> None:
        """Draw one more event."""
        match event.WhichOneof("change"):
            case "snapshot":
                self.shown = {item.broadcast_id for item in event.snapshot.items}
                self.badge = event.snapshot.unread_count
            case "added":
                self.shown.add(event.added.item.broadcast_id)
                self.badge += 1
            case "updated":
                self._update(event.updated)
            case "retracted":
                self.shown.difference_update(event.retracted.broadcast_ids)
            case "unread_count":
                self.badge = event.unread_count.unread_count
            case _:
                pass
        self.cursor = event.cursor

    def _update(self, updated: inbox_pb2.ItemsUpdated) -> None:
        self.shown.update(item.broadcast_id for item in updated.items)
        for receipt in updated.receipts:
            if receipt.HasField("dismissed_at") or receipt.HasField("snoozed_until"):
                self.shown.discard(receipt.broadcast_id)
            else:
                self.shown.add(receipt.broadcast_id)


@asynccontextmanager
async def second_stub(address: str) -> AsyncIterator[InboxServiceStub]:
    """Calls to another node."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield InboxServiceStub(channel)
