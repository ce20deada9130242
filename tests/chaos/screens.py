"""Owns the run's open streams: WatchInbox one by one and ConnectInboxes for many, resumed from their cursors."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
from wedsync.broadcast.v1.inbox_pb2 import (
    ConnectInboxesRequest,
    ConnectInboxesResponse,
    InboxEvent,
    InboxSubscribe,
    WatchInboxRequest,
)

from tests.chaos.callers import RETRIED, Callers
from tests.chaos.truth import Truth

_PAUSE_S: Final = 0.1
_ENDS: Final = RETRIED | {grpc.StatusCode.CANCELLED}


@dataclass(slots=True)
class Shown:
    """What one person saw on one stream, over all its resumptions."""

    label: str
    number: int
    cursor: str = ""
    snapshots: int = 0
    added: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    retracted: Counter[str] = field(default_factory=Counter)

    def take(self, event: InboxEvent) -> None:
        """One more event."""
        self.cursor = event.cursor or self.cursor
        match event.WhichOneof("change"):
            case "snapshot":
                self.snapshots += 1
                self.added.update(item.broadcast_id for item in event.snapshot.items)
            case "added":
                self.added[event.added.item.broadcast_id] += 1
            case "alert":
                self.alerts[event.alert.item.broadcast_id] += 1
            case "retracted":
                self.retracted.update(event.retracted.broadcast_ids)
            case _:
                pass


class Screens:
    """Everybody who watches."""

    def __init__(self, callers: Callers, truth: Truth, alone: Sequence[int], together: Sequence[int]) -> None:
        self._callers = callers
        self._truth = truth
        self.alone = [Shown(f"watch {number}", number) for number in alone]
        self.together = [Shown(f"connect {number}", number) for number in together]
        self.resumed = 0
        self.failures: list[str] = []
        self.broken_off: list[str] = []
        """Why nobody watches any more, when that is so."""

    @property
    def all(self) -> list[Shown]:
        """What everybody saw."""
        return [*self.alone, *self.together]

    async def follow(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as watching:
                for shown in self.alone:
                    watching.create_task(self._watch(shown))
                watching.create_task(self._connect())
        except Exception as error:  # noqa: BLE001  # whatever a broken build has shown, the others' findings count too
            self.broken_off.append(f"watching broke off: {error!r}")

    async def until_open(self) -> None:
        """Return when each has been shown the beginning."""
        while not all(shown.snapshots for shown in self.all):
            await asyncio.sleep(_PAUSE_S)

    async def _watch(self, shown: Shown) -> None:
        metadata = self._callers.person(self._truth.user_ids[shown.number])
        while True:
            try:
                async for answer in self._callers.inbox.WatchInbox(
                    WatchInboxRequest(cursor=shown.cursor), metadata=metadata
                ):
                    shown.take(answer.event)
            except grpc.aio.AioRpcError as error:
                self._note_end(shown.label, error)
            await asyncio.sleep(_PAUSE_S)

    async def _connect(self) -> None:
        while True:
            try:
                await self._connect_once()
            except grpc.aio.AioRpcError as error:
                self._note_end("connect", error)
            except asyncio.InvalidStateError:
                self.resumed += 1  # written to just after it had ended
            await asyncio.sleep(_PAUSE_S)

    async def _connect_once(self) -> None:
        by_handle = {shown.number: shown for shown in self.together}
        call = self._callers.inbox.ConnectInboxes(metadata=self._callers.service("inbox.connect"))
        try:
            for shown in self.together:
                token = self._callers.token(self._truth.user_ids[shown.number])
                subscribe = InboxSubscribe(handle=shown.number, user_token=token, cursor=shown.cursor)
                await call.write(ConnectInboxesRequest(subscribe=subscribe))
            while isinstance(answer := await call.read(), ConnectInboxesResponse):  # EOF is none
                if answer.HasField("ended"):
                    # Somebody who could not be looked up in an outage: all of them go on from their cursors.
                    self.failures.append(f"connect ended: {answer.ended.reason}")
                    return
                for handle in answer.handles if answer.HasField("event") else ():
                    by_handle[handle].take(answer.event)
        finally:
            call.cancel()

    def _note_end(self, label: str, error: grpc.aio.AioRpcError) -> None:
        self.resumed += 1
        if error.code() not in _ENDS:
            self.failures.append(f"{label}: {error.code().name} {error.details()}")
