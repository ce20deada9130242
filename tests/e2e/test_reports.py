"""What senders are told of their broadcasts: lists of them, and how many people they have come to by the day."""

import json

import grpc
from wedsync.broadcast.v1.common_pb2 import ReceiptAction
from wedsync.broadcast.v1.directory_pb2 import SetWeddingTeamRequest
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, RecordReceiptsRequest
from wedsync.broadcast.v1.sender_pb2 import (
    ANALYTICS_GROUP_BROADCAST,
    AnalyticsRow,
    GetAnalyticsRequest,
    ListBroadcastsRequest,
)

from stack.background import BackgroundStack
from stack.world import CAST, FIRST_TEAM, demo_id
from tests.e2e.client import CALL_S, Client, eventually, refusal
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


async def _analytics(client: Client, who: str, broadcast_id: str) -> AnalyticsRow | None:
    """The newest row of a broadcast that somebody is shown."""
    request = GetAnalyticsRequest(group=ANALYTICS_GROUP_BROADCAST, broadcast_ids=[broadcast_id], page_size=1)
    answer = await client.sender.GetAnalytics(request, metadata=client.person(who), timeout=CALL_S)
    return answer.rows[0] if answer.rows else None


async def test_what_people_do_with_a_broadcast_is_counted(client: Client) -> None:
    """Within seconds, each person once, for its sender and those who see all; and never for somebody else."""
    await _team(client, TEAM)
    broadcast_id = await client.send("coordinator", type="timeline.changed", wedding_id=WEDDING)
    await client.sent(broadcast_id)
    for action in (ReceiptAction.RECEIPT_ACTION_READ, ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED):
        receipts = RecordReceiptsRequest(broadcast_ids=[broadcast_id], action=action)
        await client.inbox.RecordReceipts(receipts, metadata=client.person("florist"), timeout=CALL_S)
    await client.inbox.MarkAllRead(MarkAllReadRequest(), metadata=client.person("venue"), timeout=CALL_S)

    async def counted() -> AnalyticsRow | None:
        row = await _analytics(client, "coordinator", broadcast_id)
        return row if row is not None and row.read == 2 else None

    row = await eventually(counted, "two readers to be counted")
    assert (row.targeted, row.delivered, row.acknowledged, row.clicked) == (len(TEAM), len(TEAM), 1, 0)
    assert (row.delivery_rate, row.engagement_rate) == (1.0, 2 / len(TEAM))
    assert 0 < row.average_time_to_read.ToTimedelta().total_seconds() < 60
    assert row == await _analytics(client, "admin", broadcast_id)
    assert await _analytics(client, "outsider", broadcast_id) is None


async def test_analytics_are_shown_by_type_and_priority(suite: BackgroundStack) -> None:
    """As a table for people, in JSON for scripts; what is mistyped is told."""
    command = Command(suite)
    assert (
        await command("send", "--type", "tier.upgraded", "--title", "Up", "--message", "x", "--user", "venue")
    )[0] == 0

    async def rows() -> list[dict[str, object]] | None:
        _, output, _ = await command("--json", "analytics", "--type", "tier.upgraded")
        found: list[dict[str, object]] = json.loads(output)["rows"]
        return found if found and found[0]["delivered"] == "1" else None

    (row,) = await eventually(rows, "the broadcast to be counted")
    assert (row["type"], row["targeted"], row["engagement_rate"]) == ("tier.upgraded", "1", 0.0)
    code, output, _ = await command("analytics", "--group", "priority", "--type", "tier.upgraded")
    assert (code, "normal" in output, "1 (100%)" in output) == (0, True, True)
    code, _, errors = await command("analytics", "--first", "2026-01-01", "--last", "2027-06-01")
    assert (code, "last_day" in errors) == (3, True)
    assert (await command("analytics", "--group", "wedding"))[0] == 2
