"""Where the servers of a suite are called."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, Self, TypeAlias, get_args

from wedsync.broadcast.client.errors import ConfigurationError

Server: TypeAlias = Literal["sender", "inbox", "preferences", "dispatcher"]
"""What can be called, by its name."""
_SERVERS: Final[tuple[str, ...]] = get_args(Server)


@dataclass(frozen=True, slots=True)
class Addresses:
    """`host:port` of each server, or another target of gRPC's; only those that are called need one."""

    sender: str = ""
    inbox: str = ""
    preferences: str = ""
    dispatcher: str = ""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """Reads SENDER_ADDR, INBOX_ADDR, PREFERENCES_ADDR and DISPATCHER_ADDR."""
        return cls(**{each.name: variables.get(_variable(each.name), "").strip() for each in fields(cls)})

    def of(self, server: Server) -> str:
        """The address of a server. Raises ConfigurationError when it was not given, or there is no such server."""
        if server not in _SERVERS:
            raise ConfigurationError(f"There is no server {server!r}: it is one of {', '.join(_SERVERS)}.")
        address: str = getattr(self, server)
        if not address:
            raise ConfigurationError(
                f"{_variable(server)} is not set: nothing says where the {server} is called."
            )
        return address


def _variable(server: str) -> str:
    return f"{server.upper()}_ADDR"
