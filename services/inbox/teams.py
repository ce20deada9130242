"""Owns the inbox's own wall: applies teams that it is told of, and asks for those that it was not."""

from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1.audience_pb2 import LookupRecipientsRequest
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub

from services.inbox.domain import Team
from services.inbox.live import Tail
from services.inbox.waking import Waking
from services.inbox.work_store import WorkStore
from shared.audience import Audience

_KEPT: Final = 100_000


class Teams:
    """Who is on which wedding's team, as far as inboxes are concerned."""

    def __init__(self, store: WorkStore, audience: AudienceServiceStub, waking: Waking, tail: Tail) -> None:
        self._store = store
        self._audience = audience
        self._waking = waking
        self._tail = tail
        self._known: set[UUID] = set()

    async def apply(self, team: Team) -> int:
        """From now on this is the wedding's team, unless a newer one is known; the version that holds."""
        version = await self._store.apply_team(team)
        await self._waking.announce()
        return version

    async def change(self, team: Team) -> int:
        """The same; when it returns, no stream of this node is sent anything any more that came before."""
        version = await self.apply(team)
        await self._tail.reach_end()
        return version

    async def refresh(self, wedding_id: UUID, version: int) -> None:
        """The directory has this version now; fetch it unless it is applied."""
        if await self._store.find_team_version(wedding_id) < version:
            await self._fetch([wedding_id])

    async def require(self, wall: Collection[UUID]) -> None:
        """Make sure that these weddings' teams are known, which a lost word of the directory's could prevent."""
        unseen = [wedding_id for wedding_id in wall if wedding_id not in self._known]
        if not unseen:
            return
        unknown = await self._store.find_unknown_teams(unseen)
        if unknown:
            await self._fetch(unknown)
        if len(self._known) > _KEPT:
            self._known.clear()
        self._known.update(unseen)

    async def _fetch(self, wedding_ids: Iterable[UUID]) -> None:
        request = LookupRecipientsRequest(wedding_ids=map(str, wedding_ids))
        response = await self._audience.LookupRecipients(request)
        for each in response.teams:
            await self.apply(
                Team(UUID(each.wedding_id), each.team_version, Audience.from_bytes(each.members))
            )
