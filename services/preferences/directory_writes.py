"""Owns changes of the directory: checked, kept once, and told to the inbox, whose own wall must not be behind."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog
from wedsync.broadcast.v1 import directory_pb2

from services.preferences.directory import check_people, check_weddings
from services.preferences.messages import broken_dates, to_person, to_wedding
from services.preferences.store import DirectoryStore
from services.preferences.wall import InboxWall
from shared.audience import Audience
from shared.auth import current_identity
from shared.database import Transaction
from shared.failpoints import declare, failpoint
from shared.methods import Replay
from shared.replays import OnceOnly

log = structlog.get_logger(__name__)

UPSERT_RECIPIENTS: Final = "UpsertRecipients"
UPSERT_WEDDINGS: Final = "UpsertWeddings"
SET_TEAM: Final = "SetWeddingTeam"
BEFORE_UPSERT, AFTER_UPSERT = declare("preferences.upsert.before_commit", "preferences.upsert.after_commit")
BEFORE_TEAM, AFTER_TEAM, AFTER_TEAM_TOLD = declare(
    "preferences.team.before_commit", "preferences.team.after_commit", "preferences.team.after_told"
)


class DirectoryWrites:
    """What services that feed the directory may change."""

    def __init__(
        self,
        store: DirectoryStore,
        once: OnceOnly,
        wall: InboxWall,
        wake_relay: Callable[[], None],
        wake_teller: Callable[[], None],
    ) -> None:
        """`wake_relay` is told of changed teams, `wake_teller` of whatever may be for the audit log."""
        self._store = store
        self._once = once
        self._wall = wall
        self._wake_relay = wake_relay
        self._wake_teller = wake_teller

    def replays(self) -> dict[str, Replay | None]:
        """What answers a repeated request before anything about it is judged anew."""
        return {
            UPSERT_RECIPIENTS: self._once.replay(UPSERT_RECIPIENTS, directory_pb2.UpsertRecipientsResponse),
            UPSERT_WEDDINGS: self._once.replay(UPSERT_WEDDINGS, directory_pb2.UpsertWeddingsResponse),
            SET_TEAM: self._once.replay(SET_TEAM, directory_pb2.SetWeddingTeamResponse),
        }

    async def upsert_people(
        self, request: directory_pb2.UpsertRecipientsRequest, *, may_change_admins: bool
    ) -> directory_pb2.UpsertRecipientsResponse:
        """Add or replace people, all or none. Raises InvalidField, PermissionDenied."""

        async def write(transaction: Transaction) -> directory_pb2.UpsertRecipientsResponse:
            written = await self._store.upsert_people(
                transaction, current_identity().name, people, may_change_admins=may_change_admins
            )
            await failpoint(BEFORE_UPSERT)
            return directory_pb2.UpsertRecipientsResponse(
                numbers=written.numbers, created=written.created, directory_version=written.version
            )

        people = [to_person(each) for each in request.recipients]
        check_people(people)
        response = await self._once.do(
            UPSERT_RECIPIENTS, request, directory_pb2.UpsertRecipientsResponse, write
        )
        await failpoint(AFTER_UPSERT)
        self._wake_teller()
        return response

    async def upsert_weddings(
        self, request: directory_pb2.UpsertWeddingsRequest
    ) -> directory_pb2.UpsertWeddingsResponse:
        """Add or replace weddings, all or none. Raises InvalidField."""

        async def write(transaction: Transaction) -> directory_pb2.UpsertWeddingsResponse:
            written = await self._store.upsert_weddings(transaction, current_identity().name, weddings)
            await failpoint(BEFORE_UPSERT)
            return directory_pb2.UpsertWeddingsResponse(
                created=written.created, directory_version=written.version
            )

        weddings = [to_wedding(each) for each in request.weddings]
        check_weddings(weddings, broken_dates(request.weddings))
        response = await self._once.do(UPSERT_WEDDINGS, request, directory_pb2.UpsertWeddingsResponse, write)
        await failpoint(AFTER_UPSERT)
        return response

    async def set_team(
        self, request: directory_pb2.SetWeddingTeamRequest
    ) -> directory_pb2.SetWeddingTeamResponse:
        """Replace a wedding's team and have the inbox apply it. Raises NotFound, InvalidField."""
        wedding_id, user_ids = UUID(request.wedding_id), [UUID(each) for each in request.user_ids]

        async def write(transaction: Transaction) -> directory_pb2.SetWeddingTeamResponse:
            written = await self._store.set_team(transaction, current_identity().name, wedding_id, user_ids)
            await failpoint(BEFORE_TEAM)
            return directory_pb2.SetWeddingTeamResponse(
                added=written.added, removed=written.removed, team_version=written.version
            )

        done = await self._once.begin(SET_TEAM, request, directory_pb2.SetWeddingTeamResponse, write)
        await failpoint(AFTER_TEAM)
        if done.is_whole:
            return done.response
        self._wake_relay()
        self._wake_teller()
        done.response.inbox_applied = await self._tell_inbox(wedding_id)
        await failpoint(AFTER_TEAM_TOLD)
        if not done.is_repeated:
            _log_team(wedding_id, done.response)
        return await self._once.finish(SET_TEAM, request, done.response)

    async def _tell_inbox(self, wedding_id: UUID) -> bool:
        """Have the inbox apply the team that is on record; whether it has.

        Also when nothing has changed: setting a team again puts right an inbox that could not be reached before.
        """
        team = await self._store.find_team(wedding_id)
        return await self._wall.apply(wedding_id, team.version, Audience.of(team.members))


def _log_team(wedding_id: UUID, response: directory_pb2.SetWeddingTeamResponse) -> None:
    log.info(
        "team_set",
        wedding_id=str(wedding_id),
        team_version=response.team_version,
        added=response.added,
        removed=response.removed,
        inbox_applied=response.inbox_applied,
    )
