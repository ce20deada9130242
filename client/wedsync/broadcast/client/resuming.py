"""Keeps a stream going: through outages, refusals for want of room, servers that leave, and tokens that end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from wedsync.broadcast.client.deadlines import Deadline
from wedsync.broadcast.client.errors import (
    CLOSED,
    BroadcastError,
    ConfigurationError,
    Exhausted,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    error_of,
)
from wedsync.broadcast.client.tokens import LACKING, Metadata, Tokens, UnusableToken, bearer
from wedsync.broadcast.client.waiting import Waiting

Answer = TypeVar("Answer")
OnInterruption: TypeAlias = Callable[[BroadcastError], None]
"""Is told of each interruption before the wait; what it raises ends the watch.

When there was no token for another stream, the error's `__cause__` is what the function that gives them raised, or a
ConfigurationError when it gave an empty one. It hears of no token that cannot be sent: that ends the watch.
"""
Begin: TypeAlias = Callable[[Metadata], grpc.aio.UnaryStreamCall[Any, Answer]]
"""Opens the stream where it is to go on."""

# Ends of a connection that say nothing of the request, when it was not a service of ours that said so.
_CUT: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
# What asking for a token may take of those who have no patience at all.
_PLAIN_ASKING_S: Final = 1.0


@dataclass(slots=True)
class Resumption:
    """What happens when a stream has ended.

    It gives up once it has failed for longer than `patience_s` without a word between, never when that is None. A
    stream on which there was silence for `silence_s` counts as ended. A token that cannot be had is a failure too, also
    one that has not come after `asking_s`; one that no call can carry ends it.
    """

    waiting: Waiting
    asking_s: float
    patience_s: float | None = None
    on_interruption: OnInterruption | None = None
    silence_s: float | None = None
    _failures: int = 0
    _failing_since: float | None = None
    _has_new_token: bool = False

    def heard(self) -> None:
        """Something has come."""
        self._failures, self._failing_since, self._has_new_token = 0, None, False

    async def first_token(self, tokens: Tokens) -> str:
        """The token to open the first stream with. Raises what the caller's function raises."""
        return await self._asking().wait_for(tokens.current(), LACKING)

    async def after(self, error: BroadcastError, tokens: Tokens, token: str) -> str:
        """The token to open the stream again with, once it is time for that. Raises the error when that is no use."""
        if self._failing_since is None:
            self._failing_since = self.waiting.clock()
        refused = token if isinstance(error, Unauthenticated | PermissionDenied) else None
        if refused is None:
            await self._wait(error)
        elif self._has_new_token:
            raise error
        another = await self._token_after(refused, tokens)
        if another is None:
            raise error
        self._has_new_token = refused is not None
        return another

    async def _token_after(self, refused: str | None, tokens: Tokens) -> str | None:
        """The next token; None when there is none but the one that was refused."""
        while True:
            try:
                return await self._asking().wait_for(_token(refused, tokens), LACKING)
            except Unavailable as failure:
                await self._wait(failure)

    async def _wait(self, error: BroadcastError) -> None:
        if not _is_interruption(error):
            raise error
        self._failures += 1
        pause_s = self.waiting.pause_s(self._failures, error.retry_after)
        if pause_s > self._patience_left_s():
            raise error
        if self.on_interruption is not None:
            self.on_interruption(error)
        await self.waiting.sleep(pause_s)

    def _asking(self) -> Deadline:
        # The first token, and another in place of one that has ended, are asked for before anything has failed.
        least_s = 0.0 if self._failures else _PLAIN_ASKING_S
        return Deadline(min(self.asking_s, max(least_s, self._patience_left_s())))

    def _patience_left_s(self) -> float:
        if self.patience_s is None:
            return inf
        if self._failing_since is None:
            return self.patience_s
        return self._failing_since + self.patience_s - self.waiting.clock()


async def resumed(
    begin: Begin[Answer], tokens: Tokens, resumption: Resumption, *, may_end: bool
) -> AsyncGenerator[Answer, None]:
    """What one stream says after the other. With `may_end` a stream that ends in order is the last.

    Raises what `tokens` raises before the first; later that is an interruption like any other, but for UnusableToken.
    Raises ConfigurationError once the client is closed.
    """
    token = await resumption.first_token(tokens)
    while True:
        call = begin(bearer(token))
        try:
            async for answer in _heard(call, resumption.silence_s):
                resumption.heard()
                yield answer
            if may_end:
                return
            ended: BroadcastError = _interrupted("The stream has ended.")
        except grpc.aio.AioRpcError as error:
            ended = error_of(error)
        except asyncio.CancelledError as error:
            # Closing a client cancels its calls, which would look as if somebody had cancelled this task.
            if _is_cancelled():
                raise
            raise ConfigurationError(CLOSED) from error
        finally:
            call.cancel()
        token = await resumption.after(ended, tokens, token)


async def _token(refused: str | None, tokens: Tokens) -> str | None:
    """The same, asked for once. Whatever the caller's function raises is the cause of an Unavailable."""
    try:
        if refused is not None and not await tokens.renewed(refused):
            return None
        return await tokens.current()
    except UnusableToken:
        raise
    except Exception as error:
        raise _interrupted(f"{LACKING} ({type(error).__name__}).") from error


async def _heard(
    call: grpc.aio.UnaryStreamCall[Any, Answer], silence_s: float | None
) -> AsyncIterator[Answer]:
    answers = aiter(call)
    while True:
        try:
            async with asyncio.timeout(silence_s):
                answer = await anext(answers)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _interrupted(f"Nothing was heard for {silence_s:g} s.") from None
        yield answer


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _is_interruption(error: BroadcastError) -> bool:
    if isinstance(error, Unavailable):
        return True
    if isinstance(error, Exhausted):
        # Without a hint only a reader that was too slow may come back at once.
        return error.retry_after is not None or error.reason in ("", "SLOW_READER")
    return not error.reason and error.code() in _CUT


def _interrupted(message: str) -> Unavailable:
    return Unavailable(grpc.StatusCode.UNAVAILABLE, details=message)
