"""What the suite's other services are told of who may see a broadcast, and of whom of those it reached."""

from uuid import uuid4

from wedsync.broadcast.v1 import sender_pb2

from tests.integration.sender.site import Site, a_send
from tests.integration.shared.edge import refusal_of


async def access(site: Site, broadcast_id: str, user_id: str = "") -> sender_pb2.CheckBroadcastAccessResponse:
    """What the inbox is told."""
    request = sender_pb2.CheckBroadcastAccessRequest(broadcast_id=broadcast_id, user_id=user_id)
    return await site.stub.CheckBroadcastAccess(request, metadata=site.service("internal", name="inbox"))


async def test_author_admin_and_reading_service_are_told_of_everybody(site: Site) -> None:
    """Whoever sent it, also when they have left the team since, and those whose reach has no bounds."""
    author, coordinator = site.person("coordinator")
    wedding_id = site.wedding(author, site.person("couple")[0])
    sent = await site.send(coordinator, a_send(type="timeline.changed", wedding_id=wedding_id, targeting={}))
    broadcast_id = sent.broadcast.broadcast_id
    site.neighbours.preferences.weddings[wedding_id].team.discard(author)
    for user_id in (author, author.upper(), site.person("admin")[0], ""):
        assert (await access(site, broadcast_id, user_id)).everybody
    assert (await access(site, broadcast_id.upper(), author)).everybody


async def test_a_coordinator_of_one_of_its_weddings_is_told_of_that_team(site: Site) -> None:
    """As long as they are on it and have that role; to the others it does not exist."""
    _, admin = site.person("admin")
    mine, _ = site.person("coordinator")
    others, _ = site.person("coordinator")
    florist, _ = site.person("florist")
    one, two = site.wedding(mine, florist), site.wedding(others)
    sent = await site.send(admin, a_send(type="journey.updated", targeting={"wedding_ids": [one, two]}))
    broadcast_id = sent.broadcast.broadcast_id
    told = await access(site, broadcast_id, mine)
    assert (told.everybody, list(told.wedding_ids)) == (False, [one])
    for user_id in (florist, site.person("coordinator")[0], str(uuid4())):
        assert (await refusal_of(access(site, broadcast_id, user_id))).reason == "NOT_FOUND"
    site.neighbours.preferences.people[mine] = "florist"
    assert (await refusal_of(access(site, broadcast_id, mine))).reason == "NOT_FOUND"


async def test_one_that_does_not_exist_is_not_found_by_anybody(site: Site) -> None:
    """Nor by those who see all."""
    for user_id in (site.person("admin")[0], site.person("coordinator")[0], ""):
        assert (await refusal_of(access(site, str(uuid4()), user_id))).reason == "NOT_FOUND"
