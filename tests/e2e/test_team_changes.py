"""A team that changes before, during and after a fan-out, with streams open: whoever is off it has nothing of it."""

import asyncio
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1.common_pb2 import BroadcastState, ReceiptAction, Targeting
from wedsync.broadcast.v1.directory_pb2 import GetRecipientRequest
from wedsync.broadcast.v1.inbox_pb2 import (
    GetInboxItemRequest,
    GetUnreadCountRequest,
    ListInboxItemsRequest,
    ListInboxItemsResponse,
    RecordReceiptsRequest,
)
from wedsync.broadcast.v1.sender_pb2 import (
    CancelBroadcastRequest,
    GetBroadcastRequest,
    GetBroadcastResponse,
    PreviewAudienceRequest,
    WatchBroadcastRequest,
)

from tests.e2e.client import CALL_S, Client, Metadata, broadcast, eventually, refusal
from tests.e2e.screens import ENDS_WITHIN_S, Screens, watched
from tests.e2e.two_weddings import (
    Member,
    add_wedding,
    bring,
    set_team,
    tomorrow,
    without_quiet_hours,
)

Code = grpc.StatusCode
ALL = "a list of everything"


@dataclass(frozen=True, slots=True)
class Party:
    """A wedding with a team of three, one of whom comes and goes."""

    client: Client
    wedding_id: str
    coordinator: Member
    florist: Member
    couple: Member

    @classmethod
    async def gather(cls, client: Client) -> "Party":
        """A new one."""
        team = [Member(role, role) for role in ("coordinator", "florist", "couple")]
        await bring(client, team)
        await without_quiet_hours(client, team)
        return cls(client, await add_wedding(client, *team), *team)

    async def without(self, *absent: Member) -> None:
        """From when this returns, all but these are on the team."""
        team = (self.coordinator, self.florist, self.couple)
        await set_team(self.client, self.wedding_id, [each.user_id for each in team if each not in absent])

    async def tell(self) -> str:
        """The coordinator tells the team something; its id."""
        sender = self.metadata(self.coordinator)
        return await self.client.send(sender, type="timeline.changed", wedding_id=self.wedding_id)

    async def told(self) -> str:
        """The same, once it has been delivered."""
        broadcast_id = await self.tell()
        await self.client.sent(broadcast_id)
        return broadcast_id

    async def probe(self, screens: Screens) -> None:
        """Return when the florist's screens show what came last, and is about no wedding."""
        only_them = Targeting(user_ids=[str(self.florist.user_id)])
        await screens.show(await self.client.send("admin", targeting=only_them))

    def metadata(self, member: Member) -> Metadata:
        """Of somebody's calls."""
        return self.client.person(member.user_id)


@pytest.fixture
async def party(client: Client) -> Party:
    """A wedding of its own for each test."""
    return await Party.gather(client)


async def _list(party: Party, **filters: object) -> ListInboxItemsResponse:
    request = ListInboxItemsRequest(**filters)  # type: ignore[arg-type]
    metadata = party.metadata(party.florist)
    return await party.client.inbox.ListInboxItems(request, metadata=metadata, timeout=CALL_S)


async def _looks(party: Party) -> dict[str, ListInboxItemsResponse]:
    """The florist's inbox by every filter that could find something of the wedding."""
    return {
        ALL: await _list(party),
        "dismissed": await _list(party, include_dismissed=True),
        "wedding": await _list(party, wedding_id=party.wedding_id),
        "words": await _list(party, search="seating"),
        "type": await _list(party, type="timeline."),
        "unread": await _list(party, unread_only=True),
    }


async def _badge(party: Party) -> int:
    metadata = party.metadata(party.florist)
    answer = await party.client.inbox.GetUnreadCount(
        GetUnreadCountRequest(), metadata=metadata, timeout=CALL_S
    )
    return answer.unread_count


async def _assert_gone(party: Party, broadcast_id: str) -> None:
    """Nothing that the florist may call finds it, and its absence is told like that of what never was."""
    for name, listed in (await _looks(party)).items():
        assert (name, broadcast_id in {item.broadcast_id for item in listed.items}) == (name, False)
        assert (name, listed.unread_count) == (name, await _badge(party))
    metadata = party.metadata(party.florist)
    receipts = RecordReceiptsRequest(broadcast_ids=[broadcast_id], action=ReceiptAction.RECEIPT_ACTION_READ)
    recorded = await party.client.inbox.RecordReceipts(receipts, metadata=metadata, timeout=CALL_S)
    assert ([broadcast_id], 0) == (list(recorded.unknown_broadcast_ids), len(recorded.receipts))
    item = GetInboxItemRequest(broadcast_id=broadcast_id)
    code, _ = await refusal(party.client.inbox.GetInboxItem(item, metadata=metadata, timeout=CALL_S))
    assert code is Code.NOT_FOUND


async def test_who_leaves_before_a_fan_out_hears_nothing_of_it(party: Party) -> None:
    """On open screens, in lists and counts; and who is put back has what comes from then on."""
    async with watched(party.client, party.client.token(party.florist.user_id)) as screens:
        marks = screens.marks()
        await party.without(party.florist)
        await screens.start_over(marks)
        broadcast_id = await party.told()
        await party.probe(screens)
        assert not screens.named(broadcast_id)
        await _assert_gone(party, broadcast_id)
        assert await party.client.has(party.couple.user_id, broadcast_id)
        await party.without()
        await screens.show(await party.tell())
        # They were not among those whom it was for when it was dispatched.
        assert not screens.named(broadcast_id)


@pytest.mark.parametrize("delay_ms", [0, 3, 6, 10, 15, 25, 40])
async def test_who_leaves_during_a_fan_out_ends_without_it(party: Party, delay_ms: int) -> None:
    """However far it has come: whatever was on screens is taken off, and nothing is said of it after that."""
    async with watched(party.client, party.client.token(party.florist.user_id)) as screens:
        broadcast_id = await party.tell()
        await asyncio.sleep(delay_ms / 1_000)
        marks = screens.marks()
        await party.without(party.florist)
        await screens.start_over(marks)
        await party.client.sent(broadcast_id)
        await party.probe(screens)
        assert [broadcast_id in screen.items for screen in screens.both] == [False, False]
        assert screens.named_after_snapshot(broadcast_id, marks) == []
        await _assert_gone(party, broadcast_id)


async def test_who_leaves_after_a_fan_out_loses_it_and_has_it_again_when_back(party: Party) -> None:
    """Past items leave lists, counts and screens, and come back as they were: read or unread, in their order."""
    read, unread = await party.told(), await party.told()
    receipts = RecordReceiptsRequest(broadcast_ids=[read], action=ReceiptAction.RECEIPT_ACTION_READ)
    await party.client.inbox.RecordReceipts(receipts, metadata=party.metadata(party.florist), timeout=CALL_S)
    before = await _looks(party)
    assert [item.broadcast_id for item in before[ALL].items] == [unread, read]
    assert await _badge(party) == 1
    async with watched(party.client, party.client.token(party.florist.user_id)) as screens:
        marks = screens.marks()
        await party.without(party.florist)
        for broadcast_id in (read, unread):
            await _assert_gone(party, broadcast_id)
        assert await _badge(party) == 0
        await screens.start_over(marks)
        assert [screen.items for screen in screens.both] == [set(), set()]
        marks = screens.marks()
        await party.without()
        assert await _looks(party) == before
        await screens.start_over(marks)
        assert [screen.items for screen in screens.both] == [{read, unread}, {read, unread}]


async def _get(party: Party, broadcast_id: str) -> GetBroadcastResponse:
    request = GetBroadcastRequest(broadcast_id=broadcast_id)
    metadata = party.metadata(party.coordinator)
    return await party.client.sender.GetBroadcast(request, metadata=metadata, timeout=CALL_S)


async def _coordinators_codes(party: Party, of_another: str) -> dict[str, Code]:
    """How the coordinator is answered about the wedding, and about what somebody else has sent to its team."""
    client, metadata = party.client, party.metadata(party.coordinator)
    request = broadcast(type="timeline.changed", wedding_id=party.wedding_id)
    preview = PreviewAudienceRequest(type="timeline.changed", wedding_id=party.wedding_id)
    cancel = CancelBroadcastRequest(broadcast_id=of_another)
    colleague = GetRecipientRequest(user_id=str(party.florist.user_id))
    calls = {
        "send": client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S),
        "preview": client.sender.PreviewAudience(preview, metadata=metadata, timeout=CALL_S),
        "get": _get(party, of_another),
        "cancel": client.sender.CancelBroadcast(cancel, metadata=metadata, timeout=CALL_S),
        "look up": client.directory.GetRecipient(colleague, metadata=metadata, timeout=CALL_S),
    }
    codes = {}
    for name, call in calls.items():
        try:
            await call
            codes[name] = Code.OK
        except grpc.aio.AioRpcError as error:
            codes[name] = error.code()
    return codes


async def test_a_coordinator_off_the_team_loses_the_wedding_at_once(party: Party) -> None:
    """With the same token, from one call to the next; what they sent themselves stays theirs, and all comes back."""
    own = await party.told()
    of_another = await party.client.send(
        "admin", type="journey.updated", wedding_id=party.wedding_id, scheduled_for=tomorrow()
    )
    on_the_team = {
        **dict.fromkeys(("send", "preview", "get", "look up"), Code.OK),
        "cancel": Code.PERMISSION_DENIED,
    }
    off_the_team = {
        **dict.fromkeys(("send", "preview"), Code.PERMISSION_DENIED),
        **dict.fromkeys(("get", "cancel", "look up"), Code.NOT_FOUND),
    }
    for absent, expected in (((), on_the_team), ((party.coordinator,), off_the_team), ((), on_the_team)):
        await party.without(*absent)
        assert await _coordinators_codes(party, of_another) == expected
        assert (await _get(party, own)).broadcast.broadcast_id == own


async def test_a_watch_of_a_broadcast_ends_with_the_team_that_it_was_opened_by(party: Party) -> None:
    """Within half a minute, as if the broadcast had never been."""
    of_another = await party.client.send(
        "admin", type="journey.updated", wedding_id=party.wedding_id, scheduled_for=tomorrow()
    )
    request = WatchBroadcastRequest(broadcast_id=of_another)
    watch = party.client.sender.WatchBroadcast(request, metadata=party.metadata(party.coordinator))
    await watch.read()
    await party.without(party.coordinator)
    async with asyncio.timeout(ENDS_WITHIN_S):
        code, details = await refusal(watch.read())
    assert (code, details.reason_name) == (Code.NOT_FOUND, "NOT_FOUND")


async def test_who_is_off_the_team_when_it_is_due_sends_nothing(party: Party) -> None:
    """A broadcast for later fails with the reason, and nobody hears of it."""
    soon = Timestamp()
    soon.GetCurrentTime()
    soon.seconds += 2
    async with watched(party.client, party.client.token(party.florist.user_id)) as screens:
        metadata = party.metadata(party.coordinator)
        broadcast_id = await party.client.send(
            metadata, type="timeline.changed", wedding_id=party.wedding_id, scheduled_for=soon
        )
        await party.without(party.coordinator)

        async def has_failed() -> bool:
            state = (await party.client.show(broadcast_id)).broadcast.state
            return state == BroadcastState.BROADCAST_STATE_FAILED

        await eventually(has_failed, "the broadcast to fail")
        assert "SENDER_LOST_RIGHT" in (await party.client.show(broadcast_id)).broadcast.error
        await party.probe(screens)
        assert not screens.named(broadcast_id)
    for member in (party.florist, party.couple):
        assert not await party.client.has(member.user_id, broadcast_id)
