"""What senders are told of their broadcasts: lists of them."""

import json

import grpc
from wedsync.broadcast.v1.directory_pb2 import SetWeddingTeamRequest
from wedsync.broadcast.v1.sender_pb2 import ListBroadcastsRequest

from stack.background import BackgroundStack
from stack.world import CAST, FIRST_TEAM, demo_id
from tests.e2e.client import CALL_S, Client, refusal
from tests.e2e.test_command_line import Command

WEDDING = str(demo_id("wedding-1"))
TEAM = [CAST[number - 1].name for number in FIRST_TEAM]


async def _listed(client: Client, who: str, **filters: object) -> list[str]:
    """Every id that somebody is shown, page by page."""
    found: list[str] = []
    token = ""
    while True:
        request = ListBroadcastsRequest(page_size=2, page_token=token, **filters)  # type: ignore[arg-type]
        page = await client.sender.ListBroadcasts(request, metadata=client.person(who), timeout=CALL_S)
        found += [each.broadcast_id for each in page.broadcasts]
        token = page.next_page_token
        if not token:
            return found


async def _team(client: Client, names: list[str]) -> None:
    request = SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=[str(demo_id(name)) for name in names])
    await client.directory.SetWeddingTeam(request, metadata=client.service("directory.write"), timeout=CALL_S)


async def test_a_coordinator_lists_their_weddings_as_long_as_they_are_on_the_team(client: Client) -> None:
    """What they sent, and what others sent about their weddings; off the team, at once only what they sent."""
    await _team(client, TEAM)
    own = await client.send("coordinator", type="journey.updated", wedding_id=WEDDING)
    others = await client.send("admin", type="journey.updated", wedding_id=WEDDING)
    mine = {"type": "journey.", "wedding_id": WEDDING}
    assert [others, own] == (await _listed(client, "coordinator", **mine))[:2]
    assert [others, own] == (await _listed(client, "admin", **mine))[:2]
    assert not {own, others} & set(await _listed(client, "outsider"))
    await _team(client, [name for name in TEAM if name != "coordinator"])
    off_the_team = await _listed(client, "coordinator", **mine)
    await _team(client, TEAM)
    assert own == off_the_team[0]
    assert others not in off_the_team
    assert others == (await _listed(client, "coordinator"))[0]


async def test_lists_are_for_those_who_send(client: Client) -> None:
    """A supplier has an inbox, and no list of broadcasts."""
    code, _ = await refusal(
        client.sender.ListBroadcasts(
            ListBroadcastsRequest(), metadata=client.person("florist"), timeout=CALL_S
        )
    )
    assert grpc.StatusCode.PERMISSION_DENIED is code


async def test_a_script_pages_through_a_list(suite: BackgroundStack) -> None:
    """By filter and page token, in JSON; as a table for people; what is mistyped is told."""
    command = Command(suite)
    arguments = (
        "send",
        "--type",
        "trial.ending",
        "--title",
        "From a list",
        "--message",
        "x",
        "--role",
        "astronaut",
    )
    for _ in range(2):
        assert (await command(*arguments))[0] == 0
    filters = (
        "--type",
        "trial.",
        "--by",
        "admin",
        "--state",
        "sent",
        "--state",
        "pending",
        "--state",
        "dispatching",
    )
    _, output, _ = await command("--json", "list", *filters, "--page-size", "1")
    first = json.loads(output)
    token = first["next_page_token"]
    _, output, _ = await command("--json", "list", *filters, "--page-size", "1", "--page-token", token)
    second = json.loads(output)
    assert first["broadcasts"][0]["broadcast_id"] != second["broadcasts"][0]["broadcast_id"]
    _, output, _ = await command("list", *filters, "--page-size", "1")
    assert first["broadcasts"][0]["broadcast_id"] in output
    assert f"More: --page-token {token}" in output
    code, _, errors = await command("list", "--page-token", token)
    assert (code, "INVALID_PAGE_TOKEN" in errors, "page_token" in errors) == (3, True, True)
    assert (await command("list", "--state", "gone"))[0] == 2
