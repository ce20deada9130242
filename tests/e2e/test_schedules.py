"""Due times in a suite that is not always there: what is still valid goes out after an outage, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Priority, Targeting
from wedsync.broadcast.v1.directory_pb2 import SetWeddingTeamRequest

from stack.world import CAST, FIRST_TEAM, demo_id
from tests.e2e.client import CALL_S, Client, eventually

WEDDING = str(demo_id("wedding-1"))
TEAM = [CAST[number - 1].name for number in FIRST_TEAM]


def ahead(seconds: float) -> Timestamp:
    """A time so far from now."""
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return moment


async def until(moment: Timestamp) -> None:
    """Return once it is later than that."""

    async def is_over() -> bool:
        return datetime.now(UTC) > moment.ToDatetime(UTC)

    await eventually(is_over, "a moment to pass")


async def until_state(client: Client, broadcast_id: str, state: "BroadcastState.ValueType") -> None:
    """Return once a broadcast is in this state."""

    async def is_there() -> bool:
        return (await client.show(broadcast_id)).broadcast.state == state

    await eventually(is_there, BroadcastState.Name(state), deadline_s=60.0)


@contextmanager
def standing_still(client: Client, service: str) -> Iterator[None]:
    """With all processes of a service stopped where they are, as on a machine that hangs."""
    processes = client.stack.services(service)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                process.resume()


async def test_due_times_outlive_the_sender(client: Client) -> None:
    """It hangs before they come and is killed after them: the next one sends what is valid, and the rest expires."""
    only = Targeting(user_ids=[str(demo_id("venue"))])
    due, over = ahead(3), ahead(4)
    late = await client.send("admin", targeting=only, scheduled_for=due, expires_at=over)
    valid = await client.send("admin", targeting=only, scheduled_for=due, expires_at=ahead(3_600))
    far = await client.send("admin", targeting=only, scheduled_for=ahead(3_600))
    with standing_still(client, "sender"):
        await until(over)
        assert client.stack.kill("sender")
    await eventually(lambda: is_there(client, valid), "a sender that answers", deadline_s=60.0)
    await client.sent(valid)
    await until_state(client, late, BroadcastState.BROADCAST_STATE_EXPIRED)
    assert await client.has("venue", valid)
    assert not await client.has("venue", late)
    assert (await client.show(far)).broadcast.state == BroadcastState.BROADCAST_STATE_PENDING


async def is_there(client: Client, broadcast_id: str) -> bool:
    """Whether the sender answers again."""
    try:
        await client.show(broadcast_id)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_what_expires_while_nobody_dispatches_is_not_delivered(client: Client) -> None:
    """The dispatchers hang: what was accepted meanwhile and is valid goes out afterwards, of every priority."""
    only = Targeting(user_ids=[str(demo_id("venue"))])
    with standing_still(client, "dispatcher"):
        over = ahead(2)
        late = await client.send("admin", targeting=only, expires_at=over)
        valid = [
            await client.send("admin", type="payment.required", targeting=only, priority=priority)
            for priority in (Priority.PRIORITY_LOW, Priority.PRIORITY_NORMAL, Priority.PRIORITY_HIGH)
        ]
        valid.append(
            await client.send(
                "coordinator",
                type="wedding.emergency",
                wedding_id=WEDDING,
                priority=Priority.PRIORITY_CRITICAL,
            )
        )
        await until(over)
    for broadcast_id in valid:
        await client.sent(broadcast_id)
        assert await client.has("venue", broadcast_id)
    await until_state(client, late, BroadcastState.BROADCAST_STATE_EXPIRED)
    assert not await client.has("venue", late)


async def test_a_right_that_is_gone_when_it_is_due_sends_nothing(client: Client) -> None:
    """The coordinator is taken off the team before their change of plan is due: it fails and says why."""
    operator = client.service("directory.write")
    members = [str(demo_id(name)) for name in TEAM]
    broadcast_id = await client.send(
        "coordinator", type="timeline.changed", wedding_id=WEDDING, scheduled_for=ahead(2)
    )
    without = [user_id for user_id in members if user_id != str(demo_id("coordinator"))]
    try:
        await client.directory.SetWeddingTeam(
            SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=without), metadata=operator, timeout=CALL_S
        )
        await until_state(client, broadcast_id, BroadcastState.BROADCAST_STATE_FAILED)
    finally:
        await client.directory.SetWeddingTeam(
            SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=members), metadata=operator, timeout=CALL_S
        )
    shown = await client.show(broadcast_id)
    assert shown.broadcast.error.startswith("SENDER_LOST_RIGHT: ")
    assert not await client.has("venue", broadcast_id)
