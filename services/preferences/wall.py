"""Owns keeping the inbox's own wall at the directory's teams: told at once, and again until it has applied each."""

from typing import Final
from uuid import UUID

import structlog
from typing_extensions import override
from wedsync.broadcast.v1.inbox_pb2 import ApplyTeamChangeRequest
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.preferences.audiences import Audiences
from services.preferences.store import DirectoryStore
from services.preferences.weddings import unpack
from shared.audience import Audience
from shared.errors import ServiceError
from shared.rounds import Rounds

log = structlog.get_logger(__name__)

_INBOX_DEADLINE_S: Final = 1.0
"""How long a caller waits for the inbox; what it has not applied by then it is told again."""


class InboxWall:
    """The wall that the inbox keeps, seen from here."""

    def __init__(self, store: DirectoryStore, inbox: InboxServiceStub) -> None:
        self._store = store
        self._inbox = inbox

    async def apply(self, wedding_id: UUID, version: int, members: Audience) -> bool:
        """Have the inbox apply a team, which is on record then; False when it could not be reached."""
        request = ApplyTeamChangeRequest(
            wedding_id=str(wedding_id), team_version=version, members=members.to_bytes()
        )
        try:
            answer = await self._inbox.ApplyTeamChange(request, timeout=_INBOX_DEADLINE_S)
        except ServiceError as error:
            log.warning("inbox_not_reached", wedding_id=str(wedding_id), reason=error.reason_name)
            return False
        await self._store.settle_team(wedding_id, version)
        return answer.team_version >= version


class WallFollower(Rounds):
    """Tells the inbox again of teams that it has not confirmed, whatever became of the message about them."""

    def __init__(self, store: DirectoryStore, audiences: Audiences, wall: InboxWall, retry_s: float) -> None:
        """`retry_s` is how often it looks, and how long it leaves a team to those who have just set it."""
        super().__init__(retry_s)
        self._store = store
        self._audiences = audiences
        self._wall = wall
        self._retry_s = retry_s

    @override
    async def look(self) -> None:
        await self.tell_again()

    async def tell_again(self) -> int:
        """Tell the inbox of each team once, as it is now; how many it has applied."""
        waiting = await self._store.unsettled_teams(self._retry_s)
        if not waiting:
            return 0
        weddings = (await self._audiences.lookup((), {wedding_id for wedding_id, _ in waiting})).weddings
        applied = set()
        for wedding in weddings:
            if await self._wall.apply(wedding.wedding_id, wedding.team_version, unpack([wedding.team])):
                applied.add(wedding.wedding_id)
        for wedding_id, version in waiting:
            # Who has the team as it is now needs to hear of no earlier one.
            if wedding_id in applied:
                await self._store.settle_team(wedding_id, version)
        return len(applied)
