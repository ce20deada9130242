"""Makes up people whose settings differ in everything that product.md lets them set, and broadcasts about them."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, Self, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date
from google.type.timeofday_pb2 import TimeOfDay
from wedsync.broadcast.v1.common_pb2 import Channel, Priority, Targeting
from wedsync.broadcast.v1.directory_pb2 import (
    Recipient,
    SetWeddingTeamRequest,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    UserType,
    WeddingEntry,
    WeddingStatus,
)
from wedsync.broadcast.v1.preferences_pb2 import (
    Preferences,
    QuietHours,
    ResetPreferencesRequest,
    RoleSetting,
    UpdatePreferencesRequest,
    WeddingFilter,
)
from wedsync.broadcast.v1.sender_pb2 import PreviewAudienceRequest

from tests.e2e.client import CALL_S, Client

T = TypeVar("T")
ROLES: Final = ("couple", "coordinator", "photographer", "florist", "drone-pilot")
TIERS: Final = ("free", "professional", "enterprise")
ZONES: Final = ("Europe/Vienna", "America/St_Johns", "Asia/Kolkata", "Pacific/Chatham", "UTC")
TYPES: Final = ("feature.released", "trial.ending", "payment.required", "form.locked", "security.alert")
WEDDING_TYPES: Final = ("timeline.changed", "wedding.cancelled", "wedding.emergency")
CRITICAL: Final = frozenset({"security.alert", "wedding.cancelled", "wedding.emergency"})
CHANNELS: Final = tuple(value for value in Channel.values() if value)
PRIORITIES: Final = tuple(value for value in Priority.values() if value != Priority.PRIORITY_CRITICAL)
WEDDINGS: Final = 3
_AT_ONCE: Final = 8


@dataclass(slots=True)
class World:
    """Some people, and the teams of the weddings that they work on."""

    random: Random
    people: list[Recipient] = field(default_factory=list)
    teams: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    async def build(cls, client: Client, seed: int, size: int) -> Self:
        """A world of its own, known to the directory, whose people have set what they want."""
        world = cls(Random(seed))
        world.people = [world._person() for _ in range(size)]
        writer = client.service("directory.write")
        await client.directory.UpsertRecipients(
            UpsertRecipientsRequest(recipients=world.people), metadata=writer, timeout=CALL_S
        )
        weddings = [world._wedding() for _ in range(WEDDINGS)]
        await client.directory.UpsertWeddings(
            UpsertWeddingsRequest(weddings=weddings), metadata=writer, timeout=CALL_S
        )
        for each in weddings:
            world.teams[each.wedding_id] = team = world._some([person.user_id for person in world.people])
            request = SetWeddingTeamRequest(wedding_id=each.wedding_id, user_ids=team)
            await client.directory.SetWeddingTeam(request, metadata=writer, timeout=CALL_S)
        wanted = {person.user_id: world._preferences(person) for person in world.people if world._chance(0.8)}
        await few_at_once(_set(client, UUID(user_id), each) for user_id, each in wanted.items())
        await few_at_once(_reset(client, UUID(user_id)) for user_id in world._some(list(wanted), 0.1))
        return world

    def broadcast(self) -> PreviewAudienceRequest:
        """One that may be sent, to some of these people."""
        request = PreviewAudienceRequest(type=self.random.choice((*TYPES, *WEDDING_TYPES)))
        if request.type in WEDDING_TYPES or self._chance(0.2):
            request.wedding_id = self.random.choice(list(self.teams))
        request.targeting.CopyFrom(self._targeting(is_about_one=bool(request.wedding_id)))
        request.priority = self.random.choice(PRIORITIES)
        if request.type in CRITICAL and self._chance(0.4):
            request.priority = Priority.PRIORITY_CRITICAL
        if self._chance(0.6):
            expires_at = datetime.now(UTC) + timedelta(minutes=self.random.randrange(10, 16 * 60))
            request.expires_at.CopyFrom(_timestamp(expires_at))
        return request

    def _targeting(self, *, is_about_one: bool) -> Targeting:
        """Users, roles, tiers or everybody, within one wedding, several or none; teams alone where there are any."""
        targeting = Targeting()
        if not is_about_one and self._chance(0.3):
            targeting.wedding_ids.extend(self._some(list(self.teams)) or list(self.teams))
        is_bound = is_about_one or bool(targeting.wedding_ids)
        if is_bound and self._chance(0.4):
            return targeting
        if is_bound and self._chance(0.5):
            targeting.roles.extend(self._some(list(ROLES)))
            targeting.tiers.append(self.random.choice(TIERS))
        elif self._chance(0.1):
            targeting.everyone = True
        else:
            targeting.user_ids.extend(self._some([each.user_id for each in self.people], 0.8))
            targeting.user_ids.append(str(uuid4()))
        return targeting

    def _person(self) -> Recipient:
        return Recipient(
            user_id=str(uuid4()),
            display_name="Somebody",
            role=self.random.choice(ROLES),
            user_type=UserType.USER_TYPE_SUPPLIER,
            tier=self.random.choice(TIERS),
            time_zone=self.random.choice(ZONES),
        )

    def _wedding(self) -> WeddingEntry:
        """Today, tomorrow or far away, or without a date."""
        entry = WeddingEntry(
            wedding_id=str(uuid4()),
            couple_name="Amara & Jonas",
            status=WeddingStatus.WEDDING_STATUS_PLANNING,
            time_zone=self.random.choice(ZONES),
        )
        if self._chance(0.7):
            day = datetime.now(UTC) + timedelta(days=self.random.choice((0, 1, 40)))
            entry.wedding_date.CopyFrom(Date(year=day.year, month=day.month, day=day.day))
        return entry

    def _preferences(self, person: Recipient) -> Preferences:
        own = [wedding_id for wedding_id, team in self.teams.items() if person.user_id in team]
        return Preferences(
            **{name: self._chance(0.8) for name in ("system", "business", "collaboration", "wedding")},  # type: ignore[arg-type]
            critical_only=self._chance(0.1),
            channels=self._some(CHANNELS, 0.7),
            quiet_hours=self._quiet_hours(person),
            role_settings=[self._role_setting(role) for role in {person.role, *self._some(ROLES)}],
            wedding_filters=[self._wedding_filter(each) for each in self._some(own)],
        )

    def _quiet_hours(self, person: Recipient) -> QuietHours:
        """Now or at another time, in a zone of their own or the directory's."""
        zone = self.random.choice(ZONES) if self._chance(0.3) else ""
        now = datetime.now(ZoneInfo(zone or person.time_zone))
        start = now - timedelta(minutes=self.random.randrange(-180, 600))
        end = start + timedelta(minutes=self.random.randrange(60, 900))
        return QuietHours(enabled=self._chance(0.7), start=_clock(start), end=_clock(end), time_zone=zone)

    def _role_setting(self, role: str) -> RoleSetting:
        muted = self._some((*TYPES, *WEDDING_TYPES), 0.2)
        return RoleSetting(role=role, muted_types=muted, channels=self._channels())

    def _wedding_filter(self, wedding_id: str) -> WeddingFilter:
        return WeddingFilter(wedding_id=wedding_id, muted=self._chance(0.5), channels=self._channels())

    def _channels(self) -> list["Channel.ValueType"]:
        return self._some(CHANNELS) if self._chance(0.4) else []

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _some(self, values: Sequence[T], share: float = 0.5) -> list[T]:
        return [value for value in values if self._chance(share)]


async def few_at_once(work: Iterable[Awaitable[T]]) -> list[T]:
    """What each comes to, in their order; a server that has much else to do takes so many calls."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Awaitable[T]) -> T:
        async with room:
            return await each

    return await asyncio.gather(*map(one, work))


async def _set(client: Client, user_id: UUID, wanted: Preferences) -> None:
    request = UpdatePreferencesRequest(preferences=wanted, update_mask=FieldMask(paths=["*"]))
    await client.preferences.UpdatePreferences(request, metadata=client.person(user_id), timeout=CALL_S)


async def _reset(client: Client, user_id: UUID) -> None:
    metadata = client.person(user_id)
    await client.preferences.ResetPreferences(ResetPreferencesRequest(), metadata=metadata, timeout=CALL_S)


def _clock(moment: datetime) -> TimeOfDay:
    return TimeOfDay(hours=moment.hour, minutes=moment.minute)


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
