"""Owns the token that calls are made with: fixed, in a file that somebody renews, or asked for."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from wedsync.broadcast.client.errors import ConfigurationError, Unauthenticated

TokenSource: TypeAlias = Callable[[], Awaitable[str]]
"""Gives a token that is good from now on; it is asked again when that is about to expire, or was refused."""
Token: TypeAlias = str | Path | TokenSource
"""A token, a file that has one and is renewed by somebody else, or a function that gets one."""
Metadata: TypeAlias = tuple[tuple[str, str], ...]
Answer = TypeVar("Answer")

_FILE_LOOK_S: Final = 1.0
# Services take a token for half a minute after its end, since clocks differ; a call should not need that.
_EARLY_S: Final = 30.0


class Tokens(Protocol):
    """What calls take their token from."""

    async def current(self) -> str:
        """The token to call with now."""

    async def renewed(self, refused: str) -> bool:
        """Whether there is another one than the one that was refused."""


def tokens_of(token: Token) -> Tokens:
    """Where tokens come from. Raises ConfigurationError when there is none to begin with."""
    if isinstance(token, str):
        return _FixedToken(token)
    return _TokenFile(token) if isinstance(token, Path) else _AskedToken(token)


def bearer(token: str) -> Metadata:
    """What a call says about its caller."""
    return (("authorization", f"Bearer {token}"),)


async def authorized(tokens: Tokens, call: Callable[[Metadata], Awaitable[Answer]]) -> Answer:
    """The answer to a call, which is made once more when its token was refused and there is another one by now."""
    token = await tokens.current()
    try:
        return await call(bearer(token))
    except Unauthenticated:
        if not await tokens.renewed(token):
            raise
    return await call(bearer(await tokens.current()))


class _FixedToken:
    """One that stays."""

    def __init__(self, token: str) -> None:
        self._token = token.strip()
        if not self._token:
            raise ConfigurationError("The token is empty.")

    async def current(self) -> str:
        return self._token

    async def renewed(self, refused: str) -> bool:
        return False


class _TokenFile:
    """One in a file, read again within a second after the file was replaced or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_look = 0.0
        self._stamp: tuple[int, int, int] | None = None
        self._token = ""
        try:
            self._look()
        except OSError as error:
            raise ConfigurationError(f"The token's file cannot be read: {path}: {error.strerror}.") from error
        if not self._token:
            raise ConfigurationError(f"There is no token in {path}.")

    async def current(self) -> str:
        if time.monotonic() >= self._next_look:
            self._look_quietly()
        return self._token

    async def renewed(self, refused: str) -> bool:
        self._look_quietly()
        return self._token != refused

    def _look_quietly(self) -> None:
        """While the file is missing or empty, the last token there was is as good as any."""
        try:
            self._look()
        except OSError:
            return

    def _look(self) -> None:
        self._next_look = time.monotonic() + _FILE_LOOK_S
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._token = self._path.read_text().strip() or self._token
            self._stamp = stamp


class _AskedToken:
    """One that a function gives; however many calls need it, it is asked once."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._asking = asyncio.Lock()
        self._token = ""
        self._good_until = 0.0

    async def current(self) -> str:
        async with self._asking:
            if not self._token or time.time() >= self._good_until:
                await self._ask()
            return self._token

    async def renewed(self, refused: str) -> bool:
        async with self._asking:
            if self._token == refused:
                await self._ask()
            return self._token != refused

    async def _ask(self) -> None:
        self._token = (await self._source()).strip()
        if not self._token:
            raise ConfigurationError("The function that gives tokens gave an empty one.")
        self._good_until = _expiry(self._token) - _EARLY_S


def _expiry(token: str) -> float:
    """When a JWT expires, in seconds of the epoch; never, as far as can be told, when it is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return float("inf")
