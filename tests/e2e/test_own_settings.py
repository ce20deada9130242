"""What somebody sets for themselves is what their next broadcast does: by role, by wedding, and after a reset."""

from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1.common_pb2 import Channel, DeliveryState, SuppressionReason, Targeting
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
    GetPreferencesRequest,
    GetRecommendedPreferencesRequest,
    Preferences,
    RecommendationReason,
    ResetPreferencesRequest,
    RoleSetting,
    UpdatePreferencesRequest,
    WeddingFilter,
)

from tests.e2e.client import CALL_S, Client

IN_APP, REALTIME, EMAIL = Channel.CHANNEL_IN_APP, Channel.CHANNEL_REALTIME, Channel.CHANNEL_EMAIL
HEARD = {IN_APP: "delivered", REALTIME: "sent"}


class Someone:
    """Somebody new, of a role that has no preset of its own: no quiet hours, so the hour makes no difference."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.user_id = uuid4()
        self._metadata = client.person(self.user_id)

    async def join(self, role: str) -> None:
        """Be in the directory, in this role from now on."""
        entry = Recipient(
            user_id=str(self.user_id),
            display_name="Drone Works",
            role=role,
            user_type=UserType.USER_TYPE_SUPPLIER,
            tier="starter",
            time_zone="Europe/Vienna",
        )
        request = UpsertRecipientsRequest(recipients=[entry])
        await self._client.directory.UpsertRecipients(
            request, metadata=self._client.service("directory.write"), timeout=CALL_S
        )

    async def set(self, wanted: Preferences, *paths: str) -> Preferences:
        """Change what these paths name."""
        request = UpdatePreferencesRequest(preferences=wanted, update_mask=FieldMask(paths=paths))
        answer = await self._client.preferences.UpdatePreferences(
            request, metadata=self._metadata, timeout=CALL_S
        )
        return answer.preferences

    async def reset(self) -> Preferences:
        """Take all of it back."""
        answer = await self._client.preferences.ResetPreferences(
            ResetPreferencesRequest(request_id=str(uuid4())), metadata=self._metadata, timeout=CALL_S
        )
        return answer.preferences

    async def get(self) -> Preferences:
        """What applies."""
        answer = await self._client.preferences.GetPreferences(
            GetPreferencesRequest(), metadata=self._metadata, timeout=CALL_S
        )
        return answer.preferences

    async def told(self, **fields: object) -> dict[int, str]:
        """What becomes of a broadcast to them on each channel: its state, or the reason why there is none."""
        fields = {"targeting": Targeting(user_ids=[str(self.user_id)])} | fields
        sender = self._client.service("broadcast.send", name=f"telling-{self.user_id.hex[:8]}")
        shown = await self._client.sent(await self._client.send(sender, **fields))
        return {
            entry.channel: SuppressionReason.Name(entry.reason).removeprefix("SUPPRESSION_REASON_").lower()
            if entry.reason
            else DeliveryState.Name(entry.state).removeprefix("DELIVERY_STATE_").lower()
            for entry in shown.stats.ledger
        }


@pytest.fixture
async def someone(client: Client) -> Someone:
    """Somebody new."""
    someone = Someone(client)
    await someone.join("drone-pilot")
    return someone


async def test_what_is_set_for_a_role_holds_while_they_have_it(someone: Someone) -> None:
    """A muted type and other channels, until the role is another one; and again once it is the same."""
    assert await someone.told() == HEARD
    setting = RoleSetting(role="drone-pilot", muted_types=["feature.released"], channels=[EMAIL])
    await someone.set(Preferences(role_settings=[setting]), "role_settings")
    assert await someone.told() == {IN_APP: "type_muted", REALTIME: "type_muted"}
    assert await someone.told(type="form.locked") == {IN_APP: "delivered", REALTIME: "channel_off"}
    await someone.join("balloonist")
    assert await someone.told() == await someone.told(type="form.locked") == HEARD
    await someone.join("drone-pilot")
    assert await someone.told() == {IN_APP: "type_muted", REALTIME: "type_muted"}


async def test_what_is_set_for_a_wedding_holds_for_that_one(client: Client, someone: Someone) -> None:
    """Muted it is silent, but for what is essential, which stays findable; its channels count before the role's."""
    wedding_id, other = [await _wedding(client, someone.user_id) for _ in range(2)]
    by_role = RoleSetting(role="drone-pilot", channels=[EMAIL])
    by_wedding = WeddingFilter(wedding_id=wedding_id, channels=[REALTIME])
    await someone.set(
        Preferences(role_settings=[by_role], wedding_filters=[by_wedding]), "role_settings", "wedding_filters"
    )
    journey = {"type": "journey.updated", "targeting": None}
    assert await someone.told(**journey, wedding_id=wedding_id) == HEARD
    assert await someone.told(**journey, wedding_id=other) == {IN_APP: "delivered", REALTIME: "channel_off"}
    by_wedding.muted = True
    await someone.set(Preferences(wedding_filters=[by_wedding]), "wedding_filters")
    assert await someone.told(**journey, wedding_id=wedding_id) == {
        IN_APP: "wedding_muted",
        REALTIME: "wedding_muted",
    }
    assert await someone.told(type="timeline.changed", targeting=None, wedding_id=wedding_id) == {
        IN_APP: "delivered",
        REALTIME: "wedding_muted",
    }


async def test_a_reset_takes_effect_and_the_preset_follows_the_role(someone: Someone) -> None:
    """Of what they had muted they hear again, as somebody who never edited."""
    before = await someone.get()
    await someone.set(Preferences(critical_only=True), "critical_only", "system")
    assert await someone.told() == {IN_APP: "critical_only", REALTIME: "critical_only"}
    reset = await someone.reset()
    assert (reset.edited, reset.critical_only, reset.system) == (False, False, True)
    assert list(reset.channels) == list(before.channels)
    assert await someone.told() == HEARD
    await someone.join("couple")
    assert EMAIL in (await someone.get()).channels


async def test_what_is_recommended_says_why_and_is_taken_by_one_call(
    client: Client, someone: Someone
) -> None:
    """Whose role is none that is known has no quiet hours and is offered 22:00-08:00; one value, or all of it."""
    offered = await client.preferences.GetRecommendedPreferences(
        GetRecommendedPreferencesRequest(), metadata=client.person(someone.user_id), timeout=CALL_S
    )
    (night,) = [each for each in offered.recommendations if each.differs]
    assert (night.path, night.reason) == (
        "quiet_hours",
        RecommendationReason.RECOMMENDATION_REASON_SLEEPS_AT_NIGHT,
    )
    assert not (await someone.get()).quiet_hours.enabled
    taken = await someone.set(offered.preferences, night.path)
    hours = taken.quiet_hours
    assert (hours.enabled, hours.start.hours, hours.end.hours, hours.time_zone) == (True, 22, 8, "")
    assert {each.explanation != "" for each in offered.recommendations} == {True}


async def _wedding(client: Client, member: UUID) -> str:
    """A wedding far away, with nobody else on its team."""
    wedding = WeddingEntry(
        wedding_id=str(uuid4()),
        couple_name="Amara & Jonas",
        status=WeddingStatus.WEDDING_STATUS_PLANNING,
    )
    writer = client.service("directory.write")
    await client.directory.UpsertWeddings(
        UpsertWeddingsRequest(weddings=[wedding]), metadata=writer, timeout=CALL_S
    )
    await client.directory.SetWeddingTeam(
        SetWeddingTeamRequest(wedding_id=wedding.wedding_id, user_ids=[str(member)]),
        metadata=writer,
        timeout=CALL_S,
    )
    return wedding.wedding_id
