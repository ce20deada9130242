"""Two weddings that look alike, and what must not get from one to the other: the world that the wall is proven in.

The couples have one name and one telephone number, the suppliers too; every title, link and search word is there twice.
What tells them apart are ids, email addresses and a marker in each message: the secrets. Whoever finds one in an answer
knows where it comes from.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from wedsync.broadcast.v1.common_pb2 import Action, Priority, ReceiptAction, Targeting
from wedsync.broadcast.v1.directory_pb2 import (
    Recipient,
    SetWeddingTeamRequest,
    SetWeddingTeamResponse,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    UserType,
    WeddingEntry,
    WeddingStatus,
)
from wedsync.broadcast.v1.inbox_pb2 import MarkAllReadRequest, RecordReceiptsRequest
from wedsync.broadcast.v1.preferences_pb2 import Preferences, QuietHours, UpdatePreferencesRequest

from tests.e2e.client import CALL_S, Client, Metadata, bearer

A, B = "wedding A", "wedding B"
TITLE: Final = "Ceremony moved to 15:30"
SEARCH: Final = "ceremony"
BILLING: Final = "billing"
NOWHERE: Final = ("nowhere", "nowhere else")
"""Names of ids that nothing has."""

_KINDS: Final = {
    "couple": UserType.USER_TYPE_COUPLE,
    "admin": UserType.USER_TYPE_STAFF,
}
_NAMES: Final = {"couple": "Amara & Jonas", "coordinator": "Nadia Haddad", "florist": "Fleur Dubois"}


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody, and the weddings on whose teams they are, or were when everything was told."""

    name: str
    role: str
    weddings: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    user_id: UUID = field(default_factory=uuid4)

    @property
    def email(self) -> str:
        """An address that nobody else has."""
        return f"{self.user_id.hex}@example.com"

    def entry(self, role: str | None = None) -> Recipient:
        """How the directory is told of them, with their role or another."""
        return Recipient(
            user_id=str(self.user_id),
            display_name=_NAMES.get(self.role, "Petra Novak"),
            role=role or self.role,
            user_type=_KINDS.get(self.role, UserType.USER_TYPE_SUPPLIER),
            tier="professional",
            email=self.email,
            phone="+12025550142",
            time_zone="Etc/GMT",
        )


@dataclass(frozen=True, slots=True)
class Story:
    """A broadcast: who sends it, who is meant, and the weddings that it is about."""

    name: str
    author: str
    type: str
    weddings: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    is_critical: bool = False
    is_for_tomorrow: bool = False
    marker: str = field(default_factory=lambda: f"marker{uuid4().hex}")

    @property
    def is_about_one(self) -> bool:
        """Whether it names the wedding that it is about, and not only the teams that it is for."""
        return len(self.weddings) == 1


MEMBERS: Final = (
    Member("couple A", "couple", frozenset({A})),
    Member("couple B", "couple", frozenset({B})),
    Member("florist A", "florist", frozenset({A})),
    Member("florist B", "florist", frozenset({B})),
    Member("coordinator A", "coordinator", frozenset({A})),
    Member("coordinator B", "coordinator", frozenset({B})),
    Member("photographer of both", "photographer", frozenset({A, B})),
    Member("florist who left A", "florist", left=frozenset({A})),
    Member("coordinator who left A", "coordinator", left=frozenset({A})),
    Member("coordinator of neither", "coordinator"),
    Member("admin", "admin"),
)
PEOPLE: Final = {member.name: member for member in MEMBERS}
STRANGER: Final = Member("stranger", "")
"""Somebody with a good token whom the directory does not know."""

STORIES: Final = (
    Story("change A", "coordinator A", "timeline.changed", (A,)),
    Story("change B", "coordinator B", "timeline.changed", (B,)),
    Story("emergency A", "coordinator A", "wedding.emergency", (A,), is_critical=True),
    Story("emergency B", "coordinator B", "wedding.emergency", (B,), is_critical=True),
    Story("farewell A", "coordinator who left A", "journey.updated", (A,)),
    Story("both", "admin", "journey.updated", (A, B)),
    # The wall cuts strangers off; whoever reads of it must not find them among those it was meant for.
    Story("named", "admin", "form.locked", (A,), ("couple A", "couple B", "admin")),
    Story("news", "admin", "feature.released", (), tuple(PEOPLE)),
    Story("bill", BILLING, "payment.required", (), ("couple B",)),
    Story("tomorrow A", "coordinator A", "journey.updated", (A,), is_for_tomorrow=True),
    Story("tomorrow B", "coordinator B", "journey.updated", (B,), is_for_tomorrow=True),
)
TOLD: Final = {story.name: story for story in STORIES}


@dataclass(slots=True)
class World:
    """Everybody and everything by name, with the ids that stand for them."""

    weddings: dict[str, str]
    broadcasts: dict[str, str]
    nowhere: dict[str, str]
    token: str
    """That of couple A, for whoever holds sockets."""

    def id_of(self, name: str) -> str:
        """The id of a wedding, a person, a broadcast, or of nothing at all."""
        for ids in (self.weddings, self.broadcasts, self.nowhere):
            if name in ids:
                return ids[name]
        return str(PEOPLE[name].user_id)

    def secrets(self) -> dict[str, bytes]:
        """What may not get to whom it is not for, by name: ids, addresses, and what messages say."""
        people = (*MEMBERS, STRANGER)
        texts = {f"text of {name}": story.marker for name, story in TOLD.items()}
        addresses = {f"address of {member.name}": member.email for member in people}
        users = {member.name: str(member.user_id) for member in people}
        named = self.weddings | self.broadcasts | users | texts | addresses
        return {name: value.encode() for name, value in named.items()}


async def set_team(client: Client, wedding_id: str, user_ids: Iterable[UUID]) -> SetWeddingTeamResponse:
    """From when this returns, this is the wedding's team, also in inboxes."""
    request = SetWeddingTeamRequest(wedding_id=wedding_id, user_ids=map(str, user_ids))
    answer = await client.directory.SetWeddingTeam(
        request, metadata=client.service("directory.write"), timeout=CALL_S
    )
    assert answer.inbox_applied
    return answer


async def bring(client: Client, members: Iterable[Member], role: str | None = None) -> None:
    """Have the directory know these people, in their role or another."""
    entries = [member.entry(role) for member in members]
    await client.directory.UpsertRecipients(
        UpsertRecipientsRequest(recipients=entries),
        metadata=client.service("directory.write", "directory.admin"),
        timeout=CALL_S,
    )


def wedding_entry(wedding_id: str) -> WeddingEntry:
    """A wedding like any other."""
    return WeddingEntry(
        wedding_id=wedding_id,
        couple_name=_NAMES["couple"],
        wedding_date=Date(year=2031, month=6, day=5),
        status=WeddingStatus.WEDDING_STATUS_CONFIRMED,
    )


async def add_wedding(client: Client, *team: Member) -> str:
    """A new wedding with this team; its id."""
    wedding_id = str(uuid4())
    await client.directory.UpsertWeddings(
        UpsertWeddingsRequest(weddings=[wedding_entry(wedding_id)]),
        metadata=client.service("directory.write"),
        timeout=CALL_S,
    )
    await set_team(client, wedding_id, [member.user_id for member in team])
    return wedding_id


async def without_quiet_hours(client: Client, members: Iterable[Member]) -> None:
    """Let nothing be held for these people, whatever the hour is in which a test runs."""
    for member in members:
        await client.preferences.UpdatePreferences(
            UpdatePreferencesRequest(
                preferences=Preferences(quiet_hours=QuietHours()),
                update_mask={"paths": ["quiet_hours.enabled"]},
            ),
            metadata=client.person(member.user_id),
            timeout=CALL_S,
        )


async def build(client: Client) -> World:
    """The world: told to the directory, sent, arrived, read, and acknowledged; then some have left."""
    await bring(client, MEMBERS)
    await without_quiet_hours(client, MEMBERS)
    weddings = {
        name: await add_wedding(client, *(each for each in MEMBERS if name in each.weddings | each.left))
        for name in (A, B)
    }
    token = client.token(PEOPLE["couple A"].user_id)
    world = World(weddings, {}, {name: str(uuid4()) for name in NOWHERE}, token)
    for story in STORIES:
        world.broadcasts[story.name] = await _tell(client, world, story)
    for story in STORIES:
        if not story.is_for_tomorrow:
            await client.sent(world.broadcasts[story.name])
    await _receive(client, world)
    for name, wedding_id in weddings.items():
        await set_team(client, wedding_id, [each.user_id for each in MEMBERS if name in each.weddings])
    return world


async def _tell(client: Client, world: World, story: Story) -> str:
    """Sends it; its id."""
    targeting = Targeting(user_ids=map(world.id_of, story.people))
    if not story.is_about_one:
        targeting.wedding_ids.extend(map(world.id_of, story.weddings))
    metadata = (
        client.service("broadcast.send", name=BILLING)
        if story.author == BILLING
        else client.person(PEOPLE[story.author].user_id)
    )
    return await client.send(
        metadata,
        type=story.type,
        title=TITLE,
        message=f"Photos start at 14:45. {story.marker}",
        action=Action(label="Open", url="/timeline"),
        priority=Priority.PRIORITY_CRITICAL if story.is_critical else None,
        targeting=targeting if targeting.ByteSize() else None,
        wedding_id=world.id_of(story.weddings[0]) if story.is_about_one else None,
        scheduled_for=tomorrow() if story.is_for_tomorrow else None,
    )


def tomorrow() -> Timestamp:
    """This time of the next day."""
    moment = Timestamp()
    moment.GetCurrentTime()
    moment.seconds += 86_400
    return moment


async def _receive(client: Client, world: World) -> None:
    """Everybody has read everything, and acknowledged what is critical."""
    urgent = [world.broadcasts[story.name] for story in STORIES if story.is_critical]
    acknowledge = RecordReceiptsRequest(
        broadcast_ids=urgent, action=ReceiptAction.RECEIPT_ACTION_ACKNOWLEDGED
    )
    for member in MEMBERS:
        metadata = client.person(member.user_id)
        await client.inbox.RecordReceipts(acknowledge, metadata=metadata, timeout=CALL_S)
        await client.inbox.MarkAllRead(MarkAllReadRequest(), metadata=metadata, timeout=CALL_S)


def as_service(client: Client, scope: str) -> Metadata:
    """A service account with one scope, which shares no request_ids with another; who sends is not who has sent."""
    name = "forms" if scope.startswith("broadcast.send") else f"ops-{scope.replace('.', '-')}"
    return client.service(scope, name=name)


def expired(client: Client) -> Metadata:
    """A token that was an admin's once."""
    return bearer(client.token(PEOPLE["admin"].user_id, lifetime_s=-3_600))
