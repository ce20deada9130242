"""The sender's neighbours for its tests: small, truthful to the contract, and told by a test what they know."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc
from google.type.date_pb2 import Date
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from wedsync.broadcast.v1 import audience_pb2, common_pb2, directory_pb2, dispatcher_pb2, inbox_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import (
    AudienceServiceServicer,
    add_AudienceServiceServicer_to_server,
)
from wedsync.broadcast.v1.directory_pb2_grpc import (
    DirectoryServiceServicer,
    add_DirectoryServiceServicer_to_server,
)
from wedsync.broadcast.v1.dispatcher_pb2_grpc import (
    DispatcherServiceServicer,
    add_DispatcherServiceServicer_to_server,
)
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer, add_InboxServiceServicer_to_server

from shared.errors import DependencyUnavailable, FieldViolation, IllegalState, NotFound, ServiceError

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
UNKNOWN_SEGMENT = FieldViolation("targeting.segment_ids", "names one that does not exist")
RESTING_SEGMENT = FieldViolation("targeting.segment_ids", "names one that is not active")
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(slots=True)
class TestWedding:
    """A wedding of the tests' directory."""

    __test__ = False

    team: set[str] = field(default_factory=set)
    couple_name: str = "Amara & Jonas"
    date: tuple[int, int, int] = (2027, 6, 5)


class Preferences(AudienceServiceServicer):
    """A directory of a few people, weddings and segments, which counts its calls. A segment of nobody is not active."""

    def __init__(self) -> None:
        self.is_down = False
        self.people: dict[str, str] = {}
        self.weddings: dict[str, TestWedding] = {}
        self.segments: dict[str, set[str]] = {}
        self.slices: list[audience_pb2.AudienceSlice] = []
        self.resolved: list[audience_pb2.ResolveAudienceRequest] = []
        self.calls: list[str] = []

    async def CheckWeddingAccess(
        self, request: audience_pb2.CheckWeddingAccessRequest, context: grpc.aio.ServicerContext
    ) -> audience_pb2.CheckWeddingAccessResponse:
        await self._enter("CheckWeddingAccess", context)
        user_id = request.user_id
        own = [each for each, wedding in self.weddings.items() if user_id in wedding.team]
        asked = dict.fromkeys([*request.wedding_ids, *(own if request.all_teams else ())])
        return audience_pb2.CheckWeddingAccessResponse(
            known=user_id in self.people,
            role=self.people.get(user_id, ""),
            weddings=[self._access(user_id, each) for each in asked],
        )

    async def CountAudience(
        self, request: audience_pb2.CountAudienceRequest, context: grpc.aio.ServicerContext
    ) -> audience_pb2.CountAudienceResponse:
        await self._enter("CountAudience", context)
        targeting = request.targeting
        await self._require_weddings(targeting, context)
        if any(each not in self.segments for each in targeting.segment_ids):
            await refuse(context, NotFound(violations=[UNKNOWN_SEGMENT]))
        if not all(self.segments[each] for each in targeting.segment_ids):
            await refuse(context, IllegalState(violations=[RESTING_SEGMENT]))
        meant = self._meant(targeting)
        known, unknown = self._known(targeting)
        return audience_pb2.CountAudienceResponse(
            targeted=len(meant), unknown_user_ids=unknown, outside_user_ids=len(known - meant)
        )

    async def ResolveAudience(
        self, request: audience_pb2.ResolveAudienceRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[audience_pb2.ResolveAudienceResponse]:
        await self._enter("ResolveAudience", context)
        self.resolved.append(request)
        await self._require_weddings(request.targeting, context)
        meant = self._meant(request.targeting)
        targeted = len(meant)
        known, unknown = self._known(request.targeting)
        yield audience_pb2.ResolveAudienceResponse(
            targeted=targeted, unknown_user_ids=unknown, outside_user_ids=len(known - meant)
        )
        for each in self.slices:
            yield audience_pb2.ResolveAudienceResponse(slices=[each], targeted=targeted)

    async def _require_weddings(
        self, targeting: common_pb2.Targeting, context: grpc.aio.ServicerContext
    ) -> None:
        if any(each not in self.weddings for each in targeting.wedding_ids):
            await refuse(context, NotFound())

    def _access(self, user_id: str, wedding_id: str) -> audience_pb2.WeddingAccess:
        wedding = self.weddings.get(wedding_id)
        if wedding is None:
            return audience_pb2.WeddingAccess(wedding_id=wedding_id)
        year, month, day = wedding.date
        return audience_pb2.WeddingAccess(
            wedding_id=wedding_id,
            exists=True,
            on_team=user_id in wedding.team,
            couple_name=wedding.couple_name,
            wedding_date=Date(year=year, month=month, day=day),
            team_size=len(self._meant(common_pb2.Targeting(wedding_ids=[wedding_id]))),
        )

    def _meant(self, targeting: common_pb2.Targeting) -> set[str]:
        named = {each for each in targeting.user_ids if each in self.people}
        named |= {user_id for user_id, role in self.people.items() if role in targeting.roles}
        named |= set().union(*(self.segments[each] for each in targeting.segment_ids))
        lists = (targeting.user_ids, targeting.roles, targeting.tiers, targeting.segment_ids)
        if targeting.everyone or not any(lists):
            named = set(self.people)
        teams = [self.weddings[each].team for each in targeting.wedding_ids]
        return named & set().union(*teams) if teams else named

    def _known(self, targeting: common_pb2.Targeting) -> tuple[set[str], int]:
        """Those of the users named whom it knows, and how many it does not."""
        known = {each for each in targeting.user_ids if each in self.people}
        return known, len(set(targeting.user_ids)) - len(known)

    async def _enter(self, method: str, context: grpc.aio.ServicerContext) -> None:
        self.calls.append(method)
        if self.is_down:
            await refuse(context, DependencyUnavailable())


class Directory(DirectoryServiceServicer):
    """Cleans up when it is told to, and notes whether it was only to count."""

    def __init__(self) -> None:
        self.is_down = False
        self.cleaned: list[bool] = []

    async def CleanUpDirectory(
        self, request: directory_pb2.CleanUpDirectoryRequest, context: grpc.aio.ServicerContext
    ) -> directory_pb2.CleanUpDirectoryResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        self.cleaned.append(request.dry_run)
        return directory_pb2.CleanUpDirectoryResponse(cleaned=[{"what": "log", "count": 7}])


class Dispatcher(DispatcherServiceServicer):
    """Keeps the ledgers that a test gives it, and tombstones."""

    def __init__(self) -> None:
        self.is_down = False
        self.dispatches: dict[str, dispatcher_pb2.Dispatch] = {}
        self.stopped: list[str] = []
        self.cleaned: list[bool] = []

    async def GetDispatch(
        self, request: dispatcher_pb2.GetDispatchRequest, context: grpc.aio.ServicerContext
    ) -> dispatcher_pb2.GetDispatchResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        if request.broadcast_id not in self.dispatches:
            await refuse(context, NotFound())
        return dispatcher_pb2.GetDispatchResponse(dispatch=self.dispatches[request.broadcast_id])

    async def StopDispatch(
        self, request: dispatcher_pb2.StopDispatchRequest, context: grpc.aio.ServicerContext
    ) -> dispatcher_pb2.StopDispatchResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        self.stopped.append(request.broadcast_id)
        dispatch = self.dispatches.get(request.broadcast_id)
        return dispatcher_pb2.StopDispatchResponse(
            planned=dispatch is not None, targeted=dispatch.targeted if dispatch else 0
        )

    async def CleanUpDispatches(
        self, request: dispatcher_pb2.CleanUpDispatchesRequest, context: grpc.aio.ServicerContext
    ) -> dispatcher_pb2.CleanUpDispatchesResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        self.cleaned.append(request.dry_run)
        return dispatcher_pb2.CleanUpDispatchesResponse(cleaned=[{"what": "dispatches", "count": 3}])


@dataclass(frozen=True, slots=True)
class Past:
    """What people had done with a broadcast from a moment on."""

    at: datetime
    engagement: common_pb2.Engagement
    time_to_read: timedelta = timedelta()


class Inbox(InboxServiceServicer):
    """Keeps the counts that a test gives it, and what was retracted."""

    def __init__(self) -> None:
        self.is_down = False
        self.engagements: dict[str, common_pb2.Engagement] = {}
        self.past: dict[str, list[Past]] = {}
        self.asked_until: list[tuple[str, datetime]] = []
        self.retracted: list[tuple[str, bool]] = []
        # What it shows, and of that what it would not any more after it was cleaned up.
        self.shown: set[str] = set()
        self.leaving: set[str] = set()
        self.asked: list[str] = []
        self.cleaned: list[bool] = []
        self.refreshed: list[str] = []
        self.release = asyncio.Event()
        self.release.set()

    async def GetEngagement(
        self, request: inbox_pb2.GetEngagementRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.GetEngagementResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        nobody = common_pb2.Engagement()
        if request.HasField("until"):
            return self._as_of(request.broadcast_ids, request.until.ToDatetime(UTC))
        return inbox_pb2.GetEngagementResponse(
            engagements=[self.engagements.get(each, nobody) for each in request.broadcast_ids]
        )

    def _as_of(self, ids: Iterable[str], until: datetime) -> inbox_pb2.GetEngagementResponse:
        """What stood just before a moment; what has no past was always as it is now."""
        answer = inbox_pb2.GetEngagementResponse()
        for each in ids:
            self.asked_until.append((each, until))
            now = Past(datetime.min.replace(tzinfo=UTC), self.engagements.get(each, common_pb2.Engagement()))
            nothing = Past(now.at, common_pb2.Engagement())
            stood = (
                [past for past in [nothing, *self.past[each]] if past.at < until]
                if each in self.past
                else [now]
            )
            answer.engagements.append(stood[-1].engagement)
            answer.times_to_read.add().FromTimedelta(stood[-1].time_to_read)
        return answer

    async def RetractBroadcast(
        self, request: inbox_pb2.RetractBroadcastRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.RetractBroadcastResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        await self.release.wait()
        self.retracted.append((request.broadcast_id, request.hide))
        engagement = self.engagements.get(request.broadcast_id, common_pb2.Engagement())
        return inbox_pb2.RetractBroadcastResponse(arrived=engagement.delivered)

    async def RefreshContents(
        self, request: inbox_pb2.RefreshContentsRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.RefreshContentsResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        self.refreshed += request.broadcast_ids
        return inbox_pb2.RefreshContentsResponse()

    async def ListShownBroadcasts(
        self, request: inbox_pb2.ListShownBroadcastsRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.ListShownBroadcastsResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        self.asked += request.broadcast_ids
        shown = self.shown - self.leaving if request.after_clean_up else self.shown
        return inbox_pb2.ListShownBroadcastsResponse(broadcast_ids=shown & set(request.broadcast_ids))

    async def CleanUpInboxes(
        self, request: inbox_pb2.CleanUpInboxesRequest, context: grpc.aio.ServicerContext
    ) -> inbox_pb2.CleanUpInboxesResponse:
        if self.is_down:
            await refuse(context, DependencyUnavailable())
        self.cleaned.append(request.dry_run)
        if not request.dry_run:
            self.shown -= self.leaving
        return inbox_pb2.CleanUpInboxesResponse(cleaned=[{"what": "items", "count": 5}])


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The three services on one port."""

    preferences: Preferences
    directory: Directory
    dispatcher: Dispatcher
    inbox: Inbox
    address: str


@asynccontextmanager
async def neighbours() -> AsyncIterator[Neighbours]:
    """Runs the three for the time of the block."""
    preferences, directory, dispatcher, inbox = Preferences(), Directory(), Dispatcher(), Inbox()
    server = grpc.aio.server()
    add_AudienceServiceServicer_to_server(preferences, server)
    add_DirectoryServiceServicer_to_server(directory, server)
    add_DispatcherServiceServicer_to_server(dispatcher, server)
    add_InboxServiceServicer_to_server(inbox, server)
    health = health_aio.HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Neighbours(preferences, directory, dispatcher, inbox, f"127.0.0.1:{port}")
    await server.stop(None)


async def refuse(context: grpc.aio.ServicerContext, error: ServiceError) -> None:
    """Ends a call as the edge of a real service would."""
    status = error.to_rich_status()
    await context.abort(
        _CODES[error.status], status.message, ((_STATUS_DETAILS_KEY, status.SerializeToString()),)
    )
