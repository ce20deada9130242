"""Owns what the preferences service calls: the services beside it, each of which may be away."""

import asyncio
from dataclasses import dataclass
from typing import Self

from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.preferences.auditing import RECORD
from services.preferences.config import Settings
from services.preferences.segment_calls import USES
from shared.channels import ServiceChannel, open_channel
from shared.health import Dependency, check_serving


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Channels that connect at their first call."""

    inbox_channel: ServiceChannel
    sender_channel: ServiceChannel
    dispatcher_channel: ServiceChannel

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Where the settings say."""
        transport, token = settings.server.transport, settings.token
        return cls(
            open_channel("inbox", settings.inbox, transport, token),
            open_channel("sender", settings.sender, transport, token, retried=[RECORD, USES]),
            open_channel("dispatcher", settings.dispatcher, transport, token),
        )

    @property
    def inbox(self) -> InboxServiceStub:
        """The inbox's methods."""
        return InboxServiceStub(self.inbox_channel)

    @property
    def sender(self) -> SenderServiceStub:
        """The sender's methods."""
        return SenderServiceStub(self.sender_channel)

    @property
    def dispatcher(self) -> DispatcherServiceStub:
        """The dispatcher's methods."""
        return DispatcherServiceStub(self.dispatcher_channel)

    def dependencies(self) -> list[Dependency]:
        """What health tells of them. What they are to be told is kept until they can be reached."""
        return [
            Dependency("inbox", lambda: check_serving(self.inbox_channel), required=False),
            Dependency("sender", lambda: check_serving(self.sender_channel), required=False),
            Dependency("dispatcher", lambda: check_serving(self.dispatcher_channel), required=False),
        ]

    async def close(self) -> None:
        """End every connection."""
        await asyncio.gather(
            self.inbox_channel.close(), self.sender_channel.close(), self.dispatcher_channel.close()
        )
