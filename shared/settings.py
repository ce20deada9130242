"""Reads settings from the environment once, and says which variable breaks which rule."""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class SettingsError(Exception):
    """A variable of the environment is missing or breaks its rule."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port; port 0 leaves the choice to the system."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `host:port`, with brackets around an IPv6 host; ValueError when it is nothing of the kind."""
        parts = urlsplit(f"//{text}")
        # Reading the port raises ValueError itself when it is no number below 65536.
        if not parts.hostname or parts.port is None or parts.netloc != text or parts.username is not None:
            raise ValueError(text)
        return cls(parts.hostname, parts.port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Environment:
    """The variables that a process was started with; an empty one counts as absent.

    Every reader raises SettingsError, which names the variable and its rule, and quotes no value that may be secret.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        """`variables` is `os.environ`, or a dict in a test."""
        self._variables = variables
        self._names: set[str] = set()

    @property
    def names(self) -> frozenset[str]:
        """Every variable that was asked for so far, present or not."""
        return frozenset(self._names)

    def text(self, name: str, default: str | None = None) -> str:
        """Any text; required when there is no default."""
        value = self.optional_text(name)
        if value is None:
            value = default
        if value is None:
            raise SettingsError(f"{name} is not set.")
        return value

    def optional_text(self, name: str) -> str | None:
        """Any text, or None when absent."""
        self._names.add(name)
        return self._variables.get(name, "").strip() or None

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        """One of a few words."""
        value = self.text(name, default)
        if value not in options:
            raise SettingsError(f"{name} must be one of {', '.join(options)}; it is {value!r}.")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """1 or 0, also true, yes, on, false, no, off."""
        value = self.optional_text(name)
        if value is None:
            return default
        if value.lower() not in _TRUE | _FALSE:
            raise SettingsError(f"{name} must be 1 or 0; it is {value!r}.")
        return value.lower() in _TRUE

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number within bounds, both included."""
        value = self.text(name, str(default))
        if not value.isascii() or not value.removeprefix("-").isdigit() or not least <= int(value) <= most:
            raise SettingsError(f"{name} must be a whole number from {least} to {most}; it is {value!r}.")
        return int(value)

    def seconds(self, name: str, default: float, *, least: float, most: float) -> float:
        """A duration in seconds within bounds, both included."""
        value = self.text(name, str(default))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise SettingsError(f"{name} must be seconds from {least:g} to {most:g}; it is {value!r}.")
        return number

    def address(self, name: str, default: str | None = None) -> Address:
        """A `host:port`; required when there is no default."""
        value = self.text(name, default)
        try:
            return Address.parse(value)
        except ValueError:
            raise SettingsError(
                f"{name} must be host:port, such as 127.0.0.1:5001; it is {value!r}."
            ) from None

    def optional_address(self, name: str) -> Address | None:
        """A `host:port`, or None when absent."""
        return self.address(name) if self.optional_text(name) else None

    def url(self, name: str, schemes: Sequence[str]) -> str:
        """A URL with one of the schemes; it may hold a password, so errors do not quote it."""
        value = self.text(name)
        if urlsplit(value).scheme not in schemes or "://" not in value:
            starts = " or ".join(f"{each}://" for each in schemes)
            raise SettingsError(f"{name} must be a URL that starts with {starts}.")
        return value

    def file(self, name: str) -> Path:
        """The path of a file that can be read."""
        path = self.optional_file(name)
        if path is None:
            raise SettingsError(f"{name} is not set.")
        return path

    def optional_file(self, name: str) -> Path | None:
        """The path of a file that can be read, or None when absent."""
        value = self.optional_text(name)
        if value is None:
            return None
        path = Path(value)
        try:
            with path.open("rb"):
                return path
        except OSError as error:
            raise SettingsError(
                f"{name} must be a file that can be read; {value!r}: {error.strerror}."
            ) from error
