"""A deadline is the end of a whole call: of its token, of the try, and of another try with another token."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from wedsync.broadcast.client import (
    BroadcastClient,
    BroadcastError,
    DeadlineExceeded,
    TokenSource,
    Unavailable,
    Waiting,
)
from wedsync.broadcast.v1.inbox_pb2 import WatchInboxRequest, WatchInboxResponse

from shared import errors
from tests.unit.client.suite import Suite, within_reason

Call: TypeAlias = Callable[[BroadcastClient], Awaitable[object]]

UNARY: tuple[Call, ...] = (lambda client: client.get("b"), lambda client: client.inbox().unread_count())


def giving(*answers: str | None, after_s: float = 0.0) -> TokenSource:
    """Gives these, each after so long, and hangs where there is None and once there are no more."""
    left = list(answers)

    async def ask() -> str:
        answer = left.pop(0) if left else None
        if answer is None:
            await asyncio.Event().wait()
        await asyncio.sleep(after_s)
        return str(answer)

    return ask


async def stream_of_a_stub(client: BroadcastClient, timeout_s: float | None = None) -> WatchInboxResponse:
    """The first thing that is heard on it."""
    call = client.inboxes.WatchInbox(WatchInboxRequest(), timeout=timeout_s)
    return await anext(aiter(call))


@pytest.mark.parametrize(
    "call",
    [
        *UNARY,
        lambda client: anext(client.inbox().watch().messages()),
        lambda client: anext(client.watch("b")),
        stream_of_a_stub,
        lambda client: stream_of_a_stub(client, timeout_s=0.2),
    ],
    ids=["call", "inbox", "inbox's watch", "broadcast's watch", "stream", "stream with a timeout"],
)
async def test_a_token_that_does_not_come_ends_a_call_at_its_deadline(
    suite: Suite, call: Call, request: pytest.FixtureRequest
) -> None:
    """Whatever is called, by the client's deadline or its own; the error says what was waited for."""
    has_its_own = "timeout" in request.node.name
    async with suite.client(giving(), deadline_s=60.0 if has_its_own else 0.2) as client:
        with pytest.raises(DeadlineExceeded, match=r"No token was to be had within 0\.2 s"):
            await within_reason(call(client))
    assert suite.sender.script.asked == suite.inbox.script.asked == []


@pytest.mark.parametrize("call", UNARY, ids=["call", "inbox"])
async def test_another_token_that_does_not_come_ends_a_call_at_its_deadline(suite: Suite, call: Call) -> None:
    """The first was refused, which is said as well."""
    suite.sender.script.steps.append(errors.TokenExpired())
    suite.inbox.script.steps.append(errors.TokenExpired())
    async with suite.client(giving("first"), deadline_s=0.5) as client:
        with pytest.raises(
            DeadlineExceeded, match=r"The token was refused\. No token was to be had instead within"
        ):
            await within_reason(call(client))


@pytest.mark.parametrize("call", UNARY, ids=["call", "inbox"])
async def test_two_tries_of_a_call_share_its_deadline(suite: Suite, call: Call) -> None:
    """Each has what the tokens and tries before it have left."""
    suite.sender.script.steps.append(errors.TokenExpired())
    suite.inbox.script.steps.append(errors.TokenExpired())
    async with suite.client(giving("first", "second", after_s=0.5), deadline_s=10.0) as client:
        await within_reason(call(client))
    first, second = suite.sender.script.asked or suite.inbox.script.asked
    assert first.remaining_s < 9.6
    assert second.remaining_s < 9.1


async def test_a_timeout_of_the_function_that_gives_tokens_is_its_own(suite: Suite) -> None:
    """It is raised as whatever else the function raises."""

    async def ask() -> str:
        raise TimeoutError("the identity provider")

    async with suite.client(ask) as client:
        with pytest.raises(TimeoutError, match="the identity provider"):
            await client.get("b")


async def test_a_call_outlives_another_that_waited_for_its_token_in_vain(suite: Suite) -> None:
    """The function hung for the first; the second, which had to wait for that, asks it again."""
    async with suite.client(giving(None, "second")) as client:
        hasty = asyncio.create_task(client.get("b", deadline_s=0.2))
        await asyncio.sleep(0)
        patient = asyncio.create_task(client.get("b"))
        with pytest.raises(DeadlineExceeded):
            await within_reason(hasty)
        await within_reason(patient)
    assert suite.sender.script.tokens() == ["second"]


async def test_patience_ends_while_a_token_does_not_come(suite: Suite) -> None:
    """Counted from the interruption, however long a call may take."""
    suite.inbox.script.steps.append(errors.TokenExpired())
    async with suite.client(giving("first"), deadline_s=60.0, waiting=Waiting()) as client:
        watch = client.inbox().watch(patience_s=1.5)
        with pytest.raises(Unavailable, match=r"No token was to be had within 1\.\d+ s"):
            await within_reason(anext(watch.messages()))


async def test_who_has_no_patience_has_the_time_that_tokens_take(suite: Suite) -> None:
    """For the first, and for another when that has ended: nothing has failed yet."""
    suite.inbox.script.steps.append(errors.TokenExpired())
    given = iter(("first", "second"))

    async def ask() -> str:
        await asyncio.sleep(0.05)
        return next(given)

    async with suite.client(ask) as client:
        await within_reason(anext(client.inbox().watch(patience_s=0.0).messages()))
    assert suite.inbox.script.tokens() == ["first", "second"]


async def test_a_watch_asks_again_for_a_token_that_does_not_come(suite: Suite) -> None:
    """Once that took as long as a call may, and it tells of it."""
    told: list[BroadcastError] = []
    suite.inbox.script.steps.append(errors.TokenExpired())
    async with suite.client(giving("first", None, "second"), deadline_s=0.2) as client:
        watch = client.inbox().watch(on_interruption=told.append)
        await within_reason(anext(watch.messages()))
    assert suite.inbox.script.tokens() == ["first", "second"]
    assert [str(error) for error in told] == ["DEADLINE_EXCEEDED: No token was to be had within 0.2 s."]
