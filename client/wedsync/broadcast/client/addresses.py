"""Where the servers of a suite are called."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from wedsync.broadcast.client.errors import ConfigurationError


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

    def of(self, server: str) -> str:
        """The address of a server such as "sender". Raises ConfigurationError when it was not given."""
        address: str = getattr(self, server)
        if not address:
            raise ConfigurationError(
                f"{_variable(server)} is not set: nothing says where the {server} is called."
            )
        return address


def _variable(server: str) -> str:
    return f"{server.upper()}_ADDR"
