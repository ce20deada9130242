"""A token is asked for when it is needed, once for however many calls, and anew when it ends or is refused."""

import asyncio
import time
from pathlib import Path

import jwt
import pytest
from wedsync.broadcast.client import ConfigurationError, Unauthenticated
from wedsync.broadcast.v1.inbox_pb2 import GetUnreadCountRequest

from shared import errors
from tests.unit.client.suite import Suite, within_reason


class Desk:
    """Gives tokens that are good for so long."""

    def __init__(self, lifetime_s: float = 600.0) -> None:
        self._lifetime_s = lifetime_s
        self.given: list[str] = []

    async def __call__(self) -> str:
        await asyncio.sleep(0)
        claims = {"exp": int(time.time() + self._lifetime_s), "jti": len(self.given)}
        self.given.append(jwt.encode(claims, "x" * 32, algorithm="HS256"))
        return self.given[-1]


async def test_a_token_is_asked_for_once(suite: Suite) -> None:
    """However many calls begin at once, as long as it is good."""
    desk = Desk()
    async with suite.client(token=desk) as client:
        await asyncio.gather(*(client.get("b") for _ in range(20)))
    assert suite.sender.script.tokens() == desk.given * 20
    assert len(desk.given) == 1


async def test_a_token_that_is_about_to_end_is_not_shown(suite: Suite) -> None:
    """The next call has a new one, before any is refused."""
    desk = Desk(lifetime_s=20.0)
    async with suite.client(token=desk) as client:
        for _ in range(2):
            await client.get("b")
    assert suite.sender.script.tokens() == desk.given
    assert len(set(desk.given)) == 2


async def test_a_call_whose_token_was_refused_is_made_with_a_new_one(suite: Suite) -> None:
    """Its caller hears nothing of it; of a second refusal they do."""
    desk = Desk()
    suite.sender.script.steps += [errors.TokenExpired()]
    async with suite.client(token=desk) as client:
        await client.get("b")
        assert suite.sender.script.tokens() == desk.given
        suite.sender.script.steps += [errors.Unauthenticated()] * 2
        with pytest.raises(Unauthenticated):
            await client.get("b")
    assert len(desk.given) == 3


async def test_calls_that_were_refused_together_ask_once(suite: Suite) -> None:
    """The first one that comes back renews it for all."""
    desk = Desk()
    suite.sender.script.steps += [errors.TokenExpired()] * 10
    async with suite.client(token=desk) as client:
        await asyncio.gather(*(client.get("b") for _ in range(10)))
    assert len(desk.given) == 2


async def test_a_token_file_that_was_replaced_is_read_again(suite: Suite, tmp_path: Path) -> None:
    """At the latest when what it had is refused; while it is missing, the last one is as good as any."""
    path = tmp_path / "token"
    path.write_text("old\n")
    async with suite.client(token=path) as client:
        await client.get("b")
        path.unlink()
        await client.get("b")
        (tmp_path / "next").write_text("new\n")
        (tmp_path / "next").rename(path)
        suite.sender.script.steps += [errors.TokenExpired()]
        await client.get("b")
    assert suite.sender.script.tokens() == ["old", "old", "old", "new"]


async def test_a_fixed_token_that_was_refused_is_not_tried_again(suite: Suite) -> None:
    """There is no other."""
    suite.sender.script.steps += [errors.Unauthenticated()]
    async with suite.client(token="fixed") as client:
        with pytest.raises(Unauthenticated):
            await client.get("b")
    assert suite.sender.script.tokens() == ["fixed"]


async def test_a_call_may_be_made_for_somebody_else(suite: Suite) -> None:
    """What its caller gives wins; an inbox has its person's token on every call."""
    async with suite.client() as client:
        await client.inboxes.GetUnreadCount(
            GetUnreadCountRequest(), metadata=(("authorization", "Bearer of another"),), timeout=5.0
        )
        assert await client.inbox("of-a-person").unread_count() == 0
        await client.inbox().unread_count()
    assert suite.inbox.script.tokens() == ["of another", "of-a-person", "somebody"]


async def test_without_a_token_calls_are_nobodys(suite: Suite) -> None:
    """They go out as they are, for servers that take them; what needs somebody says so."""
    async with suite.client(token=None) as client:
        await client.get("b")
        with pytest.raises(ConfigurationError, match="no token of its own"):
            client.inbox()
    assert suite.sender.script.tokens() == [None]


def test_a_token_that_is_none_is_refused(suite: Suite, tmp_path: Path) -> None:
    """When the client is made, not when it is needed."""
    empty = tmp_path / "empty"
    empty.touch()
    for token, complaint in (
        ("", "The token is empty"),
        (empty, "There is no token in"),
        (tmp_path / "missing", "cannot be read: .*No such file"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            suite.client(token=token)


async def test_the_same_token_again_is_not_asked_for_by_every_call(suite: Suite) -> None:
    """One of those that were refused together has asked for all; a second later it may be another."""
    given: list[str] = []

    async def ask() -> str:
        await asyncio.sleep(0.01)
        given.append("the-same")
        return given[-1]

    suite.sender.script.steps += [errors.TokenExpired()] * 10_000
    async with suite.client(token=ask) as client:
        await asyncio.gather(*(client.get("b") for _ in range(100)), return_exceptions=True)
        assert len(given) == 2
        async with asyncio.timeout(10.0):
            while len(given) == 2:
                with pytest.raises(Unauthenticated):
                    await client.get("b")


async def test_another_token_that_is_refused_is_asked_for_anew(suite: Suite) -> None:
    """That the one before it came twice says nothing of it."""
    ended = jwt.encode({"exp": 0}, "x" * 32, algorithm="HS256")
    given = iter([ended, ended, "second", "third"])

    async def ask() -> str:
        return next(given)

    async with suite.client(token=ask) as client:
        suite.sender.script.steps += [errors.TokenExpired()]
        with pytest.raises(Unauthenticated):
            await client.get("b")
        suite.sender.script.steps += [errors.TokenExpired()]
        await client.get("b")
    assert suite.sender.script.tokens() == [ended, "second", "third"]


async def test_a_token_that_has_not_ended_is_good_while_there_is_no_other(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever asking for the next one early comes to: a failure, no token, or nothing at all."""
    monkeypatch.setattr("wedsync.broadcast.client.tokens._ASK_AGAIN_S", 0.0)
    monkeypatch.setattr("wedsync.broadcast.client.tokens._EARLY_WAIT_S", 0.1)
    first = jwt.encode({"exp": int(time.time()) + 20}, "x" * 32, algorithm="HS256")
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise OSError
        if asked == 4:
            await asyncio.Event().wait()
        return first if asked == 1 else ""

    async with suite.client(token=ask) as client:
        for _ in range(4):
            await within_reason(client.get("b"))
    assert (suite.sender.script.tokens(), asked) == ([first] * 4, 4)


async def test_whoever_asks_early_keeps_nobody_else(suite: Suite) -> None:
    """Other calls go on with the token that there is."""
    desk = Desk(lifetime_s=20.0)
    asking, answered = asyncio.Event(), asyncio.Event()

    async def ask() -> str:
        if desk.given:
            asking.set()
            await answered.wait()
        return await desk()

    async with suite.client(token=ask) as client:
        await client.get("b")
        early = asyncio.create_task(client.get("b"))
        await asking.wait()
        await within_reason(client.get("b"))
        answered.set()
        await within_reason(early)
    first, second = desk.given
    assert suite.sender.script.tokens() == [first, first, second]


UNUSABLE = ("two\nlines", "with space", "a\ttab", "töken", "nul\0")


@pytest.mark.parametrize("text", UNUSABLE, ids=repr)
async def test_a_token_that_cannot_be_sent_is_refused(suite: Suite, tmp_path: Path, text: str) -> None:
    """When the client is made, by its file or itself; the error does not have what may be a secret."""
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    for token, what in ((text, "The token"), (path, f"The token in {path}")):
        with pytest.raises(ConfigurationError, match=f"^{what} cannot be sent") as refused:
            suite.client(token=token)
        assert text not in str(refused.value)
        async with suite.client() as client:
            with pytest.raises(ConfigurationError, match=f"^{what} cannot be sent"):
                client.inbox(token)


@pytest.mark.parametrize("text", UNUSABLE, ids=repr)
async def test_a_function_that_gives_what_cannot_be_sent_ends_calls(suite: Suite, text: str) -> None:
    """And watches, before they begin or when they would go on: another try would bring no better."""

    async def always() -> str:
        return text

    given = iter(["good"])

    async def later() -> str:
        return next(given, text)

    cannot = "^The token that a function gave cannot be sent"
    async with suite.client(token=always) as client:
        for call in (client.get("b"), anext(client.watch("b")), anext(client.inbox().watch().messages())):
            with pytest.raises(ConfigurationError, match=cannot):
                await within_reason(call)
    suite.inbox.script.steps += [errors.TokenExpired()]
    async with suite.client() as client:
        with pytest.raises(ConfigurationError, match=cannot):
            await within_reason(anext(client.inbox(later).watch().messages()))
    assert (suite.inbox.script.tokens(), suite.pauses.slept) == (["good"], [])


@pytest.mark.parametrize("content", [b"two\nlines", b"\xff\xfet\0o\0k\0"])
async def test_a_file_that_gets_what_cannot_be_sent_ends_calls(
    suite: Suite, tmp_path: Path, content: bytes
) -> None:
    """All of them, until it has a token again; and watches, when they would go on."""
    path = tmp_path / "token"
    path.write_text("good")
    async with suite.client(token=path) as client:
        events = client.inbox().watch().messages()
        suite.inbox.streams.append((1, errors.TokenExpired()))
        await anext(events)
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=str(path)):
            await within_reason(anext(events))
        for _ in range(3):
            with pytest.raises(ConfigurationError, match=str(path)):
                await client.get("b")
        path.write_text("better")
        await client.get("b")
    assert suite.sender.script.tokens() == ["better"]


def test_a_file_that_is_no_text_is_refused(suite: Suite, tmp_path: Path) -> None:
    """Without what is in it."""
    path = tmp_path / "token"
    path.write_bytes(b"secret\xff")
    with pytest.raises(
        ConfigurationError, match=f"^The token's file is not text in UTF-8: {path}"
    ) as refused:
        suite.client(token=path)
    assert refused.value.__cause__ is None
