"""Segments as people use them: made by admins, read by coordinators, sent to, and not taken away in passing."""

import json
from dataclasses import dataclass
from uuid import UUID, uuid4

import grpc
import pytest
from wedsync.broadcast.v1.common_pb2 import BroadcastState, Targeting
from wedsync.broadcast.v1.directory_pb2 import (
    CreateSegmentRequest,
    DeleteSegmentRequest,
    DeleteSegmentResponse,
    GetSegmentRequest,
    ListSegmentsRequest,
    Recipient,
    Segment,
    SegmentCriteria,
    SetWeddingTeamRequest,
    UpdateSegmentRequest,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    UserType,
    WeddingEntry,
    WeddingStatus,
)
from wedsync.broadcast.v1.sender_pb2 import (
    AuditAction,
    ListAuditEventsRequest,
    PreviewAudienceRequest,
    VerifyAuditLogRequest,
)

from stack.background import BackgroundStack
from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, broadcast, eventually, fields_of, refusal, refused_send
from tests.e2e.test_command_line import Command
from tests.e2e.test_schedules import ahead, until_state

Code = grpc.StatusCode
ACTIONS = [f"AUDIT_ACTION_SEGMENT_{action}" for action in ("DELETED", "UPDATED", "CREATED")]
FAILED = BroadcastState.BROADCAST_STATE_FAILED


@dataclass(frozen=True, slots=True)
class Harpists:
    """Two of one role: one plays at a confirmed wedding, the other at a cancelled one; and the segment of the first."""

    playing: UUID
    resting: UUID
    segment: Segment

    @property
    def targeting(self) -> Targeting:
        """Whoever is in the segment."""
        return Targeting(segment_ids=[self.segment.segment_id])


@pytest.fixture
async def harpists(client: Client) -> Harpists:
    """New ones, whom no other test knows."""
    role, writer = f"harpist-{uuid4().hex[:8]}", client.service("directory.write")
    people = [uuid4(), uuid4()]
    entries = [
        Recipient(
            user_id=str(user_id),
            display_name="Somebody",
            role=role,
            user_type=UserType.USER_TYPE_SUPPLIER,
            tier="free",
            time_zone="UTC",
        )
        for user_id in people
    ]
    upsert = UpsertRecipientsRequest(recipients=entries)
    await client.directory.UpsertRecipients(upsert, metadata=writer, timeout=CALL_S)
    for user_id, status in zip(people, ("CONFIRMED", "CANCELLED"), strict=True):
        wedding_id = str(uuid4())
        wedding = WeddingEntry(
            wedding_id=wedding_id, couple_name="A & B", status=WeddingStatus.Value(f"WEDDING_STATUS_{status}")
        )
        request = UpsertWeddingsRequest(weddings=[wedding])
        await client.directory.UpsertWeddings(request, metadata=writer, timeout=CALL_S)
        team = SetWeddingTeamRequest(wedding_id=wedding_id, user_ids=[str(user_id)])
        await client.directory.SetWeddingTeam(team, metadata=writer, timeout=CALL_S)
    criteria = SegmentCriteria(roles=[role], wedding_statuses=[WeddingStatus.WEDDING_STATUS_CONFIRMED])
    create = CreateSegmentRequest(segment=Segment(name=f"Harpists {role}", criteria=criteria))
    answer = await client.directory.CreateSegment(create, metadata=client.person("admin"), timeout=CALL_S)
    return Harpists(*people, answer.segment)


async def delete(
    client: Client, segment_id: str, who: str = "admin", *, force: bool = False
) -> DeleteSegmentResponse:
    """What a removal is answered."""
    request = DeleteSegmentRequest(segment_id=segment_id, force=force)
    return await client.directory.DeleteSegment(request, metadata=client.person(who), timeout=CALL_S)


async def update(client: Client, harpists: Harpists, change: Segment) -> None:
    """Change what is set in `change`."""
    request = UpdateSegmentRequest(segment_id=harpists.segment.segment_id, segment=change)
    await client.directory.UpdateSegment(request, metadata=client.person("admin"), timeout=CALL_S)


async def test_a_broadcast_reaches_exactly_its_segment(client: Client, harpists: Harpists) -> None:
    """As it was counted at its making, and as a preview says."""
    preview = PreviewAudienceRequest(type="feature.released", targeting=harpists.targeting)
    previewed = await client.sender.PreviewAudience(preview, metadata=client.person("admin"), timeout=CALL_S)
    broadcast_id = await client.send("admin", targeting=harpists.targeting)
    sent = await client.sent(broadcast_id)
    assert harpists.segment.user_count == previewed.targeted == sent.stats.targeted == 1
    assert await client.has(harpists.playing, broadcast_id)
    assert not await client.has(harpists.resting, broadcast_id)


async def test_coordinators_read_segments_and_send_to_none(client: Client, harpists: Harpists) -> None:
    """They may not write them either; whether there is one makes no difference to a send. Others see nothing."""
    segment_id, coordinator = harpists.segment.segment_id, client.person("coordinator")
    get = GetSegmentRequest(segment_id=segment_id)
    answer = await client.directory.GetSegment(get, metadata=coordinator, timeout=CALL_S)
    assert answer.segment.name == harpists.segment.name
    mine = UpdateSegmentRequest(segment_id=segment_id, segment=Segment(description="Mine"))
    for call in (
        client.directory.UpdateSegment(mine, metadata=coordinator, timeout=CALL_S),
        delete(client, segment_id, "coordinator"),
        client.directory.ListSegments(ListSegmentsRequest(), metadata=client.person("venue"), timeout=CALL_S),
    ):
        code, details = await refusal(call)
        assert (code, details.reason_name) == (Code.PERMISSION_DENIED, "PERMISSION_DENIED")
    refusals = [
        await refused_send(
            client,
            broadcast(
                type="journey.updated",
                targeting=Targeting(segment_ids=[each], wedding_ids=[str(demo_id("wedding-1"))]),
            ),
            "coordinator",
        )
        for each in (segment_id, str(uuid4()))
    ]
    assert [(code, details.reason_name) for code, details in refusals] == [
        (Code.PERMISSION_DENIED, "OUTSIDE_REACH")
    ] * 2


async def test_a_segment_in_use_is_not_deleted_in_passing(client: Client, harpists: Harpists) -> None:
    """Refused with the number; by force it goes, and what was scheduled with it fails and says why."""
    segment_id = harpists.segment.segment_id
    due = ahead(6)
    first = await client.send("admin", targeting=harpists.targeting, scheduled_for=due)
    second = await client.send("admin", targeting=harpists.targeting, scheduled_for=due)
    code, details = await refusal(delete(client, segment_id))
    assert (code, details.reason_name, details.metadata["broadcasts"]) == (
        Code.FAILED_PRECONDITION,
        "ILLEGAL_STATE",
        "2",
    )
    assert fields_of(details) == ["force"]
    assert (await delete(client, segment_id, force=True)).failing_broadcasts == 2
    code, _ = await refused_send(client, broadcast(targeting=harpists.targeting))
    assert code is Code.NOT_FOUND
    for broadcast_id in (first, second):
        await until_state(client, broadcast_id, FAILED)
        error = (await client.show(broadcast_id)).broadcast.error
        assert error == "NOT_FOUND: A segment that the targeting names does not exist."
        assert not await client.has(harpists.playing, broadcast_id)


async def test_what_becomes_of_a_segment_is_in_the_audit_log(client: Client, harpists: Harpists) -> None:
    """Who made, changed and removed it, in a chain that stays right."""
    segment_id, admin = harpists.segment.segment_id, client.person("admin")
    await update(client, harpists, Segment(description="Audited"))
    await delete(client, segment_id)

    async def entries() -> list[str] | None:
        request = ListAuditEventsRequest(actor=str(demo_id("admin")), page_size=100)
        page = await client.sender.ListAuditEvents(request, metadata=admin, timeout=CALL_S)
        found = [AuditAction.Name(each.action) for each in page.events if each.segment_id == segment_id]
        return found if len(found) == len(ACTIONS) else None

    assert await eventually(entries, "the entries of a segment") == ACTIONS
    verify = VerifyAuditLogRequest(page_size=100_000)
    verified = await client.sender.VerifyAuditLog(verify, metadata=admin, timeout=CALL_S)
    assert (verified.complete, verified.HasField("flaw")) == (True, False)


async def test_what_is_scheduled_with_a_segment_goes_by_it_when_it_is_due(
    client: Client, harpists: Harpists
) -> None:
    """Changed in between, it is for whoever is in it then; switched off, it fails and says why."""
    soon = await client.send("admin", targeting=harpists.targeting, scheduled_for=ahead(3))
    cancelled = SegmentCriteria(wedding_statuses=[WeddingStatus.WEDDING_STATUS_CANCELLED])
    await update(client, harpists, Segment(criteria=cancelled))
    await client.sent(soon)
    later = await client.send("admin", targeting=harpists.targeting, scheduled_for=ahead(3))
    await update(client, harpists, Segment(is_active=False))
    assert await client.has(harpists.resting, soon)
    assert not await client.has(harpists.playing, soon)
    code, details = await refused_send(client, broadcast(targeting=harpists.targeting))
    assert (code, fields_of(details)) == (Code.FAILED_PRECONDITION, ["targeting.segment_ids"])
    await until_state(client, later, FAILED)
    error = (await client.show(later)).broadcast.error
    assert error == "ILLEGAL_STATE: A segment that the targeting names is not active."


async def test_the_shipped_segments_have_people_in_the_demo(client: Client) -> None:
    """Four, counted by themselves; nobody had to make them."""

    async def counted() -> list[Segment] | None:
        answer = await client.directory.ListSegments(
            ListSegmentsRequest(page_size=100), metadata=client.person("coordinator"), timeout=CALL_S
        )
        shipped = [each for each in answer.segments if each.segment_id.startswith("5e90e000-")]
        return shipped if all(each.user_count for each in shipped) else None

    names = [
        each.name for each in await eventually(counted, "counts of the shipped segments", deadline_s=90.0)
    ]
    assert names == ["Active Couples", "Premium Users", "Wedding Coordinators", "Wedding Photographers"]


async def test_a_script_keeps_segments(suite: BackgroundStack) -> None:
    """By name or id: made, shown, changed, sent to, and removed; what is wrong is told by its field."""
    command, name = Command(suite), f"Florists {uuid4().hex[:8]}"
    code, output, _ = await command(
        "--json", "segments", "create", name, "--role", "florist", "--type", "supplier", "--within-days", "30"
    )
    made = json.loads(output)
    assert (code, made["criteria"]["wedding_within_days"]) == (0, 30)
    code, output, _ = await command("segments", "show", name.upper(), who="coordinator")
    assert (code, made["segment_id"] in output) == (0, True)
    code, output, _ = await command(
        "--json", "segments", "update", name, "--clear", "within-days", "--description", "All", "--inactive"
    )
    changed = json.loads(output)
    assert (code, changed["description"], changed["is_active"]) == (0, "All", False)
    assert "wedding_within_days" not in changed["criteria"]
    preview = ("preview", "--type", "feature.released", "--segment", name)
    code, _, errors = await command(*preview)
    assert (code, "targeting.segment_ids" in errors) == (6, True)
    await command("segments", "update", name, "--active")
    code, output, _ = await command("--json", *preview)
    assert (code, json.loads(output)["targeted"]) == (0, changed["user_count"])
    code, _, errors = await command("segments", "create", name, "--status", "planning")
    assert (code, "segment.name" in errors) == (3, True)
    code, output, _ = await command("segments", "delete", name)
    assert (code, output) == (0, "Removed.\n")
    code, _, errors = await command("segments", "show", name)
    assert (code, "There is no segment" in errors) == (5, True)
    code, output, _ = await command("segments", "list", who="coordinator")
    assert (code, "5e90e000-0000-4000-8000-000000000004" in output, made["segment_id"] in output) == (
        0,
        True,
        False,
    )
