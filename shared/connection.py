"""Owns what a channel calls by: one connection, and another in its place when the certificates have been renewed."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

import grpc

from shared.tls import Renewal, Transport

_LOOK_S: Final = 1.0
# How long calls that are under way have on the connection that they began on.
_GRACE_S: Final = 60.0


class Connection:
    """The channel of gRPC by which calls begin now; they end on the one that they began on."""

    def __init__(self, transport: Transport, connect: Callable[[], grpc.aio.Channel]) -> None:
        """`connect` opens a channel by the files of `transport`, and is called again when they have been renewed."""
        self._connect = connect
        self._renewal = Renewal(transport) if transport.is_protected else None
        self._next_look = monotonic() + _LOOK_S
        self._present = connect()
        self._leaving: set[asyncio.Task[None]] = set()

    def current(self) -> grpc.aio.Channel:
        """The channel to call by; certificates are looked at once in a second."""
        if self._renewal is not None and monotonic() >= self._next_look:
            self._next_look = monotonic() + _LOOK_S
            if self._renewal.has_come():
                self._renew()
        return self._present

    def _renew(self) -> None:
        leaving = asyncio.create_task(self._present.close(_GRACE_S), name="connection-leaving")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self._present = self._connect()

    async def close(self, grace: float | None = None) -> None:
        """Ends calls that still run after `grace` seconds, and every connection."""
        for leaving in self._leaving:
            leaving.cancel()
        await self._present.close(grace)
