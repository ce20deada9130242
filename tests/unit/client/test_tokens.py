"""A token is asked for when it is needed, once for however many calls, and anew when it ends or is refused."""

import asyncio
import time
from pathlib import Path

import jwt
import pytest
from wedsync.broadcast.client import ConfigurationError, Unauthenticated
from wedsync.broadcast.v1.inbox_pb2 import GetUnreadCountRequest

from shared import errors
from tests.unit.client.suite import Suite


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
        assert await client.inbox("of a person").unread_count() == 0
        await client.inbox().unread_count()
    assert suite.inbox.script.tokens() == ["of another", "of a person", "somebody"]


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
