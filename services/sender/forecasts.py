"""Sums up what an audience would get now, for whoever is about to send."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import audience_pb2, common_pb2, sender_pb2

from services.sender.directory import Forecast
from services.sender.messages import time_of

_Line: TypeAlias = tuple[
    "common_pb2.Channel.ValueType",
    "common_pb2.DeliveryState.ValueType",
    "common_pb2.SuppressionReason.ValueType",
]
_HOUR_S: Final = 3600
# The state in which a delivery that is made now ends, where it is not `sent`.
_DELIVERED_NOW: Final = {common_pb2.CHANNEL_IN_APP: common_pb2.DELIVERY_STATE_DELIVERED}


def preview_message(
    forecast: Forecast, expires_at: datetime | None, unknown_user_ids: int
) -> sender_pb2.PreviewAudienceResponse:
    """The ledger that would come of it, when what is held would be released, and who sleeps past the expiry."""
    held = [each for each in forecast.slices if each.outcome == common_pb2.DELIVERY_STATE_HELD]
    return sender_pb2.PreviewAudienceResponse(
        targeted=forecast.count.targeted,
        unknown_user_ids=unknown_user_ids,
        ledger=_ledger(forecast.slices),
        held=_held_by_hour(held),
        asleep_past_expiry=_asleep_past(held, expires_at) if expires_at else 0,
    )


def _ledger(slices: Iterable[audience_pb2.AudienceSlice]) -> list[common_pb2.LedgerEntry]:
    counts: Counter[_Line] = Counter()
    for each in slices:
        counts[each.channel, _final_state(each), each.reason] += each.count
    return [
        common_pb2.LedgerEntry(channel=channel, state=state, reason=reason, count=count)
        for (channel, state, reason), count in sorted(counts.items())
    ]


def _final_state(part: audience_pb2.AudienceSlice) -> "common_pb2.DeliveryState.ValueType":
    if part.outcome != common_pb2.DELIVERY_STATE_PENDING:
        return part.outcome
    return _DELIVERED_NOW.get(part.channel, common_pb2.DELIVERY_STATE_SENT)


def _held_by_hour(held: Iterable[audience_pb2.AudienceSlice]) -> list[sender_pb2.HeldHour]:
    counts: Counter[tuple[common_pb2.Channel.ValueType, int]] = Counter()
    for each in held:
        counts[each.channel, each.release_at.seconds // _HOUR_S * _HOUR_S] += each.count
    return [
        sender_pb2.HeldHour(channel=channel, hour=Timestamp(seconds=hour), count=count)
        for (channel, hour), count in sorted(counts.items())
    ]


def _asleep_past(held: Iterable[audience_pb2.AudienceSlice], expires_at: datetime) -> int:
    """People whose hold outlasts the expiry. A person's window is the same on every channel that it holds up."""
    counts: Counter[int] = Counter()
    for each in held:
        released_at = time_of(each.release_at)
        if released_at is not None and released_at >= expires_at:
            counts[each.channel] += each.count
    return max(counts.values(), default=0)
