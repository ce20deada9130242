"""A build that cannot be asked any more is judged all the same, in bounded time."""

import asyncio

from tests.chaos.looking import Looking


async def answer(value: int) -> int:
    """Something that is seen at once."""
    return value


async def refuse() -> int:
    """A service that is broken in a way of its own."""
    raise LookupError("no such thing")


async def hang() -> int:
    """A service that never answers."""
    await asyncio.Event().wait()
    return 0


async def test_what_is_seen_is_what_counts() -> None:
    """And nothing is said about it."""
    looking = Looking(60.0)
    assert await looking.at("this", answer(3), 0) == 3
    assert looking.unseen == []


async def test_a_look_that_fails_or_hangs_is_told_and_keeps_no_other_back() -> None:
    """Even when the time that they share is over, each of the others still gets its least."""
    looking = Looking(0.0, least_s=0.05)
    assert await looking.at("lists", hang(), -1) == -1
    assert await looking.at("ledgers", refuse(), -2) == -2
    assert await looking.at("the record", answer(3), 0) == 3
    assert looking.unseen == [
        "lists could not be seen: TimeoutError()",
        "ledgers could not be seen: LookupError('no such thing')",
    ]
