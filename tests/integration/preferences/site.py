"""A whole preferences service for tests: real Postgres and NATS, a real port, and an inbox that a test commands."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from wedsync.broadcast.v1 import audience_pb2, common_pb2, directory_pb2, preferences_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.preferences_pb2_grpc import PreferencesServiceStub

from services.preferences.config import Settings
from services.preferences.main import RunningPreferences, start
from shared.audience import Audience
from shared.drain import drain
from shared.settings import Environment
from stack.nats import NatsAccess
from stack.provision import SuiteDatabase
from stack.tokens import AUDIENCE, ISSUER, TokenMint
from tests.integration.preferences.inbox import ToldInbox

Metadata = tuple[tuple[str, str], ...]

_words = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Someone:
    """A person in the directory."""

    user_id: str
    number: int
    entry: directory_pb2.Recipient


@dataclass(slots=True)
class Answer:
    """All messages of a stream of slices, put together."""

    slices: list[audience_pb2.AudienceSlice] = field(default_factory=list)
    targeted: int = 0
    unknown_user_ids: int = 0
    outside_user_ids: int = 0
    directory_version: int = 0
    decide_time_ns: int = 0

    def outcomes(self, channel: str) -> dict[int, str]:
        """What each member gets on a channel, such as `pending`, `held` or `suppressed:type_muted`."""
        found: dict[int, str] = {}
        for part in self.slices:
            if part.channel != common_pb2.Channel.Value(f"CHANNEL_{channel.upper()}"):
                continue
            for number in Audience.from_bytes(part.members).to_list():
                assert number not in found, "on each channel everyone is in exactly one slice"
                found[number] = _outcome(part)
        return found


def _outcome(part: audience_pb2.AudienceSlice) -> str:
    outcome = common_pb2.DeliveryState.Name(part.outcome).removeprefix("DELIVERY_STATE_").lower()
    if not part.reason:
        return outcome
    reason = common_pb2.SuppressionReason.Name(part.reason).removeprefix("SUPPRESSION_REASON_").lower()
    return f"{outcome}:{reason}"


@dataclass(slots=True)
class Site:
    """A running preferences service and everything around it."""

    inbox: ToldInbox
    mint: TokenMint
    running: RunningPreferences
    channel: grpc.aio.Channel
    database: SuiteDatabase
    admin: asyncpg.Connection
    environment: dict[str, str]

    @property
    def preferences(self) -> PreferencesServiceStub:
        return PreferencesServiceStub(self.channel)

    @property
    def directory(self) -> DirectoryServiceStub:
        return DirectoryServiceStub(self.channel)

    @property
    def audience(self) -> AudienceServiceStub:
        return AudienceServiceStub(self.channel)

    def person(self, user_id: str) -> Metadata:
        """The metadata of a person's calls."""
        return bearer(self.mint.mint_user_token(UUID(user_id)))

    def service(self, *scopes: str, name: str = "billing") -> Metadata:
        """The metadata of a service account's calls."""
        return bearer(self.mint.mint_service_token(name, scopes))

    async def upsert(self, *people: directory_pb2.Recipient) -> list[int]:
        """Write people, admins too; their numbers."""
        request = directory_pb2.UpsertRecipientsRequest(recipients=people)
        answer = await self.directory.UpsertRecipients(
            request, metadata=self.service("directory.write", "directory.admin")
        )
        return list(answer.numbers)

    async def someone(self, **fields: object) -> Someone:
        """A new person."""
        entry = a_person(**fields)
        [number] = await self.upsert(entry)
        return Someone(entry.user_id, number, entry)

    async def wedding(self, *team: Someone, **fields: object) -> str:
        """A new wedding with this team."""
        entry = a_wedding(**fields)
        request = directory_pb2.UpsertWeddingsRequest(weddings=[entry])
        await self.directory.UpsertWeddings(request, metadata=self.service("directory.write"))
        if team:
            await self.set_team(entry.wedding_id, *team)
        return entry.wedding_id

    async def set_team(self, wedding_id: str, *team: Someone) -> directory_pb2.SetWeddingTeamResponse:
        """Replace a team."""
        request = directory_pb2.SetWeddingTeamRequest(
            wedding_id=wedding_id, user_ids=[each.user_id for each in team]
        )
        return await self.directory.SetWeddingTeam(request, metadata=self.service("directory.write"))

    async def edit(self, person: Someone, *paths: str, **fields: object) -> preferences_pb2.Preferences:
        """Edit somebody's preferences in their name."""
        request = preferences_pb2.UpdatePreferencesRequest(
            preferences=preferences_pb2.Preferences(**fields),  # type: ignore[arg-type]
            update_mask=FieldMask(paths=paths),
        )
        answer = await self.preferences.UpdatePreferences(request, metadata=self.person(person.user_id))
        return answer.preferences

    async def reset(self, person: Someone, **fields: str) -> preferences_pb2.Preferences:
        """Reset somebody's preferences in their name."""
        request = preferences_pb2.ResetPreferencesRequest(**fields)
        answer = await self.preferences.ResetPreferences(request, metadata=self.person(person.user_id))
        return answer.preferences

    async def recommended(self, person: Someone) -> preferences_pb2.GetRecommendedPreferencesResponse:
        """What is recommended to somebody."""
        return await self.preferences.GetRecommendedPreferences(
            preferences_pb2.GetRecommendedPreferencesRequest(), metadata=self.person(person.user_id)
        )

    async def get(self, person: Someone) -> preferences_pb2.Preferences:
        """Somebody's preferences, as they see them."""
        answer = await self.preferences.GetPreferences(
            preferences_pb2.GetPreferencesRequest(), metadata=self.person(person.user_id)
        )
        return answer.preferences

    async def resolve(
        self,
        targeting: common_pb2.Targeting,
        rules: audience_pb2.DeliveryRules | None = None,
        *,
        counts_only: bool = False,
    ) -> Answer:
        """Who is meant, and what each of them gets."""
        request = audience_pb2.ResolveAudienceRequest(
            targeting=targeting, rules=rules or some_rules(), counts_only=counts_only
        )
        answer = Answer()
        async for response in self.audience.ResolveAudience(request, metadata=self.service("internal")):
            answer.targeted = response.targeted
            answer.unknown_user_ids = response.unknown_user_ids
            answer.outside_user_ids = response.outside_user_ids
            _add(answer, response)
        return answer

    async def resolve_users(
        self, people: Iterable[Someone], rules: audience_pb2.DeliveryRules | None = None
    ) -> Answer:
        """What these people get."""
        return await self.resolve(common_pb2.Targeting(user_ids=[each.user_id for each in people]), rules)

    async def reevaluate(
        self,
        members: Iterable[int],
        since: Answer | None = None,
        rules: audience_pb2.DeliveryRules | None = None,
        since_time_ns: int | None = None,
    ) -> Answer:
        """What those of these members get who have changed since an answer; all of them without one."""
        request = audience_pb2.ReevaluateAudienceRequest(
            members=Audience.of(members).to_bytes(), rules=rules or some_rules()
        )
        if since is not None:
            request.since_version = since.directory_version
            request.since_time.FromNanoseconds(since_time_ns or since.decide_time_ns)
        answer = Answer()
        async for response in self.audience.ReevaluateAudience(request, metadata=self.service("internal")):
            _add(answer, response)
        return answer

    async def segment(self, **fields: object) -> directory_pb2.Segment:
        """A new segment."""
        answer = await self.directory.CreateSegment(
            directory_pb2.CreateSegmentRequest(segment=a_segment(**fields)),
            metadata=self.service("directory.write"),
        )
        return answer.segment

    async def count(self, **targeting: object) -> audience_pb2.CountAudienceResponse:
        """How many are meant."""
        request = audience_pb2.CountAudienceRequest(
            targeting=common_pb2.Targeting(**targeting)  # type: ignore[arg-type]
        )
        return await self.audience.CountAudience(request, metadata=self.service("internal"))

    async def restart(self) -> None:
        """End the service and start another on the same data."""
        await end(self.running)
        self.running = await start(Settings.read(Environment(self.environment)))
        await self.channel.close()
        self.channel = grpc.aio.insecure_channel(str(self.running.address))


def _add(
    answer: Answer,
    response: audience_pb2.ResolveAudienceResponse | audience_pb2.ReevaluateAudienceResponse,
) -> None:
    answer.directory_version = response.directory_version
    answer.decide_time_ns = response.decide_time.ToNanoseconds()
    answer.slices.extend(response.slices)


def a_word(kind: str) -> str:
    """A slug that no other test uses, so that a role or tier is a test's own."""
    return f"{kind}-{next(_words)}"


def a_person(**fields: object) -> directory_pb2.Recipient:
    """A directory entry, with some fields otherwise."""
    entry = directory_pb2.Recipient(
        user_id=str(uuid4()),
        display_name="Petra Novak",
        role="photographer",
        user_type=directory_pb2.USER_TYPE_SUPPLIER,
        tier="professional",
        email="petra@example.com",
        phone="+12025550123",
        time_zone="Europe/Vienna",
    )
    entry.MergeFrom(directory_pb2.Recipient(**fields))  # type: ignore[arg-type]
    return entry


def a_wedding(**fields: object) -> directory_pb2.WeddingEntry:
    """A wedding, with some fields otherwise."""
    entry = directory_pb2.WeddingEntry(
        wedding_id=str(uuid4()),
        couple_name="Amara & Jonas",
        status=directory_pb2.WEDDING_STATUS_PLANNING,
        time_zone="Europe/Vienna",
    )
    entry.MergeFrom(directory_pb2.WeddingEntry(**fields))  # type: ignore[arg-type]
    return entry


def a_segment(**fields: object) -> directory_pb2.Segment:
    """A segment, with some fields otherwise."""
    usual = {"name": f"Segment {a_word('number')}", "criteria": {"roles": ["no-such-role"]}}
    return directory_pb2.Segment(**(usual | fields))  # type: ignore[arg-type]


def some_rules(**fields: object) -> audience_pb2.DeliveryRules:
    """Rules of a broadcast that may be muted, with some fields otherwise."""
    rules = audience_pb2.DeliveryRules(
        type="feature.released", category=common_pb2.CATEGORY_SYSTEM, priority=common_pb2.PRIORITY_NORMAL
    )
    rules.MergeFrom(audience_pb2.DeliveryRules(**fields))  # type: ignore[arg-type]
    return rules


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def environment(
    folder: Path, mint: TokenMint, database: SuiteDatabase, access: NatsAccess, inbox: str
) -> dict[str, str]:
    """Every variable that a preferences service is started with."""
    token = mint.write_service_token("preferences", ["internal"], folder)
    return {
        **database.environment("preferences"),
        "PREFERENCES_LISTEN": "127.0.0.1:0",
        "PREFERENCES_SERVICE_TOKEN_FILE": str(token),
        "PREFERENCES_NATS_USER": "preferences",
        "PREFERENCES_NATS_PASSWORD": access.passwords.get("preferences", ""),
        "PREFERENCES_DRAIN_PAUSE_S": "0",
        "PREFERENCES_DRAIN_FINISH_S": "1",
        "PREFERENCES_TEAM_RETRY_S": "0.2",
        "PREFERENCES_AUDIT_RETRY_S": "0.2",
        "PREFERENCES_SEGMENT_COUNT_S": "0.2",
        "NATS_URL": access.url,
        "AUTH_JWKS": str(mint.jwks),
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "INBOX_ADDR": inbox,
        "SENDER_ADDR": inbox,
        "DISPATCHER_ADDR": inbox,
        "PREFERENCES_ERASURE_RETRY_S": "0.2",
        "PREFERENCES_ERASURE_REPEAT_S": "0.3",
    }


async def end(running: RunningPreferences) -> None:
    """Takes a preferences service down as a signal would."""
    await drain(running.steps)
    await asyncio.gather(*running.background)


@asynccontextmanager
async def preferences_site(
    folder: Path, database: SuiteDatabase, access: NatsAccess, inbox: ToldInbox
) -> AsyncIterator[Site]:
    """A preferences service that serves for the time of the block."""
    mint = TokenMint(folder)
    variables = environment(folder, mint, database, access, inbox.address)
    running = await start(Settings.read(Environment(variables)))
    admin = await asyncpg.connect(database.admin_url)
    channel = grpc.aio.insecure_channel(str(running.address))
    site = Site(inbox, mint, running, channel, database, admin, variables)
    try:
        yield site
    finally:
        await site.channel.close()
        await end(site.running)
        await admin.close()
