"""A coordinator who calls an emergency, and sees who of the team has acknowledged it and who has not."""

import grpc
from wedsync.broadcast.v1.common_pb2 import Priority, ReceiptAction
from wedsync.broadcast.v1.inbox_pb2 import ListReceiptsRequest, ListReceiptsResponse, RecordReceiptsRequest

from tests.e2e.client import CALL_S, Client, Metadata, refusal
from tests.e2e.two_weddings import Member, add_wedding, bring, set_team, without_quiet_hours


async def receipts(
    client: Client, metadata: Metadata, broadcast_id: str, *, waiting: bool = False
) -> ListReceiptsResponse:
    """Everybody whom the caller is told of."""
    request = ListReceiptsRequest(broadcast_id=broadcast_id, unacknowledged_only=waiting)
    return await client.inbox.ListReceipts(request, metadata=metadata, timeout=CALL_S)


async def test_a_coordinator_sees_who_of_the_team_has_acknowledged(client: Client) -> None:
    """With their names; a colleague on the team sees the same, one of another wedding that there is no such thing."""
    coordinator, colleague, outsider = (Member(f"{each}", "coordinator") for each in range(3))
    florist, couple = Member("florist", "florist"), Member("couple", "couple")
    team = (coordinator, colleague, florist, couple)
    await bring(client, (*team, outsider))
    await without_quiet_hours(client, team)
    wedding_id = await add_wedding(client, *team)
    broadcast_id = await client.send(
        client.person(coordinator.user_id),
        type="wedding.emergency",
        priority=Priority.PRIORITY_CRITICAL,
        wedding_id=wedding_id,
    )
    await client.sent(broadcast_id)
    acknowledge = RecordReceiptsRequest(
        broadcast_ids=[broadcast_id], action=ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED
    )
    await client.inbox.RecordReceipts(acknowledge, metadata=client.person(florist.user_id), timeout=CALL_S)

    by_author = await receipts(client, client.person(coordinator.user_id), broadcast_id)
    assert {each.user_id: each.HasField("acknowledged_at") for each in by_author.receipts} == {
        str(member.user_id): member is florist for member in team
    }
    assert "Fleur Dubois" in {each.display_name for each in by_author.receipts}
    assert (by_author.total_count, by_author.acknowledged_count) == (4, 1)
    assert await receipts(client, client.person(colleague.user_id), broadcast_id) == by_author
    waiting = await receipts(client, client.person("admin"), broadcast_id, waiting=True)
    assert {each.user_id for each in waiting.receipts} == {
        str(member.user_id) for member in team if member is not florist
    }

    await set_team(client, wedding_id, [coordinator.user_id, florist.user_id])
    left = await receipts(client, client.person(coordinator.user_id), broadcast_id)
    assert {each.user_id for each in left.receipts if each.has_left} == {
        str(couple.user_id),
        str(colleague.user_id),
    }
    for stranger in (outsider, colleague):
        call = receipts(client, client.person(stranger.user_id), broadcast_id)
        assert (await refusal(call))[0] is grpc.StatusCode.NOT_FOUND
