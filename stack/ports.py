"""Chooses the loopback ports of the stack: the fixed one, the one of the last run, or any that is free."""

import json
import os
import secrets
import socket
from pathlib import Path

from stack.errors import PortInUseError, StackError

LOOPBACK = "127.0.0.1"
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_ATTEMPTS = 200


class Ports:
    """The ports of one stack by name; kept in a file, so that the addresses in somebody's shell stay right."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._remembered = _read(path)
        self._chosen: dict[str, int] = {}

    def choose(self, name: str) -> int:
        """The port for that name in this run. Raises PortInUseError when STACK_<NAME>_PORT fixes one that is taken."""
        if name not in self._chosen:
            self._chosen[name] = _fixed(name) or self._any_free(name)
        return self._chosen[name]

    def save(self) -> None:
        """Keep the choices for the next run."""
        self._path.write_text(json.dumps({**self._remembered, **self._chosen}, indent=2) + "\n")

    def _any_free(self, name: str) -> int:
        taken = self._chosen.values()
        last = self._remembered.get(name)
        if last is not None and last not in taken and is_free(last):
            return last
        # Below the range from which the kernel gives outgoing connections their ports: one of those could take the
        # port of a service while it restarts.
        ceiling = int(_EPHEMERAL_RANGE.read_text().split()[0]) if _EPHEMERAL_RANGE.exists() else 32_768
        for _ in range(_ATTEMPTS):
            port = _LOWEST + secrets.randbelow(max(ceiling - _LOWEST, 1_000))
            if port not in taken and is_free(port):
                return port
        raise StackError("No free loopback port was found.", f"Free some ports from {_LOWEST} to {ceiling}.")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _fixed(name: str) -> int | None:
    """The port that STACK_<NAME>_PORT asks for, which must be free."""
    variable = f"STACK_{name.upper().replace('-', '_')}_PORT"
    asked = os.environ.get(variable)
    if not asked:
        return None
    if not asked.isdecimal() or not 0 < int(asked) < 65_536:
        raise StackError(f"{variable}={asked} is not a port.", f"Set {variable} to a number from 1 to 65535.")
    if not is_free(int(asked)):
        raise PortInUseError(int(asked), variable)
    return int(asked)


def _read(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}  # only a convenience: without it other ports are chosen
