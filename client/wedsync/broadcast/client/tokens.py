"""Owns the token that calls are made with: fixed, in a file that somebody renews, or asked for."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from wedsync.broadcast.client.deadlines import Deadline
from wedsync.broadcast.client.errors import ConfigurationError, Unauthenticated

TokenSource: TypeAlias = Callable[[], Awaitable[str]]
"""Gives a token that is good from now on; it is asked again when that is about to expire, or was refused."""
Token: TypeAlias = str | Path | TokenSource
"""A token, a file that has one and is renewed by somebody else, or a function that gets one."""
Metadata: TypeAlias = tuple[tuple[str, str], ...]
Answer = TypeVar("Answer")

LACKING: Final = "No token was to be had"
"""How an error begins that is for want of one."""
_FILE_LOOK_S: Final = 1.0
_ASK_AGAIN_S: Final = 1.0
# Services take a token for half a minute after its end, since clocks differ; a call should not need that.
_EARLY_S: Final = 30.0
# What is not needed yet may not keep a call for longer.
_EARLY_WAIT_S: Final = 2.0


class UnusableToken(ConfigurationError):
    """A token that no call can carry: asking for it again would be no use."""


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


async def authorized(
    tokens: Tokens, deadline_s: float, call: Callable[[Metadata, float], Awaitable[Answer]]
) -> Answer:
    """The answer to a call, which is made once more when its token was refused and there is another one by now.

    Both, and the asking for tokens, share `deadline_s`: the call is told what is left. Raises DeadlineExceeded.
    """
    deadline = Deadline(deadline_s)
    token = await deadline.wait_for(tokens.current(), LACKING)
    try:
        return await call(bearer(token), deadline.remaining_s())
    except Unauthenticated:
        if not await deadline.wait_for(tokens.renewed(token), f"The token was refused. {LACKING} instead"):
            raise
    token = await deadline.wait_for(tokens.current(), LACKING)
    return await call(bearer(token), deadline.remaining_s())


def _usable(token: str, what: str) -> str:
    """The token without space around it, empty when there is none. Raises UnusableToken, which never has its text."""
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UnusableToken(
            f"{what} cannot be sent: a space, a line break or a character beyond ASCII is inside."
        )
    return token


class _FixedToken:
    """One that stays."""

    def __init__(self, token: str) -> None:
        self._token = _usable(token, "The token")
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
        # Each call has the same error until the file has something else than what cannot be sent.
        self._next_look = 0.0
        with suppress(OSError):
            self._look()
        self._next_look = time.monotonic() + _FILE_LOOK_S

    def _look(self) -> None:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._token = _usable(self._text(), f"The token in {self._path}") or self._token
            self._stamp = stamp

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            # Its error would hand the bytes on.
            raise UnusableToken(f"The token's file is not text in UTF-8: {self._path}.") from None


class _AskedToken:
    """One that a function gives; however many calls need it, it is asked once."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._asking = asyncio.Lock()
        self._token = ""
        self._ends_at = 0.0
        self._is_asking_early = False
        self._next_early = 0.0
        self._next_after_refusal = 0.0

    async def current(self) -> str:
        if self._is_asking_early:
            return self._token
        async with self._asking:
            if not self._has(_EARLY_S):
                await (self._ask_early() if self._has(0.0) else self._ask())
            return self._token

    async def renewed(self, refused: str) -> bool:
        async with self._asking:
            if self._token == refused and time.monotonic() >= self._next_after_refusal:
                await self._ask()
                if self._token == refused:
                    # Others who were refused with it need not hear the same from the function, one after the other.
                    self._next_after_refusal = time.monotonic() + _ASK_AGAIN_S
            return self._token != refused

    def _has(self, seconds: float) -> bool:
        """Whether there is a token that is good for so long."""
        return self._token != "" and time.time() < self._ends_at - seconds

    async def _ask_early(self) -> None:
        """Asks for the next while the last is good: others go on with that meanwhile, and so do all when it fails."""
        if time.monotonic() < self._next_early:
            return
        self._is_asking_early, self._next_early = True, time.monotonic() + _ASK_AGAIN_S
        try:
            with suppress(Exception):
                async with asyncio.timeout(_EARLY_WAIT_S):
                    await self._ask()
        finally:
            self._is_asking_early = False

    async def _ask(self) -> None:
        token = _usable(await self._source(), "The token that a function gave")
        if not token:
            raise ConfigurationError("The function that gives tokens gave an empty one.")
        if token != self._token:
            self._next_after_refusal = 0.0
        self._token, self._ends_at = token, _expiry(token)


def _expiry(token: str) -> float:
    """When a JWT expires, in seconds of the epoch; never, as far as can be told, when it is none."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return float("inf")
