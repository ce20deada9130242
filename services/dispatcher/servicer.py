"""The gRPC edge of the dispatcher, and who may call what of it."""

from typing import Final
from uuid import UUID

from typing_extensions import override
from wedsync.broadcast.v1 import dispatcher_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceServicer

from services.dispatcher.call_store import CallStore
from services.dispatcher.exporting import Exporting
from services.dispatcher.messages import dispatch_message, stop_message
from shared.cleaning import Cleaner
from shared.rights import Right, any_person, roles, scopes

_READERS: Final = roles("admin", "coordinator") | scopes("broadcast.read")
_OPERATORS: Final = roles("admin") | scopes("dispatch.operate")

RIGHTS: Final[dict[str, Right]] = {
    # Which broadcasts a coordinator may see, only the sender knows: they ask there.
    "GetDispatch": roles("admin") | scopes("broadcast.read", "internal"),
    "StopDispatch": scopes("internal"),
    "CleanUpDispatches": scopes("internal"),
    "ExportDeliveries": scopes("internal"),
    "ListDeliveries": _READERS,
    "ExplainDelivery": any_person() | scopes("broadcast.read"),
    "ReportDelivery": scopes("delivery.report"),
    "RetryDeliveries": _OPERATORS,
    "PauseDispatch": _OPERATORS,
    "ResumeDispatch": _OPERATORS,
    "ListDeadLetters": _OPERATORS,
    "ReplayDeadLetters": _OPERATORS,
    "ListAddressSuppressions": _OPERATORS,
    "LiftAddressSuppression": _OPERATORS,
}
"""Each method's row of product.md's table of rights."""


class DispatcherServicer(DispatcherServiceServicer):
    """Plans, ledgers and cancels; the methods that are missing answer UNIMPLEMENTED."""

    def __init__(self, store: CallStore, exporting: Exporting, cleaner: Cleaner) -> None:
        self._store = store
        self._exporting = exporting
        self._cleaner = cleaner

    @override
    async def GetDispatch(
        self, request: dispatcher_pb2.GetDispatchRequest, context: object
    ) -> dispatcher_pb2.GetDispatchResponse:
        dispatch = await self._store.get(UUID(request.broadcast_id))
        return dispatcher_pb2.GetDispatchResponse(dispatch=dispatch_message(dispatch))

    @override
    async def StopDispatch(
        self, request: dispatcher_pb2.StopDispatchRequest, context: object
    ) -> dispatcher_pb2.StopDispatchResponse:
        return stop_message(await self._store.stop(UUID(request.broadcast_id)))

    @override
    async def CleanUpDispatches(
        self, request: dispatcher_pb2.CleanUpDispatchesRequest, context: object
    ) -> dispatcher_pb2.CleanUpDispatchesResponse:
        cleaned = await self._cleaner.clean_up(dry_run=request.dry_run)
        return dispatcher_pb2.CleanUpDispatchesResponse(cleaned=[each.message() for each in cleaned])

    @override
    async def ExportDeliveries(
        self, request: dispatcher_pb2.ExportDeliveriesRequest, context: object
    ) -> dispatcher_pb2.ExportDeliveriesResponse:
        page = await self._exporting.export(request.recipient_number, request.page_token)
        return dispatcher_pb2.ExportDeliveriesResponse(
            records=page.records, next_page_token=page.next_page_token
        )
