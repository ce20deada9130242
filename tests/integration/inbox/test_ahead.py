"""What broadcasts say, fetched before their first chunks come: it saves time, and nothing depends on it."""

from uuid import uuid4

from wedsync.broadcast.v1 import events_pb2

from shared import subjects
from tests.integration.inbox.site import Site
from tests.integration.shared.polling import until, until_equal


def asked(site: Site, broadcast_id: str) -> int:
    """How often the inbox has asked the sender what this broadcast says."""
    return site.neighbours.sender.asked.count(broadcast_id)


async def foretell(site: Site, broadcast_id: str) -> None:
    """What a dispatcher says when it begins."""
    payload = events_pb2.DispatchBegun(broadcast_id=broadcast_id).SerializeToString()
    await site.dispatcher.nats.hint(subjects.LIVE_DISPATCH, payload)


async def test_what_is_begun_is_asked_for_before_its_chunk_comes_and_only_then(site: Site) -> None:
    """Its chunk finds it there."""
    amara, broadcast_id = site.person(), site.broadcast(title="Soon")
    await foretell(site, broadcast_id)
    await until(lambda: asked(site, broadcast_id) == 1)
    await site.deliver(broadcast_id, [amara])
    assert [item.title for item in (await site.listed(amara)).items] == ["Soon"]
    assert asked(site, broadcast_id) == 1


async def test_what_was_merged_is_not_asked_for_again(site: Site) -> None:
    """A hint that comes late, or twice, costs nothing."""
    amara = site.person()
    late, next_one = await site.send([amara]), site.broadcast()
    for broadcast_id in (late, late, next_one):
        await foretell(site, broadcast_id)
    await until(lambda: asked(site, next_one) == 1)
    assert asked(site, late) == 1


async def test_a_hint_that_leads_nowhere_does_no_harm(site: Site) -> None:
    """Nor does one that cannot be read: the chunk asks for itself, and so do the next ones."""
    amara, unknown = site.person(), str(uuid4())
    await site.dispatcher.nats.hint(subjects.LIVE_DISPATCH, b"\xff")
    await foretell(site, unknown)
    await until(lambda: asked(site, unknown) == 1)
    site.broadcast(broadcast_id=unknown)
    await site.deliver(unknown, [amara])
    await until_equal([unknown], lambda: site.ids(amara))
    assert asked(site, unknown) == 2
