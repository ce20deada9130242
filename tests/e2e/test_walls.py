"""Attacks on the wall, the input handling and the stores of the running suite: what a hostile caller tries first."""

import asyncio
from collections.abc import Awaitable, Iterable
from itertools import product
from uuid import uuid4

import asyncpg
import grpc
import pytest
from google.type.date_pb2 import Date
from wedsync.broadcast.v1.common_pb2 import ReceiptAction, Targeting
from wedsync.broadcast.v1.directory_pb2 import (
    GetRecipientRequest,
    Recipient,
    SetWeddingTeamRequest,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    UserType,
    WeddingEntry,
    WeddingStatus,
)
from wedsync.broadcast.v1.inbox_pb2 import (
    GetInboxItemRequest,
    ListInboxItemsRequest,
    RecordReceiptsRequest,
)
from wedsync.broadcast.v1.preferences_pb2 import Preferences, UpdatePreferencesRequest, WeddingFilter
from wedsync.broadcast.v1.sender_pb2 import (
    CancelBroadcastRequest,
    PreviewAudienceRequest,
)

from stack.credentials import Secrets
from stack.permissions import SERVICES
from stack.provision import LOGINS, SuiteDatabase
from stack.world import demo_id
from tests.e2e.client import (
    CALL_S,
    Client,
    Metadata,
    broadcast,
    eventually,
    fields_of,
    refusal,
    refused_send,
)

TEAM = ("couple-amara", "couple-jonas", "coordinator", "photographer", "florist", "venue")
NOWHERE = "00000000-0000-4000-8000-000000000000"
NIL = "00000000-0000-0000-0000-000000000000"
Code = grpc.StatusCode


def _id(name: str) -> str:
    return str(demo_id(name))


async def _same_bytes(calls: Iterable[Awaitable[object]]) -> Code:
    """The status of calls that are all refused with the same bytes."""
    answers = {
        (code, details.to_rich_status().SerializeToString())
        for code, details in [await refusal(call) for call in calls]
    }
    assert len(answers) == 1
    return answers.pop()[0]


async def _team(client: Client, names: Iterable[str], wedding: str = "wedding-1") -> None:
    request = SetWeddingTeamRequest(wedding_id=_id(wedding), user_ids=[_id(name) for name in names])
    await client.directory.SetWeddingTeam(request, metadata=client.service("directory.write"), timeout=CALL_S)


async def test_no_spelling_of_a_target_gets_past_the_wall(client: Client) -> None:
    """Outsiders by name, everyone, another case and repetition reach the team and nobody else."""
    await _team(client, TEAM)
    wedding = _id("wedding-1")
    for targeting, reached in (
        (Targeting(user_ids=[_id("outsider"), _id("admin"), _id("venue").upper()] * 300), {"venue"}),
        (Targeting(everyone=True, wedding_ids=[wedding.upper()]), set(TEAM)),
        (Targeting(roles=["coordinator", "admin"], wedding_ids=[wedding, wedding.upper()]), {"coordinator"}),
    ):
        broadcast_id = await client.send(
            "coordinator", type="journey.updated", wedding_id=wedding.upper(), targeting=targeting
        )
        assert len(reached) == (await client.sent(broadcast_id)).stats.engagement.delivered
        people = (*TEAM, "outsider", "admin")
        assert reached == {who for who in people if await client.has(who, broadcast_id)}


async def test_a_race_of_team_and_broadcast_shows_nothing_to_who_was_taken_off(client: Client) -> None:
    """Whatever comes first, the screen, the list and the receipts of who is off the team know nothing of it."""
    for _ in range(3):
        await _team(client, TEAM)
        sent, shown = await _race(client)
        assert not shown & set(sent)
        assert not {item.broadcast_id for item in await client.items("florist")} & set(sent)
        request = RecordReceiptsRequest(broadcast_ids=sent, action=ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED)
        answer = await client.inbox.RecordReceipts(request, metadata=client.person("florist"), timeout=CALL_S)
        assert (sent, 0) == (list(answer.unknown_broadcast_ids), len(answer.receipts))
    await _team(client, TEAM)


async def _race(client: Client) -> tuple[list[str], set[str]]:
    """Three broadcasts to a team that the florist is taken off at the same time, and what their screen shows then."""
    without = [name for name in TEAM if name != "florist"]
    wedding = _id("wedding-1")
    async with client.watching("florist") as screen:
        removal = asyncio.create_task(_team(client, without))
        sends = [client.send("coordinator", type="journey.updated", wedding_id=wedding) for _ in range(3)]
        sent = await asyncio.gather(*sends)
        await removal
        for broadcast_id in sent:
            await client.sent(broadcast_id)
        probe = await client.send("admin", targeting=Targeting(user_ids=[_id("florist")]))
        await screen.until(lambda event: probe == event.added.item.broadcast_id, "the probe")
    shown: set[str] = set()
    for event in screen.events:
        if event.HasField("snapshot"):
            shown = {item.broadcast_id for item in event.snapshot.items}
        shown.add(event.added.item.broadcast_id)
    return sent, shown


async def test_what_is_hidden_looks_as_if_it_had_never_been(client: Client) -> None:
    """Walled off, retracted, somebody else's, and nowhere: the same bytes."""
    await _team(client, TEAM)
    behind_the_wall = await client.send("coordinator", type="journey.updated", wedding_id=_id("wedding-1"))
    retracted = await client.send("admin", targeting=Targeting(user_ids=[_id("outsider")]))
    of_another = await client.send("admin", targeting=Targeting(user_ids=[_id("venue")]))
    for broadcast_id in (behind_the_wall, retracted, of_another):
        await client.sent(broadcast_id)
    cancel = CancelBroadcastRequest(broadcast_id=retracted, retract=True)
    await client.sender.CancelBroadcast(cancel, metadata=client.person("admin"), timeout=CALL_S)
    calls = [
        client.inbox.GetInboxItem(
            GetInboxItemRequest(broadcast_id=each), metadata=client.person("outsider"), timeout=CALL_S
        )
        for each in (behind_the_wall, retracted, of_another, NOWHERE)
    ]
    assert Code.NOT_FOUND is await _same_bytes(calls)


async def test_nobody_can_probe_for_weddings_people_or_broadcasts(client: Client) -> None:
    """Where a coordinator or a supplier has no reach, what exists and what does not give the same bytes."""
    outsider, venue = client.person("outsider"), client.person("venue")
    hidden = await client.send("admin", targeting=Targeting(roles=["astronaut"]))
    previews = [
        client.sender.PreviewAudience(
            PreviewAudienceRequest(type="journey.updated", targeting=Targeting(wedding_ids=[each])),
            metadata=outsider,
            timeout=CALL_S,
        )
        for each in (_id("wedding-1"), NOWHERE)
    ]
    cancels = [
        client.sender.CancelBroadcast(
            CancelBroadcastRequest(broadcast_id=each), metadata=outsider, timeout=CALL_S
        )
        for each in (hidden, NOWHERE)
    ]
    people = [
        client.directory.GetRecipient(GetRecipientRequest(user_id=each), metadata=venue, timeout=CALL_S)
        for each in (_id("admin"), NOWHERE)
    ]
    filters = [
        client.preferences.UpdatePreferences(
            UpdatePreferencesRequest(
                preferences=Preferences(wedding_filters=[WeddingFilter(wedding_id=each)])
            ),
            metadata=outsider,
            timeout=CALL_S,
        )
        for each in (_id("wedding-1"), NOWHERE)
    ]
    statuses = [await _same_bytes(calls) for calls in (previews, cancels, people, filters)]
    assert [Code.PERMISSION_DENIED, Code.NOT_FOUND, Code.NOT_FOUND, Code.PERMISSION_DENIED] == statuses


async def test_a_coordinator_sees_teammates_without_their_addresses(client: Client) -> None:
    """Email and phone are for the person, admins and services."""
    await _team(client, TEAM)
    seen = {}
    for who in ("coordinator", "venue"):
        answer = await client.directory.GetRecipient(
            GetRecipientRequest(user_id=_id("venue")), metadata=client.person(who), timeout=CALL_S
        )
        seen[who] = bool(answer.recipient.email), bool(answer.recipient.phone)
    assert {"coordinator": (False, False), "venue": (True, True)} == seen


async def test_an_answer_is_replayed_to_its_caller_alone(client: Client) -> None:
    """Who knows a request_id and its body gets nothing by it; its caller gets it, even off the team by now."""
    await _team(client, TEAM)
    request = broadcast(type="journey.updated", wedding_id=_id("wedding-1"), title="Only mine")

    async def send(metadata: Metadata) -> str:
        answer = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
        return answer.broadcast.broadcast_id

    first = await send(client.person("coordinator"))
    assert Code.PERMISSION_DENIED is (await refusal(send(client.person("florist"))))[0]
    assert Code.PERMISSION_DENIED is (await refusal(send(client.person("outsider"))))[0]
    assert await send(client.service("broadcast.send", name="another")) != first
    await _team(client, [name for name in TEAM if name != "coordinator"])
    assert first == await send(client.person("coordinator"))
    request.request_id = str(uuid4())
    assert Code.PERMISSION_DENIED is (await refusal(send(client.person("coordinator"))))[0]
    await _team(client, TEAM)


async def test_validate_only_leaves_nothing_behind(client: Client) -> None:
    """No id, no item, and the request_id is still free for the real call, which is then one broadcast."""
    request = broadcast(title="Dry run", targeting=Targeting(user_ids=[_id("venue")]), validate_only=True)
    metadata = client.person("admin")
    dry = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
    assert (1, "") == (dry.targeted_users, dry.broadcast.broadcast_id)
    request.validate_only = False
    real = await client.sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
    await client.sent(real.broadcast.broadcast_id)
    found = [item.broadcast_id for item in await client.items("venue") if item.title == "Dry run"]
    assert [real.broadcast.broadcast_id] == found


@pytest.mark.parametrize(
    "title",
    ["😀" * 200, "e\u0301" * 100, "\u202eerutuf", "\uffff", "'\\:* & ! <-> %_ $$ \u2028", "👨‍👩‍👧‍👦" * 28],
)
async def test_odd_texts_arrive_as_they_were_sent(client: Client, title: str) -> None:
    """Code points are counted, and none is changed on the way into an inbox."""
    broadcast_id = await client.send("admin", title=title, targeting=Targeting(user_ids=[_id("venue")]))
    await client.sent(broadcast_id)
    item = await client.inbox.GetInboxItem(
        GetInboxItemRequest(broadcast_id=broadcast_id), metadata=client.person("venue"), timeout=CALL_S
    )
    assert title == item.item.title


async def test_an_expiry_at_the_end_of_time_arrives_or_is_refused(client: Client) -> None:
    """The last microsecond of 9999, which a database takes for infinity, is refused; the one before is kept."""
    request = broadcast(targeting=Targeting(user_ids=[_id("venue")]))
    request.expires_at.seconds, request.expires_at.nanos = 253_402_300_799, 999_999_999
    code, details = await refused_send(client, request)
    assert (Code.INVALID_ARGUMENT, ["expires_at"]) == (code, fields_of(details))
    request.expires_at.nanos = 999_998_000
    sent = await client.sender.SendBroadcast(request, metadata=client.person("admin"), timeout=CALL_S)
    await client.sent(sent.broadcast.broadcast_id)
    assert await client.has("venue", sent.broadcast.broadcast_id)


@pytest.mark.parametrize(("year", "month", "day"), [(1, 1, 1), (9999, 12, 31)])
async def test_a_wedding_at_an_end_of_the_calendar_is_told_of(
    client: Client, year: int, month: int, day: int
) -> None:
    """A date that stands for "unknown" elsewhere keeps no broadcast from its team, and comes out as it went in."""
    wedding_id = str(uuid4())
    entry = WeddingEntry(wedding_id=wedding_id, couple_name="A & B", time_zone="Pacific/Kiritimati")
    entry.status = WeddingStatus.WEDDING_STATUS_PLANNING
    entry.wedding_date.CopyFrom(Date(year=year, month=month, day=day))
    operator = client.service("directory.write")
    await client.directory.UpsertWeddings(
        UpsertWeddingsRequest(weddings=[entry]), metadata=operator, timeout=CALL_S
    )
    team = SetWeddingTeamRequest(wedding_id=wedding_id, user_ids=[_id("coordinator"), _id("venue")])
    await client.directory.SetWeddingTeam(team, metadata=operator, timeout=CALL_S)
    broadcast_id = await client.send("coordinator", type="timeline.changed", wedding_id=wedding_id)
    await client.sent(broadcast_id)
    item = next(item for item in await client.items("venue") if item.broadcast_id == broadcast_id)
    assert entry.wedding_date == item.wedding.wedding_date


async def test_the_nil_wedding_is_none(client: Client) -> None:
    """In inboxes everybody is on its team, so nobody can make it, and nobody can ask for it."""
    entry = WeddingEntry(wedding_id=NIL, couple_name="A & B", status=WeddingStatus.WEDDING_STATUS_PLANNING)
    operator = client.service("directory.write")
    upsert = UpsertWeddingsRequest(weddings=[entry])
    code, details = await refusal(client.directory.UpsertWeddings(upsert, metadata=operator, timeout=CALL_S))
    assert (Code.INVALID_ARGUMENT, ["weddings[0].wedding_id"]) == (code, fields_of(details))
    listing = ListInboxItemsRequest(wedding_id=NIL)
    code, details = await refusal(
        client.inbox.ListInboxItems(listing, metadata=client.person("venue"), timeout=CALL_S)
    )
    assert (Code.INVALID_ARGUMENT, ["wedding_id"]) == (code, fields_of(details))


async def _query(url: str, statement: str, *arguments: object) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [str(row[0]) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


async def _is_refused(url: str, statement: str) -> bool:
    try:
        await _query(url, statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


async def _sees_rows(url: str, table: str) -> bool:
    statement = f"SELECT 1 FROM {table} LIMIT 1"  # noqa: S608  # names of ours
    return not await _is_refused(url, statement) and bool(await _query(url, statement))


async def test_no_login_of_a_service_gets_at_what_is_not_its_own(client: Client) -> None:
    """Without an identity a personal login sees nobody's rows; none empties a table, or becomes another role."""
    await client.sent(await client.send("admin", targeting=Targeting(user_ids=[_id("venue")])))
    admin_url = client.stack.environment["DATABASE_URL"]
    database = SuiteDatabase(admin_url, Secrets(client.stack.state.secrets).password)
    tables = await _query(
        admin_url,
        "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relrowsecurity"
        " AND relnamespace::regnamespace::text = ANY ($1)",
        SERVICES,
    )
    visible: set[str] = set()
    for service, login in product(SERVICES, LOGINS):
        url = database.url(service, login)
        own_work = f"{service}." if login == "worker" else "nobody's"
        visible |= {each for each in tables if not each.startswith(own_work) and await _sees_rows(url, each)}
        others = [f"{each}_worker" for each in SERVICES if each != service]
        for statement in (
            *(f"TRUNCATE {table}" for table in tables),
            *(f"SET ROLE {role}" for role in (f"{service}_owner", *others)),
        ):
            assert (statement, await _is_refused(url, statement)) == (statement, True)
    # What is about no wedding is shown to whoever has it in their inbox, and who that is the other tables keep.
    assert {"inbox.broadcasts"} == visible


async def test_logs_and_messages_name_nobody(client: Client) -> None:
    """Titles, messages, searches, reasons, addresses, user ids and tokens are in no log and no message of NATS."""
    marker, user_id = f"marker{uuid4().hex}", _id("outsider")
    person = Recipient(
        user_id=user_id,
        display_name=f"Name {marker}",
        email=f"{marker}@example.com",
        role="coordinator",
        user_type=UserType.USER_TYPE_SUPPLIER,
        tier="professional",
        time_zone="Africa/Lagos",
    )
    operator = client.service("directory.write")
    upsert = UpsertRecipientsRequest(recipients=[person])
    await client.directory.UpsertRecipients(upsert, metadata=operator, timeout=CALL_S)
    person.email = f"{marker} is no address"
    upsert = UpsertRecipientsRequest(recipients=[person])
    await refusal(client.directory.UpsertRecipients(upsert, metadata=operator, timeout=CALL_S))
    only_them = Targeting(user_ids=[user_id])
    broadcast_id = await client.send("admin", title=marker, message=marker, targeting=only_them)
    await refused_send(client, broadcast(title=marker, type=marker, targeting=only_them))
    await client.sent(broadcast_id)
    metadata = client.person("outsider")
    search = ListInboxItemsRequest(search=marker)
    page = await client.inbox.ListInboxItems(search, metadata=metadata, timeout=CALL_S)
    assert [broadcast_id] == [item.broadcast_id for item in page.items]
    cancel = CancelBroadcastRequest(broadcast_id=broadcast_id, reason=marker, retract=True)
    await client.sender.CancelBroadcast(cancel, metadata=client.person("admin"), timeout=CALL_S)
    state = client.stack.state

    async def is_logged() -> bool:
        return broadcast_id in (state.logs / "sender.log").read_text()

    await eventually(is_logged, "the log to have the broadcast")
    places = [path for folder in (state.logs, state.path / "nats" / "store") for path in folder.rglob("*")]
    kept = b"".join(path.read_bytes() for path in places if path.is_file())
    token = dict(metadata)["authorization"].rpartition(".")[2]
    secrets = (marker, user_id, token, "eyJ")
    assert [] == [secret for secret in secrets if secret.encode() in kept]
