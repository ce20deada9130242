"""What waits to be written to a stream."""

import asyncio

import pytest

from services.inbox.outlets import Outlet
from shared.errors import DependencyUnavailable, SlowReader


async def test_payloads_come_in_their_order() -> None:
    """And none when there is none for a while."""
    outlet = Outlet(100)
    outlet.put(b"a", "1")
    outlet.put(b"b", "2")
    assert [await outlet.take(1), await outlet.take(1), await outlet.take(0.001)] == [b"a", b"b", None]


async def test_a_payload_wakes_who_waits_for_it() -> None:
    """At once."""
    outlet = Outlet(100)
    taking = asyncio.create_task(outlet.take(60))
    await asyncio.sleep(0)
    outlet.put(b"a")
    assert await taking == b"a"


async def test_a_reader_too_far_behind_is_cut_off_with_the_cursor_of_what_it_has() -> None:
    """What waited is gone, what comes later is not taken."""
    outlet = Outlet(10)
    outlet.put(b"12345", "one")
    assert await outlet.take(1) == b"12345"
    for _ in range(3):
        outlet.put(b"12345", "later")
    outlet.put(b"1")
    with pytest.raises(SlowReader) as caught:
        await outlet.take(1)
    assert caught.value.metadata == {"cursor": "one"}


async def test_streams_that_one_error_ends_go_on_from_where_each_was() -> None:
    """And one that has told nothing yet begins anew."""
    error, cursors = DependencyUnavailable("Gone.", retry_after_s=3.0), ["", "one", "two"]
    outlets = [Outlet(100) for _ in cursors]
    for outlet, cursor in zip(outlets, cursors, strict=True):
        outlet.put(b"a", cursor)
        await outlet.take(1)
    for outlet in outlets:
        outlet.end(error)
    told = []
    for outlet in outlets:
        with pytest.raises(DependencyUnavailable) as caught:
            await outlet.take(1)
        told.append(
            (caught.value.metadata.get("cursor", ""), caught.value.message, caught.value.retry_after_s)
        )
    assert told == [(cursor, "Gone.", 3.0) for cursor in cursors]


async def test_one_payload_is_never_too_large_by_itself() -> None:
    """A snapshot may be larger than what may wait."""
    outlet = Outlet(10)
    outlet.put(b"x" * 50)
    assert await outlet.take(1) == b"x" * 50


async def test_the_first_reason_to_end_stands() -> None:
    """Who ends a stream that has ended changes nothing."""
    outlet = Outlet(10)
    outlet.end(DependencyUnavailable())
    outlet.end(SlowReader())
    with pytest.raises(DependencyUnavailable):
        await outlet.take(1)


async def test_room_is_when_less_than_half_waits() -> None:
    """Whoever waits for it goes on then, or when the stream ends."""
    outlet = Outlet(10)
    outlet.put(b"12345")
    waiting = asyncio.create_task(outlet.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outlet.take(1)
    await waiting
    outlet.put(b"12345")
    waiting = asyncio.create_task(outlet.room())
    outlet.end(DependencyUnavailable())
    await waiting
