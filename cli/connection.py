"""Opens channels to the services for the length of one command, and turns what goes wrong into a Failure."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import grpc
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from cli.exits import ExitCode, Failure, failure_of
from cli.settings import Settings
from shared.channels import service_config

CALL_TIMEOUT_S = 30.0
# Whatever changes something has a request_id, so a call whose answer was lost may be made again, the same as it was.
_OPTIONS = [
    (
        "grpc.service_config",
        service_config(
            f"wedsync.broadcast.v1.{name}Service" for name in ("Sender", "Inbox", "Preferences", "Directory")
        ),
    )
]
Metadata = tuple[tuple[str, str], ...]
T = TypeVar("T")


class Connection:
    """The stubs of all services, each opened when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    @property
    def json(self) -> bool:
        """Whether answers are for a script."""
        return self._settings.json

    def metadata(self, token: str | None = None) -> Metadata:
        """What a call says about its caller; `token` stands in for the configured one."""
        return (("authorization", f"Bearer {token or self._settings.bearer()}"),)

    @property
    def sender(self) -> SenderServiceStub:
        return SenderServiceStub(self._channel("sender"))

    @property
    def inbox(self) -> InboxServiceStub:
        return InboxServiceStub(self._channel("inbox"))

    @property
    def preferences(self) -> PreferencesServiceStub:
        return PreferencesServiceStub(self._channel("preferences"))

    @property
    def directory(self) -> DirectoryServiceStub:
        return DirectoryServiceStub(self._channel("preferences"))

    def _channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            self._channels[service] = self._open(service)
        return self._channels[service]

    def _open(self, service: str) -> grpc.aio.Channel:
        address = str(self._settings.address(service))
        credentials = self._settings.channel_credentials(service)
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)


def run(settings: Settings, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Runs one command's calls; raises Failure for a refused call or an interrupt."""

    async def session() -> T:
        async with Connection(settings) as connection:
            return await work(connection)

    try:
        return asyncio.run(session())
    except grpc.aio.AioRpcError as error:
        raise failure_of(error) from error
    except KeyboardInterrupt as error:
        raise Failure("Interrupted.", ExitCode.INTERRUPTED) from error
