"""Cancels before, during and after a broadcast goes out: once one is answered nothing starts, and the counts add up."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1.common_pb2 import (
    BroadcastState,
    Channel,
    DeliveryState,
    Priority,
    Targeting,
)
from wedsync.broadcast.v1.directory_pb2 import Recipient, UpsertRecipientsRequest, UserType
from wedsync.broadcast.v1.events_pb2 import ArrivalKind, InboxDeliveries, InboxDelivery
from wedsync.broadcast.v1.inbox_pb2 import GetUnreadCountRequest
from wedsync.broadcast.v1.preferences_pb2 import Preferences, QuietHours, UpdatePreferencesRequest
from wedsync.broadcast.v1.sender_pb2 import CancelBroadcastRequest, CancelBroadcastResponse

from shared import messaging, subjects
from shared.audience import Audience
from shared.messaging import MessagingSettings
from stack.credentials import Secrets
from tests.e2e.client import CALL_S, Client, broadcast, eventually

CANCELLED: Final = BroadcastState.BROADCAST_STATE_CANCELLED
UNKNOWN: Final = 700
HELD: Final = (Channel.CHANNEL_REALTIME, DeliveryState.DELIVERY_STATE_HELD)


async def newcomer(client: Client) -> UUID:
    """Somebody whom no other test knows, without quiet hours."""
    user_id = uuid4()
    person = Recipient(
        user_id=str(user_id),
        display_name="Newcomer",
        role="calligrapher",
        user_type=UserType.USER_TYPE_SUPPLIER,
        tier="free",
        time_zone="UTC",
    )
    await client.directory.UpsertRecipients(
        UpsertRecipientsRequest(recipients=[person]),
        metadata=client.service("directory.write"),
        timeout=CALL_S,
    )
    return user_id


async def sleep(client: Client, user_id: UUID, *, asleep: bool) -> None:
    """Have somebody's quiet hours be now, or not at all."""
    now = datetime.now(UTC)
    start, end = now - timedelta(hours=1), now + timedelta(hours=2)
    quiet = QuietHours(
        enabled=asleep,
        start=TimeOfDay(hours=start.hour, minutes=start.minute),
        end=TimeOfDay(hours=end.hour, minutes=end.minute),
        time_zone="UTC",
    )
    await client.preferences.UpdatePreferences(
        UpdatePreferencesRequest(
            preferences=Preferences(quiet_hours=quiet), update_mask=FieldMask(paths=["quiet_hours"])
        ),
        metadata=client.person(user_id),
        timeout=CALL_S,
    )


def only(*people: UUID) -> Targeting:
    """These people."""
    return Targeting(user_ids=map(str, people))


async def cancel(client: Client, broadcast_id: str, *, retract: bool = False) -> CancelBroadcastResponse:
    """A cancel."""
    return await client.sender.CancelBroadcast(
        CancelBroadcastRequest(broadcast_id=broadcast_id, retract=retract),
        metadata=client.person("admin"),
        timeout=CALL_S,
    )


async def unread(client: Client, user_id: UUID) -> int:
    """Somebody's badge."""
    answer = await client.inbox.GetUnreadCount(
        GetUnreadCountRequest(), metadata=client.person(user_id), timeout=CALL_S
    )
    return answer.unread_count


async def execute(client: Client, statement: str, *arguments: object) -> object:
    """What an administrator's statement answers."""
    connection = await asyncpg.connect(client.stack.environment["DATABASE_URL"])
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


async def test_cancelled_before_its_time_it_never_arrives(client: Client) -> None:
    """All who were meant are stopped; what was due at the same moment arrives, and it does not."""
    person = await newcomer(client)
    due = Timestamp()
    due.FromDatetime(datetime.now(UTC) + timedelta(seconds=1.5))
    doomed, other = [await client.send("admin", targeting=only(person), scheduled_for=due) for _ in range(2)]
    answer = await cancel(client, doomed)
    assert (answer.broadcast.state, answer.stopped, answer.already_sent) == (CANCELLED, 1, 0)
    await client.sent(other)
    assert [other] == [item.broadcast_id for item in await client.items(person)]
    assert (await client.show(doomed)).broadcast.state == CANCELLED


async def test_cancelled_on_its_way_it_reaches_nobody_else(client: Client) -> None:
    """The inbox stands still while chunks leave: the cancel waits for its word, and what comes later is stopped."""
    person = await newcomer(client)
    inboxes = client.stack.services("inbox")
    for process in inboxes:
        process.suspend()
    try:
        request = broadcast(type="payment.required", priority=Priority.PRIORITY_LOW)
        sent = await client.sender.SendBroadcast(request, metadata=client.person("admin"), timeout=CALL_S)
        broadcast_id, targeted = sent.broadcast.broadcast_id, sent.targeted_users

        async def is_on_its_way() -> bool:
            return bool(
                await execute(
                    client,
                    "SELECT count(*) > 0 FROM dispatcher.chunks WHERE broadcast_id = $1 AND state = 'leased'",
                    UUID(broadcast_id),
                )
            )

        await eventually(is_on_its_way, "a chunk to leave")
        cancelling = asyncio.ensure_future(cancel(client, broadcast_id))
        await eventually(lambda: is_stopped(client, broadcast_id), "the dispatcher to stop")
        assert not cancelling.done(), "nothing is claimed before the inbox has confirmed it"
    finally:
        for process in inboxes:
            process.resume()
    answer = await cancelling
    assert answer.broadcast.state == CANCELLED
    assert answer.stopped + answer.already_sent == targeted
    later = await client.send("admin", type="payment.required", targeting=only(person))
    await client.sent(later)
    await eventually(lambda: is_answered_for(client, broadcast_id), "every chunk to be answered for")
    assert answer.already_sent == await arrived(client, broadcast_id)
    shown = await client.show(broadcast_id)
    for channel in (Channel.CHANNEL_REALTIME, Channel.CHANNEL_IN_APP):
        assert sum(line.count for line in shown.stats.ledger if line.channel == channel) == targeted


async def is_stopped(client: Client, broadcast_id: str) -> bool:
    """Whether the dispatcher lets nothing more of it leave."""
    statement = "SELECT state = 'stopped' FROM dispatcher.dispatches WHERE broadcast_id = $1"
    return bool(await execute(client, statement, UUID(broadcast_id)))


async def arrived(client: Client, broadcast_id: str) -> int:
    """In how many inboxes it has ever been."""
    statement = "SELECT coalesce(sum(recipients), 0) FROM inbox.arrivals WHERE broadcast_id = $1"
    return int(str(await execute(client, statement, UUID(broadcast_id))))


async def is_answered_for(client: Client, broadcast_id: str) -> bool:
    """Whether nothing of it waits, or is on its way to the inbox."""
    statement = """
        SELECT count(*) = 0 FROM dispatcher.chunks
        WHERE broadcast_id = $1 AND state IN ('pending', 'leased', 'held')
        """
    return bool(await execute(client, statement, UUID(broadcast_id)))


async def test_cancelled_while_somebody_sleeps_it_does_not_wake_them(client: Client) -> None:
    """It lies in their inbox; when their night ends, what was not cancelled rings, and it does not."""
    person = await newcomer(client)
    await sleep(client, person, asleep=True)
    async with client.watching(person) as screen:
        doomed, other = [
            await client.send("admin", type="payment.required", targeting=only(person)) for _ in range(2)
        ]
        for broadcast_id in (doomed, other):
            shown = await client.sent(broadcast_id)
            assert HELD in {(line.channel, line.state) for line in shown.stats.ledger}
        answer = await cancel(client, doomed)
        assert (answer.broadcast.state, answer.stopped, answer.already_sent) == (CANCELLED, 0, 1)
        ledger = (await client.show(doomed)).stats.ledger
        assert HELD not in {(line.channel, line.state) for line in ledger}
        await sleep(client, person, asleep=False)
        await execute(
            client, "UPDATE dispatcher.chunks SET release_at = now() WHERE release_at > now() RETURNING chunk"
        )
        await screen.until(lambda event: event.alert.item.broadcast_id == other, "the alert of the other")
        # A second round of releases is over when what was sent after the first has rung.
        last = await client.send("admin", type="payment.required", targeting=only(person))
        await screen.until(lambda event: event.added.item.broadcast_id == last, "the last one")
        alerted = [event.alert.item.broadcast_id for event in screen.events if event.HasField("alert")]
        assert alerted == [other]
    assert await client.has(person, doomed)


@pytest.mark.parametrize(
    "kind",
    [
        ArrivalKind.ARRIVAL_KIND_ITEM,
        ArrivalKind.ARRIVAL_KIND_SILENT_ITEM,
        ArrivalKind.ARRIVAL_KIND_ALERT,
    ],
)
async def test_taken_back_it_stays_away_whatever_comes_late(
    client: Client, kind: "ArrivalKind.ValueType"
) -> None:
    """It leaves list, badge and open screen; a chunk that comes again, and one that comes only now, change nothing."""
    person = await newcomer(client)
    async with client.watching(person) as screen:
        doomed = await client.send("admin", type="payment.required", targeting=only(person))
        await screen.until(lambda event: event.added.item.broadcast_id == doomed, "the item")
        await client.sent(doomed)
        assert await unread(client, person) == 1
        answer = await cancel(client, doomed, retract=True)
        assert (answer.stopped, answer.already_sent) == (0, 1)
        await screen.until(lambda event: doomed in event.retracted.broadcast_ids, "the retraction")
        await say_again(client, doomed, person, kind)
        await eventually(
            lambda: is_put_aside(client, doomed), "the inbox to have answered for what came late"
        )
        last = await client.send("admin", type="payment.required", targeting=only(person))
        await screen.until(lambda event: event.added.item.broadcast_id == last, "the last one")
        assert screen.added() == [doomed, last]
        assert not any(event.HasField("alert") for event in screen.events)
    assert [last] == [item.broadcast_id for item in await client.items(person)]
    assert await unread(client, person) == 1
    assert not await client.has(person, doomed)


async def say_again(client: Client, broadcast_id: str, person: UUID, kind: "ArrivalKind.ValueType") -> None:
    """The first chunk of a broadcast once more, and one of which no dispatcher knows."""
    number = await execute(client, "SELECT number FROM preferences.recipients WHERE user_id = $1", person)
    members = Audience.of([int(str(number))]).to_bytes()
    nats = await messaging.connect(
        MessagingSettings(
            client.stack.environment["NATS_URL"].rpartition("@")[2].join(("nats://", "")),
            "late",
            "dispatcher",
            Secrets(client.stack.state.secrets).password("nats_dispatcher"),
        )
    )
    try:
        for chunk in (0, UNKNOWN):
            late = InboxDelivery(broadcast_id=broadcast_id, chunk=chunk, epoch=9, kind=kind, members=members)
            payload = InboxDeliveries(deliveries=[late]).SerializeToString()
            await nats.publish(subjects.delivery_inbox("high"), payload, f"late:{uuid4()}")
    finally:
        await nats.drain()


async def is_put_aside(client: Client, broadcast_id: str) -> bool:
    """Whether the dispatcher has put aside the word of the inbox about the chunk that it does not know."""
    statement = "SELECT count(*) > 0 FROM dispatcher.dead_letters WHERE broadcast_id = $1 AND chunk = $2"
    return bool(await execute(client, statement, UUID(broadcast_id), UNKNOWN))


async def test_cancels_at_any_moment_count_everybody_once(client: Client) -> None:
    """Whenever it comes between send and sent: who was stopped and who had it are all who were meant, for good."""
    billing = client.service("broadcast.send", name="billing")
    for place in range(12):
        request = broadcast(type="payment.required", targeting=Targeting(tiers=["free"]))
        sent = await client.sender.SendBroadcast(request, metadata=billing, timeout=CALL_S)
        broadcast_id = sent.broadcast.broadcast_id
        await asyncio.sleep(place * 0.004)
        answer = await cancel(client, broadcast_id, retract=True)
        assert answer.stopped + answer.already_sent == sent.targeted_users
        await eventually(
            lambda each=broadcast_id: is_answered_for(client, each), "every chunk to be answered for"
        )
        assert answer.already_sent == await arrived(client, broadcast_id)
