"""Who is refused what: the rows of the contract's error table that are not about broken fields."""

from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import grpc
import pytest
from wedsync.broadcast.v1.common_pb2 import Priority, ReceiptAction, Targeting
from wedsync.broadcast.v1.directory_pb2 import (
    GetRecipientRequest,
    Recipient,
    SetWeddingTeamRequest,
    UpsertRecipientsRequest,
    UserType,
)
from wedsync.broadcast.v1.inbox_pb2 import (
    GetInboxItemRequest,
    GetUnreadCountRequest,
    ListInboxItemsRequest,
    ListInboxItemsResponse,
    RecordReceiptsRequest,
    WatchInboxRequest,
)
from wedsync.broadcast.v1.preferences_pb2 import Preferences, UpdatePreferencesRequest
from wedsync.broadcast.v1.sender_pb2 import (
    CancelBroadcastRequest,
    GetBroadcastRequest,
    SendBroadcastRequest,
)

from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, Metadata, bearer, broadcast, fields_of, refusal, refused_send

WEDDING = str(demo_id("wedding-1"))
NOWHERE = "00000000-0000-4000-8000-000000000000"
Code = grpc.StatusCode


def _tokens(client: Client) -> dict[str, Metadata]:
    expired = client.token("admin", lifetime_s=-3_600)
    head, _, signature = client.token("admin").rpartition(".")
    return {
        "none": (),
        "garbage": bearer("garbage"),
        "nul": bearer("a.b.c%00"),
        "tampered": bearer(f"{head}.{signature[::-1]}"),
        "expired": bearer(expired),
        "another scheme": (("authorization", f"Basic {client.token('admin')}"),),
        "without a signature": bearer(f"{head}."),
    }


@pytest.mark.parametrize(
    "kind", ["none", "garbage", "nul", "tampered", "expired", "another scheme", "without a signature"]
)
async def test_a_bad_token_is_unauthenticated(client: Client, kind: str) -> None:
    """Every service refuses it before it looks at the request."""
    metadata = _tokens(client)[kind]
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.sender.SendBroadcast(SendBroadcastRequest(), metadata=metadata, timeout=CALL_S),
        lambda: client.inbox.GetUnreadCount(GetUnreadCountRequest(), metadata=metadata, timeout=CALL_S),
        lambda: client.directory.GetRecipient(GetRecipientRequest(), metadata=metadata, timeout=CALL_S),
    ]
    for call in calls:
        code, details = await refusal(call())
        assert Code.UNAUTHENTICATED is code
        assert details.reason_name == ("TOKEN_EXPIRED" if kind == "expired" else "UNAUTHENTICATED")


@pytest.mark.parametrize("who", ["couple-amara", "photographer"])
async def test_a_person_cannot_send(client: Client, who: str) -> None:
    """Rights come before validation: a stranger learns nothing of what is wrong with the request."""
    code, details = await refused_send(client, broadcast(title=""), who)
    assert (code, details.violations) == (Code.PERMISSION_DENIED, ())


async def test_a_person_unknown_to_the_directory_cannot_send(client: Client) -> None:
    """A good token of somebody who is nobody here is denied."""
    code, _ = await refusal(
        client.sender.SendBroadcast(broadcast(), metadata=client.person(UUID(NOWHERE)), timeout=CALL_S)
    )
    assert Code.PERMISSION_DENIED is code


async def test_a_foreign_wedding_and_none_look_the_same(client: Client) -> None:
    """To a coordinator, a wedding of others and one that does not exist give the same bytes."""
    answers = []
    for wedding_id in (WEDDING, NOWHERE):
        request = broadcast(type="timeline.changed", wedding_id=wedding_id)
        code, details = await refused_send(client, request, "outsider")
        answers.append((code, details.to_rich_status().SerializeToString()))
        assert (code, details.reason_name) == (Code.PERMISSION_DENIED, "OUTSIDE_REACH")
    assert answers[0] == answers[1]


async def test_an_admin_hears_that_a_wedding_does_not_exist(client: Client) -> None:
    """NOT_FOUND, because everything is within an admin's reach."""
    code, details = await refused_send(client, broadcast(type="timeline.changed", wedding_id=NOWHERE))
    assert (code, details.reason_name) == (Code.NOT_FOUND, "NOT_FOUND")


async def test_a_coordinator_sends_only_their_types_and_only_to_weddings(client: Client) -> None:
    """A business type, or no wedding at all, is denied."""
    for request in (broadcast(type="trial.ending"), broadcast(type="form.locked")):
        code, _ = await refused_send(client, request, "coordinator")
        assert Code.PERMISSION_DENIED is code


async def test_an_unknown_segment_is_refused(client: Client) -> None:
    """NOT_FOUND for an admin."""
    code, _ = await refused_send(client, broadcast(targeting=Targeting(segment_ids=[NOWHERE])))
    assert Code.NOT_FOUND is code


async def test_weddings_given_twice_must_agree(client: Client) -> None:
    """targeting.wedding_ids must be exactly the wedding_id."""
    request = broadcast(
        type="timeline.changed", wedding_id=WEDDING, targeting=Targeting(wedding_ids=[NOWHERE])
    )
    code, details = await refused_send(client, request)
    assert (code, fields_of(details)) == (Code.INVALID_ARGUMENT, ["targeting.wedding_ids"])


async def test_an_internal_call_is_not_for_people(client: Client) -> None:
    """Not even for an admin."""
    from wedsync.broadcast.v1.audience_pb2 import CountAudienceRequest

    request = CountAudienceRequest(targeting=Targeting(everyone=True))
    for metadata in (client.person("admin"), client.service("broadcast.send")):
        code, _ = await refusal(client.audience.CountAudience(request, metadata=metadata, timeout=CALL_S))
        assert Code.PERMISSION_DENIED is code


async def test_another_body_under_the_same_request_id_is_refused(client: Client) -> None:
    """ALREADY_EXISTS, and the first broadcast stays what it was."""
    request = broadcast(targeting=Targeting(roles=["astronaut"]))
    metadata = client.person("admin")
    first = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
    request.title = "Another title"
    code, details = await refused_send(client, request)
    assert (code, details.reason_name) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert fields_of(details) == ["request_id"]
    shown = await client.show(first.broadcast.broadcast_id)
    assert first.broadcast.title == shown.broadcast.title


async def test_what_is_not_there_and_what_is_not_yours_look_the_same(client: Client) -> None:
    """NOT_FOUND with the same bytes for a coordinator, whether a broadcast exists or not."""
    hidden = await client.send("admin", targeting=Targeting(roles=["astronaut"]))
    answers = []
    for broadcast_id in (hidden, NOWHERE):
        code, details = await refusal(
            client.sender.GetBroadcast(
                GetBroadcastRequest(broadcast_id=broadcast_id),
                metadata=client.person("outsider"),
                timeout=CALL_S,
            )
        )
        answers.append((code, details.to_rich_status().SerializeToString()))
        assert Code.NOT_FOUND is code
    assert answers[0] == answers[1]


async def test_another_persons_item_is_not_found(client: Client) -> None:
    """An inbox is its owner's: a broadcast to somebody else is not there."""
    broadcast_id = await client.send("admin", targeting=Targeting(user_ids=[str(demo_id("venue"))]))
    await client.sent(broadcast_id)
    code, _ = await refusal(
        client.inbox.GetInboxItem(
            GetInboxItemRequest(broadcast_id=broadcast_id), metadata=client.person("florist"), timeout=CALL_S
        )
    )
    assert Code.NOT_FOUND is code
    answer = await client.inbox.RecordReceipts(
        RecordReceiptsRequest(broadcast_ids=[broadcast_id], action=ReceiptAction.RECEIPT_ACTION_READ),
        metadata=client.person("florist"),
        timeout=CALL_S,
    )
    assert [broadcast_id] == list(answer.unknown_broadcast_ids)


async def _page(client: Client, who: str, **fields: object) -> ListInboxItemsResponse:
    request = ListInboxItemsRequest(**fields)  # type: ignore[arg-type]
    return await client.inbox.ListInboxItems(request, metadata=client.person(who), timeout=CALL_S)


async def test_a_page_token_serves_its_own_query_only(client: Client) -> None:
    """Garbage, another filter's token and another person's token are all refused."""
    for _ in range(2):
        users = [str(demo_id("venue")), str(demo_id("florist"))]
        await client.sent(await client.send("admin", targeting=Targeting(user_ids=users)))
    token = (await _page(client, "venue", page_size=1)).next_page_token
    assert token
    for who, fields in (
        ("venue", {"page_token": "garbage"}),
        ("venue", {"page_token": token, "unread_only": True}),
        ("florist", {"page_token": token}),
    ):
        code, details = await refusal(_page(client, who, **fields))
        assert (code, details.reason_name) == (Code.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


async def test_a_broken_cursor_is_refused(client: Client) -> None:
    """A stream from a cursor that nobody gave ends at once, with the reason."""

    async def first() -> object:
        call = client.inbox.WatchInbox(WatchInboxRequest(cursor="garbage"), metadata=client.person("venue"))
        return [event async for event in call]

    code, details = await refusal(first())
    assert (code, details.reason_name) == (Code.INVALID_ARGUMENT, "INVALID_CURSOR")
    assert [each.field for each in details.violations] == ["cursor"]


async def test_a_critical_item_is_acknowledged_before_it_is_dismissed(client: Client) -> None:
    """FAILED_PRECONDITION, and nothing is recorded."""
    broadcast_id = await client.send(
        "admin", type="wedding.emergency", priority=Priority.PRIORITY_CRITICAL, wedding_id=WEDDING
    )
    await client.sent(broadcast_id)
    request = RecordReceiptsRequest(
        broadcast_ids=[broadcast_id], action=ReceiptAction.RECEIPT_ACTION_DISMISSED
    )
    code, _ = await refusal(
        client.inbox.RecordReceipts(request, metadata=client.person("photographer"), timeout=CALL_S)
    )
    assert Code.FAILED_PRECONDITION is code
    items = [item for item in await client.items("photographer") if item.broadcast_id == broadcast_id]
    assert [(item.HasField("read_at"), item.HasField("dismissed_at")) for item in items] == [(False, False)]


async def test_an_illegal_state_change_is_refused(client: Client) -> None:
    """A sent broadcast with nothing left to stop cannot be cancelled."""
    broadcast_id = await client.send("admin", targeting=Targeting(roles=["astronaut"]))
    await client.sent(broadcast_id)
    code, details = await refusal(
        client.sender.CancelBroadcast(
            CancelBroadcastRequest(broadcast_id=broadcast_id), metadata=client.person("admin"), timeout=CALL_S
        )
    )
    assert (code, details.reason_name) == (Code.FAILED_PRECONDITION, "ILLEGAL_STATE")


async def test_a_stale_etag_is_refused(client: Client) -> None:
    """ABORTED with STALE_ETAG, and nothing is changed."""
    request = UpdatePreferencesRequest(preferences=Preferences(etag="long ago", system=False))
    request.update_mask.paths.append("system")
    code, details = await refusal(
        client.preferences.UpdatePreferences(request, metadata=client.person("venue"), timeout=CALL_S)
    )
    assert (code, details.reason_name) == (Code.ABORTED, "STALE_ETAG")


@pytest.mark.parametrize("path", ["shoe_size", "quiet_hours.colour", ""])
async def test_a_mask_names_fields_that_can_be_changed(client: Client, path: str) -> None:
    """INVALID_ARGUMENT names update_mask."""
    request = UpdatePreferencesRequest(preferences=Preferences())
    request.update_mask.paths.append(path)
    code, details = await refusal(
        client.preferences.UpdatePreferences(request, metadata=client.person("venue"), timeout=CALL_S)
    )
    assert Code.INVALID_ARGUMENT is code
    assert any(field.startswith("update_mask") for field in fields_of(details))


async def test_each_broken_recipient_is_named(client: Client) -> None:
    """The index and the field of each, and none of the good ones is stored."""
    good = Recipient(
        user_id=str(uuid4()),
        display_name="Good One",
        role="florist",
        user_type=UserType.USER_TYPE_SUPPLIER,
        tier="free",
        time_zone="Etc/GMT+5",
    )
    bad_zone, bad_mail = Recipient(), Recipient()
    bad_zone.CopyFrom(good)
    bad_zone.user_id, bad_zone.time_zone = str(uuid4()), "Europe/Atlantis"
    bad_mail.CopyFrom(good)
    bad_mail.user_id, bad_mail.email = str(uuid4()), "nobody"
    operator = client.service("directory.write")

    async def upsert(*people: Recipient) -> object:
        return await client.directory.UpsertRecipients(
            UpsertRecipientsRequest(recipients=people), metadata=operator, timeout=CALL_S
        )

    _, zone = await refusal(upsert(good, bad_zone))
    _, mail = await refusal(upsert(good, bad_mail))
    assert (fields_of(zone), fields_of(mail)) == (["recipients[1].time_zone"], ["recipients[1].email"])
    code, _ = await refusal(
        client.directory.GetRecipient(
            GetRecipientRequest(user_id=good.user_id), metadata=client.person("admin"), timeout=CALL_S
        )
    )
    assert Code.NOT_FOUND is code


async def test_the_admin_role_needs_its_own_scope(client: Client) -> None:
    """directory.write alone can neither give it nor take it."""
    promoted = Recipient(
        user_id=str(demo_id("photographer")),
        display_name="Petra Novak",
        role="admin",
        user_type=UserType.USER_TYPE_SUPPLIER,
        tier="professional",
        time_zone="Europe/Vienna",
    )
    code, _ = await refusal(
        client.directory.UpsertRecipients(
            UpsertRecipientsRequest(recipients=[promoted]),
            metadata=client.service("directory.write"),
            timeout=CALL_S,
        )
    )
    assert Code.PERMISSION_DENIED is code


async def test_unknown_people_cannot_be_on_a_team(client: Client) -> None:
    """Each unknown user id is named by its place."""
    request = SetWeddingTeamRequest(wedding_id=WEDDING, user_ids=[str(demo_id("venue")), NOWHERE])
    code, details = await refusal(
        client.directory.SetWeddingTeam(request, metadata=client.service("directory.write"), timeout=CALL_S)
    )
    assert (code, fields_of(details)) == (Code.INVALID_ARGUMENT, ["user_ids[1]"])
