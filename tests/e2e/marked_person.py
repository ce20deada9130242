"""A person who leaves something everywhere, with words that are nobody else's, so that it can be looked for."""

from collections.abc import Awaitable
from uuid import UUID, uuid4

from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import common_pb2, directory_pb2, inbox_pb2, preferences_pb2

from stack.world import demo_id
from tests.e2e.client import CALL_S, Client, broadcast, eventually, refusal

PERSON = UUID("0f6bd4f7-92ee-4d3f-8a52-7f1ae7c21b11")
NAME, MAIL, PHONE = "Zsuzsanna Markerová", "zsuzsanna.markerova@example.com", "+436601237654"
WORDS, TOMORROW, LINK = "Onlyforyou Kvetinarstvo", "Onlyforyou Neskoršie", "/only/kvetinarstvo-4711"
MARKERS = (NAME, MAIL, PHONE, WORDS, TOMORROW, LINK)


async def know(client: Client, user_id: UUID, name: str = NAME, **fields: object) -> None:
    """Have the directory know a coordinator."""
    entry = directory_pb2.Recipient(
        user_id=str(user_id),
        display_name=name,
        role="coordinator",
        user_type=directory_pb2.USER_TYPE_SUPPLIER,
        tier="starter",
        time_zone="Europe/Bratislava",
        **fields,  # type: ignore[arg-type]
    )
    await client.directory.UpsertRecipients(
        directory_pb2.UpsertRecipientsRequest(request_id=str(uuid4()), recipients=[entry]),
        metadata=client.service("directory.write"),
        timeout=CALL_S,
    )


async def set_team(client: Client, wedding: str, *people: UUID) -> None:
    """A wedding of one's own."""
    writer = client.service("directory.write")
    entry = directory_pb2.WeddingEntry(
        wedding_id=str(demo_id(wedding)),
        couple_name="Anna & Ben",
        status=directory_pb2.WEDDING_STATUS_PLANNING,
    )
    await client.directory.UpsertWeddings(
        directory_pb2.UpsertWeddingsRequest(weddings=[entry]), metadata=writer, timeout=CALL_S
    )
    request = directory_pb2.SetWeddingTeamRequest(
        wedding_id=entry.wedding_id, user_ids=[str(each) for each in people]
    )
    await client.directory.SetWeddingTeam(request, metadata=writer, timeout=CALL_S)


async def sleep_all_day(client: Client) -> None:
    """Preferences of every kind, with quiet hours that never seem to end: what comes is held."""
    quiet = preferences_pb2.QuietHours(enabled=True, time_zone="Etc/GMT+5")
    quiet.start.hours, quiet.end.hours, quiet.end.minutes = 0, 23, 59
    wanted = preferences_pb2.Preferences(
        quiet_hours=quiet,
        role_settings=[preferences_pb2.RoleSetting(role="coordinator", muted_types=["trial.ending"])],
        wedding_filters=[preferences_pb2.WeddingFilter(wedding_id=str(demo_id("wedding-p")), muted=False)],
    )
    await client.preferences.UpdatePreferences(
        preferences_pb2.UpdatePreferencesRequest(
            request_id=str(uuid4()),
            preferences=wanted,
            update_mask={"paths": ["quiet_hours", "role_settings", "wedding_filters"]},
        ),
        metadata=client.person(PERSON),
        timeout=CALL_S,
    )


async def use_limit_up(client: Client) -> None:
    """Send until a limit refuses, and be remembered for it."""

    def critical() -> Awaitable[object]:
        request = broadcast(
            type="wedding.emergency",
            priority=common_pb2.PRIORITY_CRITICAL,
            wedding_id=str(demo_id("wedding-p")),
            targeting=None,
        )
        return client.sender.SendBroadcast(request, metadata=client.person(PERSON), timeout=CALL_S)

    for _ in range(5):
        await critical()
    _, details = await refusal(critical())
    assert details.reason_name == "RATE_LIMITED"


def alone(title: str, **fields: object) -> dict[str, object]:
    """A broadcast that is meant for this person and nobody else."""
    return {
        "title": title,
        "message": f"{title}, and nobody else.",
        "action": common_pb2.Action(label="Open", url=LINK),
        "targeting": common_pb2.Targeting(user_ids=[str(PERSON)]),
        **fields,
    }


async def receive(client: Client, broadcast_id: str, *actions: str) -> None:
    """What somebody does with an item, once it is there."""

    async def is_there() -> bool:
        return await client.has(PERSON, broadcast_id)

    await eventually(is_there, "an item")
    for action in actions:
        request = inbox_pb2.RecordReceiptsRequest(
            request_id=str(uuid4()),
            broadcast_ids=[broadcast_id],
            action=common_pb2.ReceiptAction.Value(f"RECEIPT_ACTION_{action}"),
            action_url=LINK if action == "CLICKED" else "",
        )
        await client.inbox.RecordReceipts(request, metadata=client.person(PERSON), timeout=CALL_S)


async def arrange(client: Client, pinned: str, snoozed: str) -> None:
    """Where somebody keeps items."""
    me = client.person(PERSON)
    pin = inbox_pb2.PinItemRequest(request_id=str(uuid4()), broadcast_id=pinned)
    await client.inbox.PinItem(pin, metadata=me, timeout=CALL_S)
    later = inbox_pb2.SnoozeItemRequest(
        request_id=str(uuid4()), broadcast_id=snoozed, snooze_until=in_a_week()
    )
    await client.inbox.SnoozeItem(later, metadata=me, timeout=CALL_S)


def in_a_week() -> Timestamp:
    """A time that does not come while this runs."""
    moment = Timestamp()
    moment.GetCurrentTime()
    moment.seconds += 7 * 86_400
    return moment


async def live(client: Client) -> list[str]:
    """Have the person do everything that leaves something; the broadcasts whose counts must stay."""
    await know(client, PERSON, email=MAIL, phone=PHONE)
    await set_team(client, "wedding-p", PERSON, demo_id("florist"))
    await sleep_all_day(client)
    retried = broadcast(**alone(WORDS))
    admin = client.person("admin-0")
    told = await client.sender.SendBroadcast(retried, metadata=admin, timeout=CALL_S)
    await client.send("admin", **alone(TOMORROW, scheduled_for=in_a_week()))
    everyone = await client.send("admin")
    await receive(client, told.broadcast.broadcast_id, "READ", "CLICKED")
    await receive(client, everyone, "READ")
    await arrange(client, told.broadcast.broadcast_id, everyone)
    await client.inbox.MarkAllRead(
        inbox_pb2.MarkAllReadRequest(request_id=str(uuid4())), metadata=client.person(PERSON), timeout=CALL_S
    )
    await client.inbox.ListInboxItems(
        inbox_pb2.ListInboxItemsRequest(), metadata=client.person(PERSON), timeout=CALL_S
    )
    await use_limit_up(client)
    for broadcast_id in (told.broadcast.broadcast_id, everyone):
        await client.sent(broadcast_id)
    return [told.broadcast.broadcast_id, everyone]
