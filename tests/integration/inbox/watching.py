"""Clients of live streams for tests: they keep what they hear, and a test asks until it is what must come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from wedsync.broadcast.v1 import inbox_pb2

from shared.errors import ServiceError
from tests.integration.inbox.site import Metadata, Person, Site, error_of
from tests.integration.shared.polling import until


class Watcher:
    """One person's stream."""

    def __init__(self, site: Site, metadata: Metadata, cursor: str = "") -> None:
        self.events: list[inbox_pb2.InboxEvent] = []
        self.error: ServiceError | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self._call = site.stub.WatchInbox(inbox_pb2.WatchInboxRequest(cursor=cursor), metadata=metadata)
        self._task = asyncio.create_task(self._listen())

    async def next(self, kind: str) -> Any:  # noqa: ANN401 one of the kinds of change
        """The next event that is no heartbeat, which must be of this kind."""
        await until(lambda: bool(self._heard()))
        event = self._heard()[0]
        assert event.WhichOneof("change") == kind, event
        self.events = self.events[self.events.index(event) + 1 :]
        self.cursor = event.cursor
        return getattr(event, kind)

    async def ended(self) -> ServiceError:
        """The error that the stream ended with, once it has."""
        await until(lambda: self.error is not None)
        assert self.error is not None
        return self.error

    def nothing(self) -> bool:
        """Whether nothing was heard that was not asked for."""
        return not self._heard()

    async def stop(self) -> None:
        self.reading.set()
        self._call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _heard(self) -> list[inbox_pb2.InboxEvent]:
        return [event for event in self.events if event.WhichOneof("change") != "heartbeat"]

    async def _listen(self) -> None:
        try:
            async for response in self._call:
                self.events.append(response.event)
                await self.reading.wait()
        except grpc.aio.AioRpcError as error:
            self.error = error_of(error)


@asynccontextmanager
async def watching(site: Site, person: Person, cursor: str = "") -> AsyncIterator[Watcher]:
    """A stream for the time of the block."""
    watcher = Watcher(site, person.metadata, cursor)
    try:
        yield watcher
    finally:
        await watcher.stop()


class Connection:
    """A stream that carries many people."""

    def __init__(self, site: Site, metadata: Metadata) -> None:
        self.responses: list[inbox_pb2.ConnectInboxesResponse] = []
        self.error: ServiceError | None = None
        self._call = site.stub.ConnectInboxes(metadata=metadata)
        self._task = asyncio.create_task(self._listen())

    async def subscribe(self, handle: int, token: str, **fields: Any) -> None:  # noqa: ANN401 fields of the contract
        await self._call.write(
            inbox_pb2.ConnectInboxesRequest(
                subscribe=inbox_pb2.InboxSubscribe(handle=handle, user_token=token, **fields)
            )
        )

    async def unsubscribe(self, handle: int) -> None:
        request = inbox_pb2.InboxUnsubscribe(handle=handle)
        await self._call.write(inbox_pb2.ConnectInboxesRequest(unsubscribe=request))

    async def next(self, handle: int, kind: str) -> Any:  # noqa: ANN401 one of the kinds of change
        """The next that this handle heard, which must be of this kind."""
        await until(lambda: bool(self.heard(handle)))
        response, change = self.heard(handle)[0]
        response.handles.remove(handle)
        assert change == kind, response
        return getattr(response if change in ("subscribed", "ended") else response.event, kind)

    def heard(self, handle: int) -> list[tuple[inbox_pb2.ConnectInboxesResponse, str]]:
        """What this handle has heard and nobody has asked for, but for heartbeats."""
        found = [(each, _kind(each)) for each in self.responses if handle in each.handles]
        return [(response, kind) for response, kind in found if kind != "heartbeat"]

    async def ended(self) -> ServiceError:
        """The error that the stream ended with, once it has."""
        await until(lambda: self.error is not None)
        assert self.error is not None
        return self.error

    async def stop(self) -> None:
        self._call.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            async for response in self._call:
                self.responses.append(response)
        except grpc.aio.AioRpcError as error:
            self.error = error_of(error)


@asynccontextmanager
async def connecting(site: Site) -> AsyncIterator[Connection]:
    """A stream for the time of the block."""
    connection = Connection(site, site.service("inbox.connect", name="bff"))
    try:
        yield connection
    finally:
        await connection.stop()


def _kind(response: inbox_pb2.ConnectInboxesResponse) -> str:
    change = str(response.WhichOneof("change"))
    return str(response.event.WhichOneof("change")) if change == "event" else change
