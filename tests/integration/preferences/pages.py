"""What other services export in tests of preferences: three pages each, of which the second has nothing on it."""

from typing import Final

import grpc
from wedsync.broadcast.v1 import dispatcher_pb2
from wedsync.broadcast.v1.common_pb2 import ExportedRecord
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceServicer

_FOLLOWING: Final = {"": "2:nothing", "2:nothing": "3:last", "3:last": ""}


def a_page(service: str, token: str) -> tuple[list[ExportedRecord], str]:
    """The records of a page, and the token of the next. KeyError for a token that no page gave."""
    following = _FOLLOWING[token]
    is_empty = token == "2:nothing"
    records = [ExportedRecord(service=service, kind="note", json=f'{{"page": "{token}"}}')]
    return [] if is_empty else records, following


class ToldDispatcher(DispatcherServiceServicer):
    """Truthful to the contract."""

    async def ExportDeliveries(
        self, request: dispatcher_pb2.ExportDeliveriesRequest, context: grpc.aio.ServicerContext
    ) -> dispatcher_pb2.ExportDeliveriesResponse:
        records, token = a_page("dispatcher", request.page_token)
        return dispatcher_pb2.ExportDeliveriesResponse(records=records, next_page_token=token)
