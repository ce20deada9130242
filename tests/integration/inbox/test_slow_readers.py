"""Readers that stop reading, beside others that do not: who is cut off, and that nobody else notices."""

import asyncio
from contextlib import AsyncExitStack

from tests.integration.inbox.site import Person, Site
from tests.integration.inbox.watching import Watcher, watching
from tests.integration.shared.polling import until

STALLED = PROMPT = 6
MESSAGES = 300
"""Of 20 kB each: six times what may wait for one stream, which is more than that and gRPC's own windows hold."""


async def _all_watching(site: Site, people: list[Person], streams: AsyncExitStack) -> list[Watcher]:
    watchers = [await streams.enter_async_context(watching(site, person)) for person in people]
    for watcher in watchers:
        await watcher.next("snapshot")
    return watchers


def _added(watcher: Watcher) -> list[str]:
    return [event.added.item.broadcast_id for event in watcher.events if event.HasField("added")]


async def _has_shown(watcher: Watcher, count: int) -> list[str]:
    """The ids that a stream has added, once there are so many."""
    await until(lambda: len(_added(watcher)) >= count)
    return _added(watcher)


async def test_prompt_readers_see_everything_beside_stalled_ones(site: Site) -> None:
    """Everybody whose client does not read is cut off with a cursor, and goes on from it with nothing lost."""
    people = site.people(STALLED + PROMPT)
    async with AsyncExitStack() as streams:
        watchers = await _all_watching(site, people, streams)
        stalled, prompt = watchers[:STALLED], watchers[STALLED:]
        for watcher in stalled:
            watcher.reading.clear()
        sent = [await site.send(people, message="x" * 20_000) for _ in range(MESSAGES)]
        for watcher in prompt:
            assert await _has_shown(watcher, MESSAGES) == sent
        for watcher in stalled:
            watcher.reading.set()
        errors = await asyncio.gather(*(watcher.ended() for watcher in stalled))
        assert {error.reason_name for error in errors} == {"SLOW_READER"}
        shown = [_added(watcher) for watcher in stalled]
    for person, error, before in zip(people, errors, shown, strict=False):
        async with watching(site, person, error.metadata["cursor"]) as watcher:
            assert before + await _has_shown(watcher, MESSAGES - len(before)) == sent
