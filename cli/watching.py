"""Watches a broadcast go out, and tells when it had to begin again because a sender was replaced."""

from contextlib import aclosing
from typing import Annotated, Final

import typer
from wedsync.broadcast.client import BroadcastError
from wedsync.broadcast.v1.common_pb2 import BroadcastState
from wedsync.broadcast.v1.sender_pb2 import WatchBroadcastResponse

from cli import output
from cli.connection import Connection, run

_UNDER_WAY: Final = (
    BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL,
    BroadcastState.BROADCAST_STATE_PENDING,
    BroadcastState.BROADCAST_STATE_DISPATCHING,
)
_PATIENCE_S: Final = 30.0


def watch(
    context: typer.Context,
    broadcast_id: Annotated[str, typer.Argument(help="The broadcast's id.")],
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="Go on until what is held for quiet hours is released, too.")
    ] = False,
) -> None:
    """Watch a broadcast go out until its state is final; goes on by itself after an interruption."""
    run(context.obj, lambda connection: follow(connection, broadcast_id, to_the_end=to_the_end))


async def follow(
    connection: Connection, broadcast_id: str, *, to_the_end: bool = False, is_known: bool = False
) -> None:
    """Print its progress. One that `is_known` was there a moment ago: a sender that is away now will be back."""
    await _Watcher(connection, is_known).watch(broadcast_id, to_the_end)


class _Watcher:
    """What was told of one broadcast, and whether it is worth waiting for."""

    def __init__(self, connection: Connection, is_known: bool) -> None:
        self._connection = connection
        self._is_known = is_known
        self._is_interrupted = False

    async def watch(self, broadcast_id: str, to_the_end: bool) -> None:
        """Until it is over. Raises BroadcastError when it is not there, or the sender stays away."""
        stream = self._connection.client.watch(
            broadcast_id, patience_s=_PATIENCE_S, on_interruption=self._interrupted
        )
        async with aclosing(stream):
            async for progress in stream:
                self._is_known, self._is_interrupted = True, False
                self._tell(progress)
                if progress.state not in _UNDER_WAY and not to_the_end:
                    return

    def _interrupted(self, error: BroadcastError) -> None:
        if not self._is_known:
            raise error
        if not self._is_interrupted:
            output.errors.print("The stream was interrupted; watching again.", style="dim")
        self._is_interrupted = True

    def _tell(self, progress: WatchBroadcastResponse) -> None:
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
