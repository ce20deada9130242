"""Watches a broadcast go out, on one stream after the other when a sender is replaced meanwhile."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Final

import grpc
import typer
from wedsync.broadcast.v1.common_pb2 import BroadcastState
from wedsync.broadcast.v1.sender_pb2 import WatchBroadcastRequest, WatchBroadcastResponse

from cli import output
from cli.connection import Connection, run
from cli.settings import Settings
from shared.backoff import backoff_s

_UNDER_WAY: Final = (
    BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL,
    BroadcastState.BROADCAST_STATE_PENDING,
    BroadcastState.BROADCAST_STATE_DISPATCHING,
)
_PAUSE_FIRST_S: Final = 0.2
_PAUSE_CEILING_S: Final = 5.0
# With those pauses, somewhat more than half a minute without a word.
_MOST_FAILURES: Final = 12


def watch(
    context: typer.Context,
    broadcast_id: Annotated[str, typer.Argument(help="The broadcast's id.")],
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="Go on until what is held for quiet hours is released, too.")
    ] = False,
) -> None:
    """Watch a broadcast go out until its state is final; goes on by itself after an interruption."""
    settings: Settings = context.obj
    follow(settings, broadcast_id, to_the_end=to_the_end)


def follow(
    settings: Settings, broadcast_id: str, *, to_the_end: bool = False, is_known: bool = False
) -> None:
    """Print its progress. One that `is_known` was there a moment ago: a sender that is away now will be back."""

    def work(connection: Connection) -> Awaitable[None]:
        return _Watcher(connection, broadcast_id, to_the_end).watch(is_known)

    run(settings, work)


class _Watcher:
    """What was told of one broadcast."""

    def __init__(self, connection: Connection, broadcast_id: str, to_the_end: bool) -> None:
        self._connection = connection
        self._broadcast_id = broadcast_id
        self._to_the_end = to_the_end
        self._told: WatchBroadcastResponse | None = None
        self._failures = 0

    async def watch(self, is_known: bool) -> None:
        """Until it is over. Raises grpc.aio.AioRpcError when it is not there, or the sender stays away."""
        while True:
            try:
                return await self._stream()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or not self._is_patient(is_known):
                    raise
            if not self._failures:
                output.errors.print("The stream was interrupted; watching again.", style="dim")
            self._failures += 1
            await asyncio.sleep(backoff_s(self._failures, _PAUSE_FIRST_S, _PAUSE_CEILING_S))

    def _is_patient(self, is_known: bool) -> bool:
        return (is_known or self._told is not None) and self._failures < _MOST_FAILURES

    async def _stream(self) -> None:
        """Tell what one stream says until that is over."""
        call = self._connection.sender.WatchBroadcast(
            WatchBroadcastRequest(broadcast_id=self._broadcast_id), metadata=self._connection.metadata()
        )
        async for progress in call:
            self._failures = 0
            self._tell(progress)
            if progress.state not in _UNDER_WAY and not self._to_the_end:
                return

    def _tell(self, progress: WatchBroadcastResponse) -> None:
        before, self._told = self._told, progress
        # A stream begins with what the one before may have said already.
        if before is not None and (before.state, before.stats) == (progress.state, progress.stats):
            return
        if self._connection.json:
            output.print_json(progress)
        elif progress.state == BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL:
            _line(progress, "waits for another admin")
        else:
            _line(progress, _counts(progress))


def _line(progress: WatchBroadcastResponse, what: str) -> None:
    output.console.print(f"{output.moment(progress.time)}  {output.state(progress.state):<12} {what}")


def _counts(progress: WatchBroadcastResponse) -> str:
    stats = progress.stats
    return (
        f"{stats.engagement.delivered:>9,} of {stats.targeted:,} delivered, {stats.engagement.read:,} read, "
        f"{progress.unacknowledged:,} not acknowledged, {progress.deliveries_per_second:,.0f}/s"
    )
