"""Between the contract's messages and the dispatcher's own words: nothing is lost, and what is broken is refused."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from wedsync.broadcast.v1 import audience_pb2, common_pb2, dispatcher_pb2, events_pb2, sender_pb2

from services.dispatcher.domain import (
    Category,
    Channel,
    ChunkCount,
    ChunkState,
    DeliveryState,
    DispatchState,
    Kind,
    Priority,
    Reason,
)
from services.dispatcher.messages import (
    BrokenMessage,
    delivery_payload,
    dispatch_message,
    due_of,
    order_of,
    reports,
    rules_message,
    slice_of,
    state_payload,
)
from services.dispatcher.snapshot import BrokenSnapshot, Slice
from services.dispatcher.work import Dispatch, Due, LeasedChunk, Order, Report, Rules
from shared.audience import Audience

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
ONE = uuid4()


@pytest.mark.parametrize(
    ("words", "prefix", "contract"),
    [
        (Category, "CATEGORY_", common_pb2.Category),
        (Priority, "PRIORITY_", common_pb2.Priority),
        (Reason, "SUPPRESSION_REASON_", common_pb2.SuppressionReason),
        (DispatchState, "DISPATCH_STATE_", dispatcher_pb2.DispatchState),
    ],
)
def test_the_words_are_the_contracts(
    words: type[Category], prefix: str, contract: type[common_pb2.Category]
) -> None:
    """None is missing and none is invented."""
    told = {name for name in contract.keys() if not name.endswith("_UNSPECIFIED")}  # noqa: SIM118  # no dict
    assert {f"{prefix}{word.name}" for word in words} == told


def test_an_order_gives_the_rules_and_the_rules_an_order_for_decisions() -> None:
    """What depends on the broadcast reaches whoever decides."""
    wedding, other = uuid4(), uuid4()
    order = sender_pb2.DispatchOrder(
        broadcast_id=str(ONE),
        type="timeline.changed",
        category=common_pb2.CATEGORY_COLLABORATION,
        priority=common_pb2.PRIORITY_HIGH,
        essential=True,
        targeting=common_pb2.Targeting(wedding_ids=[str(wedding), str(other)]),
        wedding=common_pb2.Wedding(wedding_id=str(wedding)),
    )
    order.expires_at.FromDatetime(NOW)
    ordered = order_of(order)
    rules = Rules(
        ONE, Priority.HIGH, "timeline.changed", Category.COLLABORATION, True, wedding, (wedding, other)
    )
    assert ordered == Order(rules, NOW, order.targeting)
    assert rules_message(ordered.rules) == audience_pb2.DeliveryRules(
        type="timeline.changed",
        category=common_pb2.CATEGORY_COLLABORATION,
        priority=common_pb2.PRIORITY_HIGH,
        essential=True,
        wedding_id=str(wedding),
        wall_wedding_ids=[str(wedding), str(other)],
    )


def test_an_order_of_no_known_kind_is_refused() -> None:
    """A priority or id that is none would end in the wrong lane."""
    known = {"category": common_pb2.CATEGORY_SYSTEM, "priority": common_pb2.PRIORITY_LOW}
    for broken in ({**known, "broadcast_id": "x"}, {"broadcast_id": str(ONE)}):
        with pytest.raises(BrokenMessage):
            order_of(sender_pb2.DispatchOrder(**broken))


def test_a_slice_keeps_what_was_decided() -> None:
    """Channel, outcome, reason, release and members."""
    members = Audience.of([1, 5, 70_000])
    message = audience_pb2.AudienceSlice(
        channel=common_pb2.CHANNEL_REALTIME,
        outcome=common_pb2.DELIVERY_STATE_HELD,
        members=members.to_bytes(),
    )
    message.release_at.FromDatetime(NOW)
    assert slice_of(message) == Slice(Channel.REALTIME, DeliveryState.HELD, members, None, NOW)
    message = audience_pb2.AudienceSlice(
        channel=common_pb2.CHANNEL_IN_APP,
        outcome=common_pb2.DELIVERY_STATE_SUPPRESSED,
        reason=common_pb2.SUPPRESSION_REASON_ERASED,
        members=members.to_bytes(),
    )
    assert slice_of(message) == Slice(Channel.IN_APP, DeliveryState.SUPPRESSED, members, Reason.ERASED)


def test_a_channel_that_is_not_delivered_on_here_is_refused() -> None:
    """It would fall out of the ledger unnoticed."""
    message = audience_pb2.AudienceSlice(
        channel=common_pb2.CHANNEL_SMS,
        outcome=common_pb2.DELIVERY_STATE_PENDING,
        members=Audience.of([1]).to_bytes(),
    )
    with pytest.raises(BrokenSnapshot):
        slice_of(message)


def test_events_say_what_they_must() -> None:
    """The inbox gets the chunks, and the sender what has become of them."""
    chunks = [
        LeasedChunk(ONE, 3, Priority.HIGH, Kind.SILENT_ITEM, 2, b"bitmap"),
        LeasedChunk(ONE, 4, Priority.HIGH, Kind.ITEM, 1, b"another"),
    ]
    silent, loud = events_pb2.InboxDeliveries.FromString(delivery_payload(chunks)).deliveries
    assert silent == events_pb2.InboxDelivery(
        broadcast_id=str(ONE),
        chunk=3,
        epoch=2,
        kind=events_pb2.ARRIVAL_KIND_SILENT_ITEM,
        members=b"bitmap",
    )
    assert (loud.chunk, loud.epoch, loud.kind) == (4, 1, events_pb2.ARRIVAL_KIND_ITEM)
    event = events_pb2.BroadcastStateChanged.FromString(state_payload(ONE, "sent", NOW, targeted=7))
    assert (event.state, event.targeted, event.time.ToDatetime(UTC)) == (
        common_pb2.BROADCAST_STATE_SENT,
        7,
        NOW,
    )


def test_a_due_message_names_its_broadcast() -> None:
    """And how often it was announced; anything else is refused."""
    due = events_pb2.BroadcastDue(broadcast_id=str(ONE), epoch=4)
    assert due_of(due.SerializeToString()) == Due(ONE, 4, None)
    for broken in (b"\xff", b"", events_pb2.BroadcastDue(broadcast_id="1").SerializeToString()):
        with pytest.raises(BrokenMessage):
            due_of(broken)


def test_a_due_message_may_hint_at_its_order() -> None:
    """One that cannot be read is no reason not to ask for the order."""
    order = events_pb2.DueOrder(
        type="feature.released",
        category=common_pb2.CATEGORY_SYSTEM,
        priority=common_pb2.PRIORITY_LOW,
        targeting=common_pb2.Targeting(everyone=True),
    )
    due = events_pb2.BroadcastDue(broadcast_id=str(ONE), epoch=1, order=order)
    rules = Rules(ONE, Priority.LOW, "feature.released", Category.SYSTEM, False, None, ())
    hint = Order(rules, None, common_pb2.Targeting(everyone=True))
    assert due_of(due.SerializeToString()) == Due(ONE, 1, hint)
    for field, broken in (("priority", 0), ("wedding_id", "x"), ("targeting", {"wedding_ids": ["x"]})):
        unread = events_pb2.DueOrder(
            **{each.name: value for each, value in order.ListFields()} | {field: broken}
        )
        due = events_pb2.BroadcastDue(broadcast_id=str(ONE), epoch=1, order=unread)
        assert due_of(due.SerializeToString()) == Due(ONE, 1, None)


def test_a_report_says_merged_or_stopped() -> None:
    """With a chunk and a size that can be, for each chunk of a message."""
    message = events_pb2.DeliveryReport(
        broadcast_id=str(ONE), chunk=2, size=9, outcome=events_pb2.REPORT_OUTCOME_MERGED
    )
    stopped = events_pb2.DeliveryReport(
        broadcast_id=str(ONE), chunk=3, outcome=events_pb2.REPORT_OUTCOME_STOPPED
    )
    assert reports(_reports(message, stopped)) == [
        Report(ONE, 2, 9, is_merged=True),
        Report(ONE, 3, 0, is_merged=False),
    ]
    with pytest.raises(BrokenMessage):
        reports(_reports())
    for field, value in (("chunk", -1), ("size", -1), ("outcome", 0), ("broadcast_id", "")):
        broken = events_pb2.DeliveryReport()
        broken.CopyFrom(message)
        setattr(broken, field, value)
        with pytest.raises(BrokenMessage):
            reports(_reports(message, broken))


def _reports(*messages: events_pb2.DeliveryReport) -> bytes:
    return events_pb2.DeliveryReports(reports=messages).SerializeToString()


def test_a_dispatch_is_shown_with_its_ledger() -> None:
    """Counts by channel, state and reason, and times that are absent while they are not known."""
    dispatch = Dispatch(
        ONE,
        DispatchState.DISPATCHING,
        Priority.LOW,
        targeted=9,
        directory_version=5,
        plan_time=NOW,
        counts=(
            ChunkCount(Kind.ITEM, ChunkState.DONE, None, None, 1, 4),
            ChunkCount(Kind.ITEM, ChunkState.LEASED, None, None, 2, 3),
            ChunkCount(Kind.NONE, ChunkState.SUPPRESSED, Channel.IN_APP, Reason.ERASED, 1, 2),
        ),
    )
    message = dispatch_message(dispatch)
    assert (message.chunks_total, message.chunks_done) == (3, 1)
    assert message.priority == common_pb2.PRIORITY_LOW
    assert not message.HasField("close_time")
    assert not message.HasField("next_release_time")
    assert [(line.channel, line.state, line.reason, line.count) for line in message.ledger] == [
        (common_pb2.CHANNEL_IN_APP, common_pb2.DELIVERY_STATE_DELIVERED, 0, 4),
        (common_pb2.CHANNEL_IN_APP, common_pb2.DELIVERY_STATE_PENDING, 0, 3),
        (
            common_pb2.CHANNEL_IN_APP,
            common_pb2.DELIVERY_STATE_SUPPRESSED,
            common_pb2.SUPPRESSION_REASON_ERASED,
            2,
        ),
        (common_pb2.CHANNEL_REALTIME, common_pb2.DELIVERY_STATE_PENDING, 0, 3),
        (common_pb2.CHANNEL_REALTIME, common_pb2.DELIVERY_STATE_SENT, 0, 4),
    ]
