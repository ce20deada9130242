"""What must not go out on one person's word: an alarm to everybody waits until another admin has looked at it."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Priority, Targeting
from wedsync.broadcast.v1.sender_pb2 import (
    ApproveBroadcastRequest,
    Broadcast,
    RejectBroadcastRequest,
    WatchBroadcastRequest,
)

from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, broadcast, eventually, refusal

SENDER, DECIDER = "approver", "admin"
"""Two admins; the commands of other stories use up what the second may send."""
WAITS = BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL


async def alarm(client: Client, **fields: object) -> str:
    """The id of a critical broadcast about no wedding, which waits."""
    request = broadcast(type="security.alert", priority=Priority.PRIORITY_CRITICAL, **fields)
    answer = await client.sender.SendBroadcast(request, metadata=client.person(SENDER), timeout=CALL_S)
    assert answer.broadcast.state == WAITS
    return answer.broadcast.broadcast_id


async def approve(client: Client, broadcast_id: str, who: str = DECIDER) -> Broadcast:
    """An approval."""
    request = ApproveBroadcastRequest(broadcast_id=broadcast_id, reason="Seen.")
    answer = await client.sender.ApproveBroadcast(request, metadata=client.person(who), timeout=CALL_S)
    return answer.broadcast


async def reject(client: Client, broadcast_id: str, who: str = DECIDER) -> Broadcast:
    """A rejection."""
    request = RejectBroadcastRequest(broadcast_id=broadcast_id, reason="Not like this.")
    answer = await client.sender.RejectBroadcast(request, metadata=client.person(who), timeout=CALL_S)
    return answer.broadcast


async def test_an_alarm_goes_out_once_another_admin_approves_it(client: Client) -> None:
    """Nobody has it before, its sender cannot let it go, and then it is on the open screen; who let it go is shown."""
    async with client.watching("photographer") as screen:
        broadcast_id = await alarm(client, targeting=Targeting(roles=["photographer"]))
        code, details = await refusal(approve(client, broadcast_id, SENDER))
        assert (code, details.reason_name) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        marker = await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("photographer"))]))
        await screen.until(
            lambda event: event.added.item.broadcast_id == marker, "the one that does not wait"
        )
        assert broadcast_id not in screen.added()
        await approve(client, broadcast_id)
        await screen.until(lambda event: event.added.item.broadcast_id == broadcast_id, "the approved one")
    shown = (await client.sent(broadcast_id)).broadcast
    assert (shown.decided_by, shown.decision_reason) == (str(demo_id(DECIDER)), "Seen.")


async def test_a_rejected_alarm_reaches_nobody(client: Client) -> None:
    """Its watcher is told, its sender can read why, and what is sent afterwards arrives without it."""
    everyone = Targeting(everyone=True)
    async with client.watching("venue") as screen:
        broadcast_id = await alarm(client, targeting=everyone)
        watch = client.sender.WatchBroadcast(
            WatchBroadcastRequest(broadcast_id=broadcast_id), metadata=client.person(SENDER), timeout=CALL_S
        )
        told = aiter(watch)
        assert (await anext(told)).state == WAITS
        rejected = await reject(client, broadcast_id)
        assert rejected.state == BroadcastState.BROADCAST_STATE_REJECTED
        assert [progress.state async for progress in told] == [BroadcastState.BROADCAST_STATE_REJECTED]
        marker = await client.send("admin", targeting=everyone)
        await screen.until(lambda event: event.added.item.broadcast_id == marker, "the later one")
        assert broadcast_id not in screen.added()
    for person in (SENDER, "venue", "outsider"):
        assert not await client.has(person, broadcast_id)
    shown = await client.show(broadcast_id)
    assert (shown.broadcast.decision_reason, shown.stats.targeted) == ("Not like this.", 0)


async def test_an_alarm_that_nobody_looks_at_expires(client: Client) -> None:
    """By itself, and nobody has it."""
    expires_at = Timestamp()
    expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
    broadcast_id = await alarm(client, expires_at=expires_at)

    async def is_expired() -> bool:
        shown = await client.show(broadcast_id)
        return shown.broadcast.state == BroadcastState.BROADCAST_STATE_EXPIRED

    await eventually(is_expired, "the expiry")
    code, _ = await refusal(approve(client, broadcast_id))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert not await client.has(SENDER, broadcast_id)


async def test_two_admins_at_once_are_one_decision(client: Client) -> None:
    """A service account's alarm: one of them is told that it is decided, and everybody has it once or nobody does."""
    metadata = client.service("broadcast.send")
    to_venue = Targeting(user_ids=[str(demo_id("venue"))])
    request = broadcast(type="security.alert", priority=Priority.PRIORITY_CRITICAL, targeting=to_venue)
    answer = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
    broadcast_id = answer.broadcast.broadcast_id
    outcomes = await asyncio.gather(
        approve(client, broadcast_id), reject(client, broadcast_id, SENDER), return_exceptions=True
    )
    (decided,) = (each for each in outcomes if isinstance(each, Broadcast))
    (lost,) = (each for each in outcomes if isinstance(each, grpc.aio.AioRpcError))
    assert lost.code() is grpc.StatusCode.FAILED_PRECONDITION
    if decided.state == BroadcastState.BROADCAST_STATE_REJECTED:
        assert not await client.has("venue", broadcast_id)
        return
    await client.sent(broadcast_id)
    assert [broadcast_id] == [
        item.broadcast_id for item in await client.items("venue") if item.broadcast_id == broadcast_id
    ]
