"""What a send asks the directory: little, at each call, and nothing that it was told before."""

import pytest
from wedsync.broadcast.v1 import common_pb2

from tests.integration.sender.site import Site, a_send
from tests.integration.shared.edge import refusal_of

ROLE_AND_TEAM, AUDIENCE = "CheckWeddingAccess", "CountAudience"


@pytest.mark.parametrize("targeting", [{}, {"everyone": True}, {"wedding_ids": True}])
async def test_send_to_a_team_asks_once(site: Site, targeting: dict[str, object]) -> None:
    """Who sends, whether they are on the team, and how many are: one question."""
    user_id, coordinator = site.person("coordinator")
    others = [site.person("florist")[0] for _ in range(3)]
    wedding_id = site.wedding(user_id, *others)
    if "wedding_ids" in targeting:
        targeting = {"wedding_ids": [wedding_id]}
    before = len(site.neighbours.preferences.calls)
    asked = a_send(type="timeline.changed", wedding_id=wedding_id, targeting=targeting)
    answer = await site.send(coordinator, asked)
    assert answer.targeted_users == 4
    assert site.neighbours.preferences.calls[before:] == [ROLE_AND_TEAM]


async def test_service_account_asks_for_the_team_alone(site: Site) -> None:
    """It has no role."""
    wedding_id = site.wedding(site.person("couple")[0])
    before = len(site.neighbours.preferences.calls)
    asked = a_send(type="timeline.changed", wedding_id=wedding_id, targeting={})
    answer = await site.send(site.service("broadcast.send"), asked)
    assert answer.targeted_users == 1
    assert site.neighbours.preferences.calls[before:] == [ROLE_AND_TEAM]


async def test_other_audiences_are_counted(site: Site) -> None:
    """Some of a team, the teams of several weddings, and those who are in no wedding at all."""
    user_id, admin = site.person("admin")
    florist = site.person("florist")[0]
    one, two = site.wedding(user_id, florist), site.wedding(florist)
    for fields, targeted, calls in (
        ({"targeting": {"roles": ["florist"], "wedding_ids": [one]}}, 1, [ROLE_AND_TEAM] * 2 + [AUDIENCE]),
        ({"targeting": {"wedding_ids": [one, two]}}, 2, [ROLE_AND_TEAM] * 2 + [AUDIENCE]),
        ({"targeting": {"user_ids": [florist]}}, 1, [ROLE_AND_TEAM, AUDIENCE]),
        (
            {"type": "timeline.changed", "wedding_id": one, "targeting": {"user_ids": [florist]}},
            1,
            [ROLE_AND_TEAM, AUDIENCE],
        ),
    ):
        before = len(site.neighbours.preferences.calls)
        assert (await site.send(admin, a_send(**fields))).targeted_users == targeted
        assert sorted(site.neighbours.preferences.calls[before:]) == sorted(calls)


async def test_every_call_asks_anew(site: Site) -> None:
    """Whoever was taken off the team, or lost the role, is refused at the next call."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    asked = a_send(type="timeline.changed", wedding_id=wedding_id, targeting={})
    preferences = site.neighbours.preferences
    assert (await site.send(coordinator, asked)).broadcast.state == common_pb2.BROADCAST_STATE_PENDING
    preferences.weddings[wedding_id].team.clear()
    assert (await refusal_of(site.send(coordinator, asked))).reason == "OUTSIDE_REACH"
    preferences.weddings[wedding_id].team.add(user_id)
    preferences.people[user_id] = "florist"
    assert (await refusal_of(site.send(coordinator, asked))).reason == "PERMISSION_DENIED"
