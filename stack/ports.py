"""Chooses the loopback ports of the stack."""

import os
import secrets
import socket
from pathlib import Path

from stack.errors import PortInUseError, StackError

LOOPBACK = "127.0.0.1"
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def choose(name: str) -> int:
    """A free port, or the one that STACK_<NAME>_PORT fixes, which must be free."""
    variable = f"STACK_{name.upper()}_PORT"
    fixed = os.environ.get(variable)
    if not fixed:
        return _free_port()
    if not fixed.isdecimal() or not 0 < int(fixed) < 65_536:
        raise StackError(f"{variable}={fixed} is not a port.", f"Set {variable} to a number from 1 to 65535.")
    if not is_free(int(fixed)):
        raise PortInUseError(int(fixed), variable)
    return int(fixed)


def _free_port() -> int:
    # Below the range from which the kernel gives outgoing connections their ports: one of those could take the
    # port of a service while it restarts.
    ceiling = int(_EPHEMERAL_RANGE.read_text().split()[0]) if _EPHEMERAL_RANGE.exists() else 32_768
    for _ in range(_ATTEMPTS):
        port = _LOWEST + secrets.randbelow(max(ceiling - _LOWEST, 1_000))
        if is_free(port):
            return port
    raise StackError("No free loopback port was found.", f"Free some ports between {_LOWEST} and {ceiling}.")
