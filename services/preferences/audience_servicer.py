"""The gRPC edge of AudienceService, and who may call what of it."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from typing_extensions import override
from wedsync.broadcast.v1 import audience_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceServicer

from services.preferences.audience_messages import (
    access_message,
    changes_message,
    lookup_message,
    packs,
    to_members,
    to_question,
    to_targeting,
)
from services.preferences.audiences import Audiences
from services.preferences.messages import timestamp, to_time, to_uuids
from shared.rights import Right, scopes

_INTERNAL: Final = scopes("internal")

RIGHTS: Final[dict[str, Right]] = {
    "ResolveAudience": _INTERNAL,
    "ReevaluateAudience": _INTERNAL,
    "ListChanges": _INTERNAL,
    "CountAudience": _INTERNAL,
    "CheckWeddingAccess": _INTERNAL,
    "LookupRecipients": _INTERNAL,
}
"""Each method's row of product.md's table of rights."""


class AudienceServicer(AudienceServiceServicer):
    """Answers about audiences for the suite's own services."""

    def __init__(self, audiences: Audiences) -> None:
        self._audiences = audiences

    @override
    async def ResolveAudience(
        self, request: audience_pb2.ResolveAudienceRequest, context: object
    ) -> AsyncIterator[audience_pb2.ResolveAudienceResponse]:
        decision = await self._audiences.resolve(
            to_targeting(request.targeting), to_question(request.rules, request.channels)
        )
        count, decide_time = decision.count, timestamp(decision.time)
        for pack in packs(decision.slices, count.version, counts_only=request.counts_only):
            yield audience_pb2.ResolveAudienceResponse(
                slices=pack,
                targeted=count.targeted,
                unknown_user_ids=count.unknown_users,
                outside_user_ids=count.outside_users,
                directory_version=count.version,
                decide_time=decide_time,
            )

    @override
    async def ReevaluateAudience(
        self, request: audience_pb2.ReevaluateAudienceRequest, context: object
    ) -> AsyncIterator[audience_pb2.ReevaluateAudienceResponse]:
        decision = await self._audiences.reevaluate(
            to_members(request.members),
            to_question(request.rules, request.channels),
            request.since_version,
            to_time(request.since_time) if request.HasField("since_time") else None,
        )
        version, decide_time = decision.count.version, timestamp(decision.time)
        for pack in packs(decision.slices, version):
            yield audience_pb2.ReevaluateAudienceResponse(
                slices=pack,
                directory_version=version,
                decide_time=decide_time,
            )

    @override
    async def ListChanges(
        self, request: audience_pb2.ListChangesRequest, context: object
    ) -> audience_pb2.ListChangesResponse:
        return changes_message(*await self._audiences.changes(request.since_version))

    @override
    async def CountAudience(
        self, request: audience_pb2.CountAudienceRequest, context: object
    ) -> audience_pb2.CountAudienceResponse:
        count = await self._audiences.count(to_targeting(request.targeting))
        return audience_pb2.CountAudienceResponse(
            targeted=count.targeted,
            unknown_user_ids=count.unknown_users,
            outside_user_ids=count.outside_users,
            directory_version=count.version,
        )

    @override
    async def CheckWeddingAccess(
        self, request: audience_pb2.CheckWeddingAccessRequest, context: object
    ) -> audience_pb2.CheckWeddingAccessResponse:
        user_id = UUID(request.user_id) if request.user_id else None
        access = await self._audiences.access(
            user_id, to_uuids(request.wedding_ids), all_teams=request.all_teams
        )
        return access_message(access)

    @override
    async def LookupRecipients(
        self, request: audience_pb2.LookupRecipientsRequest, context: object
    ) -> audience_pb2.LookupRecipientsResponse:
        return lookup_message(
            await self._audiences.lookup(
                to_uuids(request.user_ids), to_uuids(request.wedding_ids), request.numbers
            )
        )
