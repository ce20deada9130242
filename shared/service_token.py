"""The token that a service shows to the others: kept in a file that somebody else renews."""

from pathlib import Path
from typing import Self

import structlog

from shared.clock import Clock, SystemClock
from shared.file_stamps import Stamp, stamp_of
from shared.settings import Environment, SettingsError

log = structlog.get_logger(__name__)

_LOOK_S = 1.0


class TokenFile:
    """Gives the token in a file, read again within a second after the file was replaced or written."""

    def __init__(self, variable: str, path: Path, clock: Clock | None = None) -> None:
        """`variable` is the setting that `path` came from; SettingsError names it when no token is there."""
        self._path = path
        self._clock = clock or SystemClock()
        self._next_look = 0.0
        self._seen: Stamp | None = None
        self._token = ""
        self._look()
        if not self._token:
            raise SettingsError(f"{variable}: there is no token in {path}.")

    @classmethod
    def read(cls, env: Environment, prefix: str) -> Self:
        """Reads `<prefix>_SERVICE_TOKEN_FILE`."""
        variable = f"{prefix}_SERVICE_TOKEN_FILE"
        return cls(variable, env.file(variable))

    def __call__(self) -> str:
        """The token as it is now; the last one there was while the file is missing or empty."""
        if self._clock.monotonic() >= self._next_look:
            self._look()
        return self._token

    def _look(self) -> None:
        self._next_look = self._clock.monotonic() + _LOOK_S
        try:
            seen = stamp_of(self._path)
            if seen != self._seen:
                self._token = self._path.read_text().strip() or self._token
                self._seen = seen
        except OSError as error:
            log.warning("service_token_unreadable", error=error.strerror)
