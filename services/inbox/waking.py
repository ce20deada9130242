"""Owns telling the nodes that the log has grown: this one directly, the others over core NATS, where it may be lost."""

import asyncio

from nats.aio.msg import Msg
from wedsync.broadcast.v1.events_pb2 import LiveWake

from shared import subjects
from shared.failpoints import declare, failpoint
from shared.messaging import Messaging, Subscription

(BEFORE_WAKE,) = declare("inbox.wake.before")


class Waking:
    """`wake` is for the one reader of the log on this node."""

    def __init__(self, messaging: Messaging) -> None:
        self._messaging = messaging
        self.wake = asyncio.Event()
        self._position = 0

    async def listen(self) -> Subscription:
        """Hear the other nodes from now on."""
        return await self._messaging.subscribe(subjects.LIVE_INBOX, self._receive)

    def note_read(self, position: int) -> None:
        """The log was read up to here: what tells of no more than that is no news."""
        self._position = position

    async def announce(self, position: int = 0) -> None:
        """The log has grown to this position, or to one that is not known."""
        self.wake.set()
        if await failpoint(BEFORE_WAKE):
            return
        await self._messaging.hint(subjects.LIVE_INBOX, LiveWake(position=position).SerializeToString())

    async def _receive(self, message: Msg) -> None:
        position = LiveWake.FromString(message.data).position
        if position == 0 or position > self._position:
            self.wake.set()
