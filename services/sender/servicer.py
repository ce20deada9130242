"""The gRPC edge of the sender, and who may call what of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from typing_extensions import override
from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceServicer

from services.sender.access import Access
from services.sender.approval import APPROVE, REJECT, Approval
from services.sender.auditing import Auditing
from services.sender.cancelling import CANCEL, Cancelling
from services.sender.erasing import Erasing
from services.sender.exporting import Exporting
from services.sender.listing import Listing
from services.sender.orders import Orders
from services.sender.progress import Progress
from services.sender.quotas import Quotas
from services.sender.reporting import Reporting
from services.sender.retention import CLEAN_UP, CleaningUp
from services.sender.rights import ADMIN, AUDIT_SCOPE, COORDINATOR, READ_SCOPE, SEND_SCOPE
from services.sender.sending import SEND, Sending
from shared.methods import Replay
from shared.rights import Right, limited_scope, roles, scopes
from shared.validation import Rules

_SENDERS: Final = roles(ADMIN, COORDINATOR) | limited_scope(SEND_SCOPE)
_READERS: Final = roles(ADMIN, COORDINATOR) | scopes(READ_SCOPE)

RIGHTS: Final[dict[str, Right]] = {
    "SendBroadcast": _SENDERS,
    "PreviewAudience": _SENDERS,
    "CancelBroadcast": _SENDERS,
    "GetQuota": _SENDERS,
    # A service account that sends sees what it sent.
    "GetBroadcast": _READERS | limited_scope(SEND_SCOPE),
    "ListBroadcasts": _READERS | limited_scope(SEND_SCOPE),
    "WatchBroadcast": _READERS | limited_scope(SEND_SCOPE),
    "GetAnalytics": _READERS,
    "ApproveBroadcast": roles(ADMIN),
    "RejectBroadcast": roles(ADMIN),
    "ListAuditEvents": roles(ADMIN) | scopes(AUDIT_SCOPE),
    "VerifyAuditLog": roles(ADMIN) | scopes(AUDIT_SCOPE),
    "CleanUp": roles(ADMIN) | scopes("dispatch.operate"),
    "GetDispatchOrder": scopes("internal"),
    "CheckBroadcastAccess": scopes("internal"),
    "RecordAuditEvents": scopes("internal"),
    "CountSegmentUses": scopes("internal"),
    "ErasePerson": scopes("internal"),
    "ExportPerson": scopes("internal"),
}
"""Each method's row of product.md's table of rights."""


@dataclass(frozen=True, slots=True)
class UseCases:
    """The parts of the sender that its methods are made of."""

    sending: Sending
    quotas: Quotas
    approval: Approval
    cancelling: Cancelling
    progress: Progress
    orders: Orders
    access: Access
    listing: Listing
    reporting: Reporting
    cleaning_up: CleaningUp
    auditing: Auditing
    erasing: Erasing
    exporting: Exporting

    def replays(self) -> dict[str, Replay]:
        """What answers a repeated request before it is judged anew, and refuses a send that is too much."""
        return {
            SEND: self.sending.precede,
            APPROVE: self.approval.replay_approval,
            REJECT: self.approval.replay_rejection,
            CANCEL: self.cancelling.replay,
            CLEAN_UP: self.cleaning_up.replay,
        }

    def rules(self) -> dict[str, Rules]:
        """The rules that the contract's annotations cannot state; they are told together with those that they do."""
        return {
            SEND: self.sending.send_violations,
            "PreviewAudience": self.sending.preview_violations,
            "GetQuota": self.quotas.violations,
            "GetAnalytics": self.reporting.violations,
        }


class SenderServicer(SenderServiceServicer):
    """Each method is the part of the sender that does it; those that are missing answer UNIMPLEMENTED."""

    def __init__(self, use_cases: UseCases) -> None:
        self._does = use_cases

    @override
    async def SendBroadcast(
        self, request: sender_pb2.SendBroadcastRequest, context: object
    ) -> sender_pb2.SendBroadcastResponse:
        return await self._does.sending.send(request)

    @override
    async def PreviewAudience(
        self, request: sender_pb2.PreviewAudienceRequest, context: object
    ) -> sender_pb2.PreviewAudienceResponse:
        return await self._does.sending.preview(request)

    @override
    async def GetQuota(
        self, request: sender_pb2.GetQuotaRequest, context: object
    ) -> sender_pb2.GetQuotaResponse:
        return await self._does.quotas.get(request)

    @override
    async def ApproveBroadcast(
        self, request: sender_pb2.ApproveBroadcastRequest, context: object
    ) -> sender_pb2.ApproveBroadcastResponse:
        return await self._does.approval.approve(request)

    @override
    async def RejectBroadcast(
        self, request: sender_pb2.RejectBroadcastRequest, context: object
    ) -> sender_pb2.RejectBroadcastResponse:
        return await self._does.approval.reject(request)

    @override
    async def CancelBroadcast(
        self, request: sender_pb2.CancelBroadcastRequest, context: object
    ) -> sender_pb2.CancelBroadcastResponse:
        return await self._does.cancelling.cancel(request)

    @override
    async def GetBroadcast(
        self, request: sender_pb2.GetBroadcastRequest, context: object
    ) -> sender_pb2.GetBroadcastResponse:
        return await self._does.progress.get(request.broadcast_id.lower())

    @override
    async def ListBroadcasts(
        self, request: sender_pb2.ListBroadcastsRequest, context: object
    ) -> sender_pb2.ListBroadcastsResponse:
        return await self._does.listing.list(request)

    @override
    async def GetAnalytics(
        self, request: sender_pb2.GetAnalyticsRequest, context: object
    ) -> sender_pb2.GetAnalyticsResponse:
        return await self._does.reporting.get(request)

    @override
    async def WatchBroadcast(
        self, request: sender_pb2.WatchBroadcastRequest, context: object
    ) -> AsyncIterator[sender_pb2.WatchBroadcastResponse]:
        async for progress in self._does.progress.watch(request.broadcast_id.lower()):
            yield progress

    @override
    async def CleanUp(
        self, request: sender_pb2.CleanUpRequest, context: object
    ) -> sender_pb2.CleanUpResponse:
        return await self._does.cleaning_up.clean_up(request)

    @override
    async def GetDispatchOrder(
        self, request: sender_pb2.GetDispatchOrderRequest, context: object
    ) -> sender_pb2.GetDispatchOrderResponse:
        is_plan = request.purpose == sender_pb2.DISPATCH_PURPOSE_PLAN
        fetch = self._does.orders.plan if is_plan else self._does.orders.content
        return sender_pb2.GetDispatchOrderResponse(order=await fetch(request.broadcast_id.lower()))

    @override
    async def CheckBroadcastAccess(
        self, request: sender_pb2.CheckBroadcastAccessRequest, context: object
    ) -> sender_pb2.CheckBroadcastAccessResponse:
        return await self._does.access.check(request)

    @override
    async def ListAuditEvents(
        self, request: sender_pb2.ListAuditEventsRequest, context: object
    ) -> sender_pb2.ListAuditEventsResponse:
        return await self._does.auditing.list(request)

    @override
    async def VerifyAuditLog(
        self, request: sender_pb2.VerifyAuditLogRequest, context: object
    ) -> sender_pb2.VerifyAuditLogResponse:
        return await self._does.auditing.verify(request)

    @override
    async def RecordAuditEvents(
        self, request: sender_pb2.RecordAuditEventsRequest, context: object
    ) -> sender_pb2.RecordAuditEventsResponse:
        return await self._does.auditing.record(request)

    @override
    async def CountSegmentUses(
        self, request: sender_pb2.CountSegmentUsesRequest, context: object
    ) -> sender_pb2.CountSegmentUsesResponse:
        uses = await self._does.orders.segment_uses(request.segment_id)
        return sender_pb2.CountSegmentUsesResponse(broadcasts=uses)

    @override
    async def ErasePerson(
        self, request: sender_pb2.ErasePersonRequest, context: object
    ) -> sender_pb2.ErasePersonResponse:
        await self._does.erasing.erase(UUID(request.user_id))
        return sender_pb2.ErasePersonResponse()

    @override
    async def ExportPerson(
        self, request: sender_pb2.ExportPersonRequest, context: object
    ) -> sender_pb2.ExportPersonResponse:
        page = await self._does.exporting.export(UUID(request.user_id), request.page_token)
        return sender_pb2.ExportPersonResponse(records=page.records, next_page_token=page.next_page_token)
