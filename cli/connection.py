"""Calls the services for the length of one command, and turns what goes wrong into a Failure."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

from google.protobuf.message import Message
from wedsync.broadcast.client import BroadcastClient, BroadcastError, ConfigurationError, Retries
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from cli import output
from cli.exits import ExitCode, Failure, failure_of
from cli.settings import Settings

_DEADLINE_S = 30.0
Metadata = tuple[tuple[str, str], ...]
Answer = TypeVar("Answer", bound=Message)


class Connection:
    """The stubs of all services, each connected when it is first called."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Somebody waits at a terminal: they would rather be told that nobody is there.
        self.client = BroadcastClient(
            settings.addresses(),
            token=self._token,
            security=settings.security(),
            deadline_s=_DEADLINE_S,
            retries=Retries.BRISK,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    @property
    def json(self) -> bool:
        """Whether answers are for a script."""
        return self._settings.json

    def metadata(self, token: str) -> Metadata:
        """What a call says whose caller is not the configured one."""
        return (("authorization", f"Bearer {token}"),)

    @property
    def sender(self) -> SenderServiceStub:
        return self.client.sender

    @property
    def inbox(self) -> InboxServiceStub:
        return self.client.inboxes

    @property
    def preferences(self) -> PreferencesServiceStub:
        return self.client.preferences

    @property
    def directory(self) -> DirectoryServiceStub:
        return self.client.directory

    async def _token(self) -> str:
        return self._settings.bearer()


def ask(
    settings: Settings,
    work: Callable[[Connection], Awaitable[Answer]],
    show: Callable[[Answer], None],
    judge: Callable[[Answer], None] | None = None,
) -> None:
    """Runs one command's calls and tells their answer: as JSON to a script, else as `show` has it.

    `judge` raises Failure for an answer with which the command has not done what it was asked, listened to or not.
    Raises Failure as `run` does.
    """

    async def told(connection: Connection) -> None:
        answer = await work(connection)
        try:
            output.print_json(answer) if settings.json else show(answer)
        finally:
            if judge is not None:
                judge(answer)

    run(settings, told)


def run(settings: Settings, work: Callable[[Connection], Awaitable[None]]) -> None:
    """Runs one command's calls; raises Failure for a refused call or an interrupt.

    It hands on nothing: what is to be said, `work` says, because what gRPC does once its channels are closed must cost
    nobody the answer to what has been done.
    """

    async def session() -> None:
        async with Connection(settings) as connection:
            await work(connection)

    try:
        asyncio.run(session())
    except BroadcastError as error:
        raise failure_of(error) from error
    except ConfigurationError as error:
        raise Failure(
            f"{error} Start the suite with `make run` in this folder, or export it.", ExitCode.USAGE
        ) from error
    except KeyboardInterrupt as error:
        raise Failure("Interrupted.", ExitCode.INTERRUPTED) from error
