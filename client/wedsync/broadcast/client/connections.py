"""Owns the connections to the servers of a suite: each is opened when it is first called, and kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from wedsync.broadcast.client.addresses import Addresses, Server
from wedsync.broadcast.client.errors import CLOSED, ConfigurationError
from wedsync.broadcast.client.retries import Retries
from wedsync.broadcast.client.security import Plaintext, Security, require_private

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    # gRPC's own waits, up to two minutes, would outlast any restart of a server.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(slots=True)
class Connections:
    """Channels by server; all keep to the same retries, and calls to the terms of the interceptors."""

    addresses: Addresses
    security: Security
    retries: Retries
    interceptors: Sequence[grpc.aio.ClientInterceptor]
    _channels: dict[Server, grpc.aio.Channel] = field(default_factory=dict)
    _is_closed: bool = False

    def channel(self, server: Server) -> grpc.aio.Channel:
        """The channel to a server. Raises ConfigurationError without an address, or a safe one, and after `close`."""
        if self._is_closed:
            raise ConfigurationError(CLOSED)
        if server not in self._channels:
            self._channels[server] = self._open(server)
        return self._channels[server]

    async def close(self, grace_s: float | None = None) -> None:
        """Ends them, and calls that still run after `grace_s` seconds; opens no others."""
        self._is_closed = True
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(grace_s)

    def _open(self, server: Server) -> grpc.aio.Channel:
        address = self.addresses.of(server)
        options = [("grpc.service_config", self.retries.service_config()), *_OPTIONS]
        if not isinstance(self.security, Plaintext):
            return grpc.aio.secure_channel(address, self.security, options, interceptors=self.interceptors)
        if not self.security.anywhere:
            require_private(server, address)
            # Whatever proxy the environment names, nothing of these calls leaves the machine.
            options.append(("grpc.enable_http_proxy", 0))
        return grpc.aio.insecure_channel(address, options, interceptors=self.interceptors)
