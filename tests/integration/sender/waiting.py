"""Broadcasts that wait for approval, and what is decided about them, as the tests say it."""

import grpc
from wedsync.broadcast.v1 import common_pb2, sender_pb2

from tests.integration.sender.site import Metadata, Site, a_send

WAITS, PENDING = common_pb2.BROADCAST_STATE_AWAITING_APPROVAL, common_pb2.BROADCAST_STATE_PENDING
REJECTED, CANCELLED = common_pb2.BROADCAST_STATE_REJECTED, common_pb2.BROADCAST_STATE_CANCELLED
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")


def alarm(**fields: object) -> sender_pb2.SendBroadcastRequest:
    """A critical one that is about no wedding."""
    return a_send(**({"type": "security.alert", "priority": common_pb2.PRIORITY_CRITICAL} | fields))


async def waiting(site: Site, caller: Metadata, **fields: object) -> str:
    """The id of a broadcast that waits."""
    answer = await site.send(caller, alarm(**fields))
    assert answer.broadcast.state == WAITS
    return answer.broadcast.broadcast_id


async def approve(
    site: Site, caller: Metadata, broadcast_id: str, **fields: object
) -> sender_pb2.ApproveBroadcastResponse:
    """An approval."""
    request = sender_pb2.ApproveBroadcastRequest(broadcast_id=broadcast_id, **fields)  # type: ignore[arg-type]
    return await site.stub.ApproveBroadcast(request, metadata=caller)


async def reject(
    site: Site, caller: Metadata, broadcast_id: str, **fields: object
) -> sender_pb2.RejectBroadcastResponse:
    """A rejection."""
    request = sender_pb2.RejectBroadcastRequest(broadcast_id=broadcast_id, **fields)  # type: ignore[arg-type]
    return await site.stub.RejectBroadcast(request, metadata=caller)


async def cancel(site: Site, caller: Metadata, broadcast_id: str) -> sender_pb2.CancelBroadcastResponse:
    """A cancel."""
    request = sender_pb2.CancelBroadcastRequest(broadcast_id=broadcast_id)
    return await site.stub.CancelBroadcast(request, metadata=caller)


async def shown(site: Site, caller: Metadata, broadcast_id: str) -> sender_pb2.Broadcast:
    """What GetBroadcast says."""
    request = sender_pb2.GetBroadcastRequest(broadcast_id=broadcast_id)
    return (await site.stub.GetBroadcast(request, metadata=caller)).broadcast


async def timers(site: Site, broadcast_id: str) -> int:
    """How many outbox rows a broadcast has that have not ended."""
    query = "SELECT count(*) FROM sender.outbox WHERE key = $1 AND state IN ('pending', 'published')"
    return int(await site.admin.fetchval(query, broadcast_id))
