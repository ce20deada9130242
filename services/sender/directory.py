"""Asks the directory who people are, which weddings they belong to, and whom a targeting means."""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1 import audience_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub

from services.sender.domain import Author, Targeting, Wedding
from services.sender.messages import date_of, targeting_message
from services.sender.rights import Caller, WeddingAccess
from shared.auth import Identity, current_identity, current_role

AUDIENCE_SERVICE: Final = "wedsync.broadcast.v1.AudienceService"


@dataclass(frozen=True, slots=True)
class Count:
    """How many people a targeting means.

    Of its user ids, how many nobody has, and how many are of people on none of the teams that bound it.
    """

    targeted: int
    unknown_user_ids: int
    outside_user_ids: int = 0

    def unknown_to(self, caller: Caller) -> int:
        """How many user ids are of nobody whom the caller knows: coordinators know those whom they send to."""
        hidden = self.outside_user_ids if caller.is_coordinator else 0
        return self.unknown_user_ids + hidden


@dataclass(frozen=True, slots=True)
class Forecast:
    """What each part of an audience would get now."""

    count: Count
    slices: tuple[audience_pb2.AudienceSlice, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """What the directory was asked for the call that runs now, and what it said."""

    weddings: tuple[str, ...]
    answer: audience_pb2.CheckWeddingAccessResponse | None = None


_told: ContextVar[_Told | None] = ContextVar("told_by_directory", default=None)


class Directory:
    """The directory as it is at each call: nothing is kept from one to the next."""

    def __init__(self, audience: AudienceServiceStub) -> None:
        self._audience = audience

    def expect(self, weddings: Iterable[str]) -> None:
        """Have the call that runs now asked about these with its caller's role, because they are asked about next."""
        _told.set(_Told(tuple(weddings)))

    async def role_of(self, user_id: UUID) -> str | None:
        """The role of the person who calls now, None for somebody unknown."""
        told = _told.get()
        answer = await self._check(str(user_id), told.weddings if told else ())
        if told is not None:
            _told.set(_Told(told.weddings, answer))
        return answer.role if answer.known else None

    async def caller(self, weddings: Sequence[str] = ()) -> Caller:
        """Who makes the call that runs now, with their access to these weddings."""
        identity = current_identity()
        author = author_of(identity)
        if not weddings:
            return Caller(author, current_role(), identity.scopes)
        told = _told.get()
        if told is not None and told.answer is not None and told.weddings == tuple(weddings):
            return _caller(author, identity.scopes, told.answer)
        return await self._ask(author, identity.scopes, weddings)

    async def caller_on_teams(self) -> Caller:
        """The same with every wedding on whose team they are."""
        identity = current_identity()
        return await self._ask(author_of(identity), identity.scopes, (), all_teams=True)

    async def caller_now(self, weddings: Sequence[str]) -> Caller:
        """The same for a stream, which may outlive the role that its caller had when it was opened."""
        identity = current_identity()
        author = author_of(identity)
        if author.is_service:
            return Caller(author, scopes=identity.scopes)
        return await self._ask(author, identity.scopes, weddings)

    async def author(self, author: Author, weddings: Sequence[str]) -> Caller:
        """Who the author of a broadcast is by now, with their access to its weddings."""
        if author.is_service and not weddings:
            return Caller(author)
        return await self._ask(author, frozenset(), weddings)

    async def count(self, targeting: Targeting, wall: Sequence[str]) -> Count:
        """How many people are meant.

        Raises NotFound for a wedding or segment that does not exist, IllegalState for a segment that is not active.
        """
        message = targeting_message(targeting, wall)
        answer = await self._audience.CountAudience(audience_pb2.CountAudienceRequest(targeting=message))
        return _count(answer)

    async def forecast(
        self, targeting: Targeting, wall: Sequence[str], rules: audience_pb2.DeliveryRules
    ) -> Forecast:
        """What everybody meant would get now, in numbers."""
        request = audience_pb2.ResolveAudienceRequest(
            targeting=targeting_message(targeting, wall), rules=rules, counts_only=True
        )
        count = Count(0, 0)
        slices: list[audience_pb2.AudienceSlice] = []
        async for answer in self._audience.ResolveAudience(request):
            count = _count(answer)
            slices.extend(answer.slices)
        return Forecast(count, tuple(slices))

    async def _ask(
        self, author: Author, scopes: frozenset[str], weddings: Sequence[str], *, all_teams: bool = False
    ) -> Caller:
        answer = await self._check("" if author.is_service else author.name, weddings, all_teams=all_teams)
        return _caller(author, scopes, answer)

    async def _check(
        self, user_id: str, weddings: Sequence[str], *, all_teams: bool = False
    ) -> audience_pb2.CheckWeddingAccessResponse:
        request = audience_pb2.CheckWeddingAccessRequest(
            user_id=user_id, wedding_ids=weddings, all_teams=all_teams
        )
        return await self._audience.CheckWeddingAccess(request)


def author_of(identity: Identity) -> Author:
    """The name under which a caller's broadcasts and requests are kept."""
    return Author(identity.name, is_service=identity.user_id is None)


def _caller(
    author: Author, scopes: frozenset[str], answer: audience_pb2.CheckWeddingAccessResponse
) -> Caller:
    role = answer.role if answer.known else None
    return Caller(author, role, scopes, tuple(map(_wedding_access, answer.weddings)))


def _count(answer: audience_pb2.CountAudienceResponse | audience_pb2.ResolveAudienceResponse) -> Count:
    return Count(answer.targeted, answer.unknown_user_ids, answer.outside_user_ids)


def _wedding_access(message: audience_pb2.WeddingAccess) -> WeddingAccess:
    wedding = Wedding(message.wedding_id, message.couple_name, date_of(message.wedding_date))
    return WeddingAccess(wedding, message.exists, message.on_team, message.team_size)
