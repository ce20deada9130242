"""Several dispatchers at once: lanes in processes of their own, and any number on the same lanes."""

import asyncio

from services.dispatcher.domain import Kind, Priority
from shared.audience import Audience
from tests.integration.dispatcher.site import Site
from tests.integration.dispatcher.stand_ins import now_on_both
from tests.integration.shared.polling import until


async def test_bulk_lanes_move_on_when_another_process_applies_the_reports(surroundings: Site) -> None:
    """A process of bulk lanes hears no reports; it looks by itself, and a large broadcast still gets through."""
    async with (
        surroundings.dispatching(DISPATCHER_LANES="critical,high"),
        surroundings.dispatching(DISPATCHER_LANES="normal,low") as bulk,
    ):
        everyone = Audience.of(range(600_000))
        sent = await surroundings.send(now_on_both(everyone), Priority.LOW)
        await until(lambda: surroundings.told(sent) == [("SENT", 600_000)])
        assert surroundings.inbox.people(sent, Kind.ITEM) == everyone
        assert (await bulk.get(sent)).chunks_done == 10


async def test_any_number_of_dispatchers_share_the_work(surroundings: Site) -> None:
    """Three of them, many broadcasts: each person gets each once, and each broadcast is told once."""
    async with surroundings.dispatching(), surroundings.dispatching(), surroundings.dispatching():
        audiences = [Audience.of(range(start, start + 150_000)) for start in range(0, 800_000, 100_000)]
        sent = await asyncio.gather(*(surroundings.send(now_on_both(each)) for each in audiences))
        for broadcast, everyone in zip(sent, audiences, strict=True):
            await until(
                lambda broadcast=broadcast, everyone=everyone: (
                    surroundings.told(broadcast) == [("SENT", len(everyone))]
                )
            )
            chunks = surroundings.inbox.of(broadcast).values()
            assert sum(len(each.members) for each in chunks) == len(everyone)
            assert surroundings.inbox.people(broadcast, Kind.ITEM) == everyone
            assert surroundings.inbox.most_in_flight[str(broadcast)] <= 2
