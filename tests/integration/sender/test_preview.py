"""PreviewAudience: what would come of a send, without sending, and under the same rights."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import audience_pb2, common_pb2, sender_pb2

from tests.integration.sender.site import Metadata, Site, a_send
from tests.integration.shared.edge import refusal_of

IN_APP, REALTIME = common_pb2.CHANNEL_IN_APP, common_pb2.CHANNEL_REALTIME
HELD, SUPPRESSED = common_pb2.DELIVERY_STATE_HELD, common_pb2.DELIVERY_STATE_SUPPRESSED
MUTED = common_pb2.SUPPRESSION_REASON_CATEGORY_MUTED
SIX = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0) + timedelta(days=1)


def a_slice(
    channel: int, outcome: int, count: int, reason: int = 0, release_at: datetime | None = None
) -> audience_pb2.AudienceSlice:
    """A part of an audience."""
    part = audience_pb2.AudienceSlice(channel=channel, outcome=outcome, reason=reason, count=count)  # type: ignore[arg-type]
    if release_at is not None:
        part.release_at.FromDatetime(release_at)
    return part


async def preview(site: Site, caller: Metadata, **fields: object) -> sender_pb2.PreviewAudienceResponse:
    """A preview of something that may be sent."""
    usual = {"type": "feature.released", "targeting": {"everyone": True}}
    request = sender_pb2.PreviewAudienceRequest(**(usual | fields))  # type: ignore[arg-type]
    return await site.stub.PreviewAudience(request, metadata=caller)


def at(moment: datetime) -> Timestamp:
    """As a message."""
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


async def test_preview_adds_up_what_everybody_would_get(site: Site) -> None:
    """By channel, state and reason, as the ledger would have it; held ones by the hour of their release."""
    _, admin = site.person("admin")
    pending = common_pb2.DELIVERY_STATE_PENDING
    site.neighbours.preferences.slices = [
        a_slice(IN_APP, pending, 7),
        a_slice(IN_APP, SUPPRESSED, 3, MUTED),
        a_slice(REALTIME, pending, 2),
        a_slice(REALTIME, HELD, 1, release_at=SIX),
        a_slice(REALTIME, HELD, 2, release_at=SIX + timedelta(minutes=30)),
        a_slice(REALTIME, HELD, 2, release_at=SIX + timedelta(hours=2)),
        a_slice(REALTIME, SUPPRESSED, 3, MUTED),
    ]
    unknown = str(uuid4())
    answer = await preview(site, admin, targeting={"roles": ["admin"], "user_ids": [unknown]})
    assert answer.targeted == 1
    assert [(line.channel, line.state, line.reason, line.count) for line in answer.ledger] == [
        (REALTIME, HELD, 0, 5),
        (REALTIME, common_pb2.DELIVERY_STATE_SENT, 0, 2),
        (REALTIME, SUPPRESSED, MUTED, 3),
        (IN_APP, common_pb2.DELIVERY_STATE_DELIVERED, 0, 7),
        (IN_APP, SUPPRESSED, MUTED, 3),
    ]
    assert [(hour.channel, hour.hour.ToDatetime(UTC), hour.count) for hour in answer.held] == [
        (REALTIME, SIX, 3),
        (REALTIME, SIX + timedelta(hours=2), 2),
    ]
    assert answer.asleep_past_expiry == 0


async def test_preview_tells_who_would_sleep_past_the_expiry(site: Site) -> None:
    """An alert that is released at the moment of expiry comes too late."""
    _, admin = site.person("admin")
    site.neighbours.preferences.slices = [
        a_slice(REALTIME, HELD, 1, release_at=SIX - timedelta(seconds=1)),
        a_slice(REALTIME, HELD, 2, release_at=SIX),
        a_slice(REALTIME, HELD, 4, release_at=SIX + timedelta(hours=1)),
    ]
    assert (await preview(site, admin, expires_at=at(SIX))).asleep_past_expiry == 6


async def test_preview_asks_with_the_rules_of_the_send(site: Site) -> None:
    """Type, category, priority, essential, wedding and wall; numbers only, and nothing is kept."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    before = await site.count("broadcasts"), await site.count("outbox")
    await preview(site, coordinator, type="timeline.changed", wedding_id=wedding_id, targeting={})
    (asked,) = site.neighbours.preferences.resolved
    assert asked.counts_only
    assert list(asked.targeting.wedding_ids) == [wedding_id]
    assert asked.rules == audience_pb2.DeliveryRules(
        type="timeline.changed",
        category=common_pb2.CATEGORY_COLLABORATION,
        priority=common_pb2.PRIORITY_HIGH,
        essential=True,
        wedding_id=wedding_id,
        wall_wedding_ids=[wedding_id],
    )
    assert before == (await site.count("broadcasts"), await site.count("outbox"))


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"type": "no.such.type"}, "type"),
        ({"targeting": {}}, "targeting"),
        ({"priority": common_pb2.PRIORITY_CRITICAL}, "priority"),
        ({"type": "wedding.cancelled"}, "wedding_id"),
        ({"expires_at": Timestamp(seconds=1)}, "expires_at"),
        ({"targeting": {"everyone": True, "tiers": ["free"]}}, "targeting.everyone"),
    ],
)
async def test_preview_is_held_to_the_rules_of_a_send(
    site: Site, fields: dict[str, object], broken: str
) -> None:
    """What could not be sent is not counted either."""
    _, admin = site.person("admin")
    refusal = await refusal_of(preview(site, admin, **fields))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (broken,))


async def test_preview_is_for_those_who_may_send_it(site: Site) -> None:
    """Counts of somebody else's team are somebody else's."""
    user_id, coordinator = site.person("coordinator")
    own, other = site.wedding(user_id), site.wedding()
    _, couple = site.person("couple")
    assert (await refusal_of(preview(site, couple))).reason == "PERMISSION_DENIED"
    assert (await refusal_of(preview(site, coordinator))).reason == "PERMISSION_DENIED"
    beyond = preview(site, coordinator, type="form.locked", targeting={"wedding_ids": [own, other]})
    assert (await refusal_of(beyond)).reason == "OUTSIDE_REACH"
    _, admin = site.person("admin")
    missing = preview(site, admin, targeting={"wedding_ids": [str(uuid4())]})
    assert (await refusal_of(missing)).code is grpc.StatusCode.NOT_FOUND
    billing = site.service("broadcast.send:payment.required")
    assert (await refusal_of(preview(site, billing))).reason == "PERMISSION_DENIED"


async def test_coordinator_cannot_tell_strangers_from_nobody(site: Site) -> None:
    """Who is on none of the teams that they send to counts as unknown; an admin is told who is unknown indeed."""
    user_id, coordinator = site.person("coordinator")
    stranger, _ = site.person("florist")
    about = {"type": "form.locked", "wedding_id": site.wedding(user_id)}
    for caller, counted in ((coordinator, [1, 1]), (site.person("admin")[1], [0, 1])):
        targetings = [{"user_ids": [user_id, each]} for each in (stranger, str(uuid4()))]
        previews = [await preview(site, caller, **about, targeting=each) for each in targetings]
        sends = [
            await site.send(caller, a_send(**about, targeting=each, validate_only=True))
            for each in targetings
        ]
        assert [answer.unknown_user_ids for answer in previews] == counted
        assert [answer.unknown_user_ids for answer in sends] == counted
        assert {answer.targeted for answer in previews} | {answer.targeted_users for answer in sends} == {1}


async def test_preview_without_the_directory_is_unavailable(site: Site) -> None:
    """There is nothing to count with."""
    site.neighbours.preferences.is_down = True
    refusal = await refusal_of(preview(site, site.service("broadcast.send")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
