"""What people live through: news for all, changes for one team, an emergency, a mistake, a team that changes."""

from uuid import uuid4

import grpc
from wedsync.broadcast.v1.common_pb2 import (
    BroadcastState,
    Channel,
    DeliveryState,
    Priority,
    ReceiptAction,
    SuppressionReason,
    Targeting,
)
from wedsync.broadcast.v1.directory_pb2 import SetWeddingTeamRequest
from wedsync.broadcast.v1.dispatcher_pb2 import GetDispatchRequest, PauseDispatchRequest
from wedsync.broadcast.v1.inbox_pb2 import (
    GetUnreadCountRequest,
    ListInboxItemsRequest,
    MarkAllReadRequest,
    RecordReceiptsRequest,
)
from wedsync.broadcast.v1.preferences_pb2 import GetPreferencesRequest, Preferences, UpdatePreferencesRequest
from wedsync.broadcast.v1.sender_pb2 import (
    CancelBroadcastRequest,
    GetBroadcastResponse,
    PreviewAudienceRequest,
    WatchBroadcastRequest,
)

from stack.world import CAST, FIRST_TEAM, demo_id
from tests.e2e.client import CALL_S, Client, broadcast, eventually, refusal
from tests.e2e.conftest import RECIPIENTS

WEDDING = str(demo_id("wedding-1"))
TEAM = [CAST[number - 1].name for number in FIRST_TEAM]


def _sums(shown: GetBroadcastResponse) -> dict[int, int]:
    """How many deliveries the ledger has on each channel."""
    sums = {Channel.CHANNEL_REALTIME: 0, Channel.CHANNEL_IN_APP: 0}
    for entry in shown.stats.ledger:
        sums[entry.channel] += entry.count
    return {int(channel): count for channel, count in sums.items()}


async def test_news_reaches_everyone_once(client: Client) -> None:
    """A broadcast to everyone is sent, its ledger adds up on each channel, and each inbox has it at most once."""
    request = broadcast(title="News for all")
    answer = await client.sender.SendBroadcast(request, metadata=client.person("admin"))
    broadcast_id, everyone = answer.broadcast.broadcast_id, answer.targeted_users
    assert everyone >= RECIPIENTS  # other stories may have brought more people
    shown = await client.sent(broadcast_id)
    assert everyone == shown.stats.targeted
    assert _sums(shown) == {Channel.CHANNEL_REALTIME: everyone, Channel.CHANNEL_IN_APP: everyone}
    for person in ("admin", "couple-amara", "photographer", "outsider"):
        assert [broadcast_id] == [
            item.broadcast_id for item in await client.items(person) if item.title == "News for all"
        ]


async def test_a_timeline_change_stays_inside_the_wall(client: Client) -> None:
    """Everyone on the team has it, and the coordinator of other weddings neither sees nor finds it."""
    async with client.watching("outsider") as outsider:
        broadcast_id = await client.send("coordinator", type="timeline.changed", wedding_id=WEDDING)
        shown = await client.sent(broadcast_id)
        assert len(TEAM) == shown.stats.targeted
        for member in TEAM:
            assert await client.has(member, broadcast_id)
        assert not await client.has("outsider", broadcast_id)
        # What comes after it on the same stream proves that it was not merely late.
        later = await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("outsider"))]))
        await outsider.until(lambda event: event.added.item.broadcast_id == later, "the later broadcast")
        assert broadcast_id not in outsider.added()


async def test_an_open_stream_shows_a_broadcast_once(client: Client) -> None:
    """Two devices of one person each show it once, with the text, and the other person's shows nothing of it."""
    everyone = Targeting(user_ids=[str(demo_id("photographer"))])
    async with (
        client.watching("photographer") as phone,
        client.watching("photographer") as laptop,
        client.watching("florist") as florist,
    ):
        broadcast_id = await client.send("admin", targeting=everyone, title="Only for Petra")
        for device in (phone, laptop):
            event = await device.until(
                lambda event: event.added.item.broadcast_id == broadcast_id, "the item"
            )
            assert event.added.item.title == "Only for Petra"
        last = await client.send("admin", title="For all again")
        for device in (phone, laptop, florist):
            await device.until(lambda event: event.added.item.broadcast_id == last, "the last one")
        assert [device.added().count(broadcast_id) for device in (phone, laptop, florist)] == [1, 1, 0]


async def test_a_stream_goes_on_from_its_cursor(client: Client) -> None:
    """What arrives while nobody watches comes first on the next stream, and nothing comes twice."""
    async with client.watching("venue") as before:
        first = await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("venue"))]))
        seen = await before.until(lambda event: event.added.item.broadcast_id == first, "the first")
    missed = await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("venue"))]))
    await client.sent(missed)
    async with client.watching("venue", seen.cursor) as after:
        await after.until(lambda event: event.added.item.broadcast_id == missed, "the missed one")
        assert [missed] == after.added()


async def test_an_emergency_is_acknowledged(client: Client) -> None:
    """Acknowledging counts in the sender's view, cannot be skipped by dismissing, and reads the item everywhere."""
    broadcast_id = await client.send(
        "coordinator",
        type="wedding.emergency",
        priority=Priority.PRIORITY_CRITICAL,
        title="Venue flooded",
        wedding_id=WEDDING,
    )
    await client.sent(broadcast_id)
    metadata = client.person("couple-amara")
    acknowledge = RecordReceiptsRequest(
        broadcast_ids=[broadcast_id], action=ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED
    )
    async with client.watching("couple-amara") as other_device:
        answer = await client.inbox.RecordReceipts(acknowledge, metadata=metadata, timeout=CALL_S)
        again = await client.inbox.RecordReceipts(acknowledge, metadata=metadata, timeout=CALL_S)
        assert answer.receipts == again.receipts
        updated = await other_device.until(lambda event: event.HasField("updated"), "the receipt")
        assert [broadcast_id] == [receipt.broadcast_id for receipt in updated.updated.receipts]
    shown = await client.show(broadcast_id, "coordinator")
    assert (shown.stats.engagement.read, shown.stats.engagement.acknowledged) == (1, 1)
    assert len(TEAM) == shown.stats.engagement.delivered


async def test_mark_all_read_empties_the_badge(client: Client) -> None:
    """One call reads everything, and the badge is 0 on list, count and stream."""
    metadata = client.person("florist")
    await client.sent(await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("florist"))])))
    await client.inbox.MarkAllRead(MarkAllReadRequest(), metadata=metadata, timeout=CALL_S)
    count = await client.inbox.GetUnreadCount(GetUnreadCountRequest(), metadata=metadata, timeout=CALL_S)
    listed = await client.inbox.ListInboxItems(
        ListInboxItemsRequest(unread_only=True), metadata=metadata, timeout=CALL_S
    )
    assert (count.unread_count, listed.unread_count, listed.total_count) == (0, 0, 0)


async def test_a_retracted_broadcast_leaves_inboxes_and_screens(client: Client) -> None:
    """Cancel with retract takes it out of every inbox and off the open stream, and says from how many."""
    async with client.watching("photographer") as screen:
        broadcast_id = await client.send(
            "admin", targeting=Targeting(roles=["photographer"]), title="Too early"
        )
        await screen.until(lambda event: event.added.item.broadcast_id == broadcast_id, "the item")
        shown = await client.sent(broadcast_id)
        answer = await client.sender.CancelBroadcast(
            CancelBroadcastRequest(broadcast_id=broadcast_id, reason="by mistake", retract=True),
            metadata=client.person("admin"),
            timeout=CALL_S,
        )
        await screen.until(lambda event: broadcast_id in event.retracted.broadcast_ids, "the retraction")
    assert shown.stats.engagement.delivered == answer.already_sent
    assert answer.broadcast.state == BroadcastState.BROADCAST_STATE_CANCELLED
    assert not await client.has("photographer", broadcast_id)


async def test_a_cancelled_schedule_never_arrives(client: Client) -> None:
    """A broadcast for tomorrow is pending; cancelled, it is gone for all of its audience."""
    request = broadcast(targeting=Targeting(user_ids=[str(demo_id("venue"))]))
    request.scheduled_for.GetCurrentTime()
    request.scheduled_for.seconds += 86_400
    sent = await client.sender.SendBroadcast(request, metadata=client.person("admin"), timeout=CALL_S)
    assert sent.broadcast.state == BroadcastState.BROADCAST_STATE_PENDING
    cancelled = await client.sender.CancelBroadcast(
        CancelBroadcastRequest(broadcast_id=sent.broadcast.broadcast_id),
        metadata=client.person("admin"),
        timeout=CALL_S,
    )
    assert (cancelled.broadcast.state, cancelled.already_sent) == (
        BroadcastState.BROADCAST_STATE_CANCELLED,
        0,
    )


async def test_a_team_that_changes_loses_and_regains_its_items(client: Client) -> None:
    """Someone taken off the team loses its items from list and stream at once; put back, they return."""
    broadcast_id = await client.send("coordinator", type="timeline.changed", wedding_id=WEDDING)
    await client.sent(broadcast_id)
    operator = client.service("directory.write")
    members = [str(demo_id(name)) for name in TEAM]
    without = [user_id for user_id in members if user_id != str(demo_id("florist"))]
    async with client.watching("florist") as screen:
        answer = await client.directory.SetWeddingTeam(
            SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=without), metadata=operator, timeout=CALL_S
        )
        assert (answer.removed, answer.inbox_applied) == (1, True)
        assert not await client.has("florist", broadcast_id)

        async def gone() -> bool:
            shown = [event.snapshot for event in screen.events if event.HasField("snapshot")][-1]
            return broadcast_id not in {item.broadcast_id for item in shown.items}

        await eventually(gone, "the item to leave the open stream")
    await client.directory.SetWeddingTeam(
        SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=members), metadata=operator, timeout=CALL_S
    )
    assert await client.has("florist", broadcast_id)


async def test_a_muted_category_is_suppressed_and_essential_stays_findable(client: Client) -> None:
    """Business off: a trial notice is suppressed with the reason, a payment notice is silent in the inbox."""
    metadata = client.person("photographer")
    before = await client.preferences.GetPreferences(
        GetPreferencesRequest(), metadata=metadata, timeout=CALL_S
    )
    await _set_business(client, before.preferences.etag, on=False)
    only_petra = Targeting(user_ids=[str(demo_id("photographer"))])
    trial = await client.send("admin", type="trial.ending", targeting=only_petra)
    payment = await client.send("admin", type="payment.required", targeting=only_petra)
    shown = await client.sent(trial)
    assert {
        (Channel.CHANNEL_IN_APP, DeliveryState.DELIVERY_STATE_SUPPRESSED),
        (Channel.CHANNEL_REALTIME, DeliveryState.DELIVERY_STATE_SUPPRESSED),
    } == {(entry.channel, entry.state) for entry in shown.stats.ledger}
    assert {SuppressionReason.SUPPRESSION_REASON_CATEGORY_MUTED} == {
        entry.reason for entry in shown.stats.ledger
    }
    assert not await client.has("photographer", trial)
    await client.sent(payment)
    assert [item.silent for item in await client.items("photographer") if item.broadcast_id == payment] == [
        True
    ]
    await _set_business(client, "", on=True)


async def _set_business(client: Client, etag: str, *, on: bool) -> None:
    request = UpdatePreferencesRequest(preferences=Preferences(business=on, etag=etag))
    request.update_mask.paths.append("business")
    await client.preferences.UpdatePreferences(
        request, metadata=client.person("photographer"), timeout=CALL_S
    )


async def test_a_preview_says_what_the_send_then_does(client: Client) -> None:
    """The ledger of a preview is the ledger of the broadcast that is sent right after it."""
    targeting = Targeting(roles=["photographer", "florist"], tiers=["enterprise"])
    preview = await client.sender.PreviewAudience(
        PreviewAudienceRequest(type="feature.released", targeting=targeting),
        metadata=client.person("admin"),
        timeout=CALL_S,
    )
    shown = await client.sent(await client.send("admin", targeting=targeting))
    assert preview.targeted == shown.stats.targeted

    def people(entries: object) -> dict[tuple[int, bool], int]:
        found: dict[tuple[int, bool], int] = {}
        for entry in entries:  # type: ignore[attr-defined]
            key = (entry.channel, entry.state == DeliveryState.DELIVERY_STATE_SUPPRESSED)
            found[key] = found.get(key, 0) + entry.count
        return found

    assert people(preview.ledger) == people(shown.stats.ledger)


async def test_the_same_request_id_is_one_broadcast(client: Client) -> None:
    """A retry answers as the first call did, and the inbox has one item."""
    request = broadcast(
        request_id=str(uuid4()), targeting=Targeting(user_ids=[str(demo_id("venue"))]), title="Once"
    )
    metadata = client.person("admin")
    first = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
    second = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
    assert first == second
    await client.sent(first.broadcast.broadcast_id)
    assert [first.broadcast.broadcast_id] == [
        item.broadcast_id for item in await client.items("venue") if item.title == "Once"
    ]


async def test_an_audience_of_nobody_is_accepted_and_sent(client: Client) -> None:
    """A role that nobody has: targeted 0, state sent."""
    request = broadcast(targeting=Targeting(roles=["astronaut"]))
    answer = await client.sender.SendBroadcast(request, metadata=client.person("admin"), timeout=CALL_S)
    assert answer.targeted_users == 0
    shown = await client.sent(answer.broadcast.broadcast_id)
    assert (shown.stats.targeted, len(shown.stats.ledger)) == (0, 0)


async def test_progress_is_streamed_until_it_is_final(client: Client) -> None:
    """The stream ends by itself, and its last message says sent."""
    broadcast_id = await client.send("admin", targeting=Targeting(roles=["astronaut"]))
    states = [
        progress.state
        async for progress in client.sender.WatchBroadcast(
            WatchBroadcastRequest(broadcast_id=broadcast_id), metadata=client.person("admin"), timeout=CALL_S
        )
    ]
    assert states[-1] == BroadcastState.BROADCAST_STATE_SENT


async def test_what_is_not_served_yet_says_so(client: Client) -> None:
    """A declared RPC answers UNIMPLEMENTED to those who may call it."""
    code, details = await refusal(
        client.dispatcher.PauseDispatch(
            PauseDispatchRequest(), metadata=client.person("admin"), timeout=CALL_S
        )
    )
    assert (code, details.reason_name) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


async def test_the_plan_can_be_read(client: Client) -> None:
    """GetDispatch answers for a broadcast that was sent, to somebody who has no quiet hours: at night more is held."""
    broadcast_id = await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("admin"))]))
    await client.sent(broadcast_id)
    answer = await client.dispatcher.GetDispatch(
        GetDispatchRequest(broadcast_id=broadcast_id), metadata=client.person("admin"), timeout=CALL_S
    )
    assert (
        answer.dispatch.targeted,
        answer.dispatch.chunks_total,
        answer.dispatch.chunks_done,
    ) == (1, 1, 1)
