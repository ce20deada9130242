"""What tests of limits share: sends that come until there is room, and sends that were made long ago."""

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import timedelta

import grpc
from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.sender.domain import Priority
from tests.integration.sender.site import Metadata, Site, a_send
from tests.integration.shared.edge import Refusal, read_refusal

Answers = list[sender_pb2.SendBroadcastResponse]
NIL = "00000000-0000-0000-0000-000000000000"


async def send_all(
    sends: Iterable[Awaitable[sender_pb2.SendBroadcastResponse]],
) -> tuple[Answers, list[Refusal]]:
    """All of these at once: the answers, and the refusals."""
    results = await asyncio.gather(*sends, return_exceptions=True)
    answers = [each for each in results if isinstance(each, sender_pb2.SendBroadcastResponse)]
    refusals = [read_refusal(each) for each in results if isinstance(each, grpc.aio.AioRpcError)]
    assert len(answers) + len(refusals) == len(results), results
    return answers, refusals


async def persist(
    stub: SenderServiceStub, caller: Metadata, request: sender_pb2.SendBroadcastRequest
) -> sender_pb2.SendBroadcastResponse:
    """One send by a client that comes again when the server is out of breath; a limit is the last word."""
    while True:
        try:
            return await stub.SendBroadcast(request, metadata=caller)
        except grpc.aio.AioRpcError as error:
            if read_refusal(error).reason not in ("TOO_MANY_CALLS", "DEPENDENCY_UNAVAILABLE"):
                raise
        await asyncio.sleep(0.05)


async def use_up(site: Site, caller: Metadata, **fields: object) -> Answers:
    """Send until the first refusal, which must be for the limit; what was accepted."""
    accepted: Answers = []
    while True:
        try:
            accepted.append(await site.send(caller, a_send(**fields)))
        except grpc.aio.AioRpcError as error:
            if read_refusal(error).reason != "RATE_LIMITED":
                raise
            return accepted


async def sent_before(
    site: Site,
    caller: str,
    *ages: timedelta,
    priority: Priority = Priority.NORMAL,
    broadcast_type: str = "feature.released",
) -> None:
    """As if these had been sent so long ago, the oldest first."""
    await site.admin.execute(
        """
        INSERT INTO sender.counted_sends (caller, type, priority, wedding_id, at, ordinal)
        SELECT $1, $2, $3, $4, now() - age, ordinal
        FROM unnest($5::interval[]) WITH ORDINALITY AS sent (age, ordinal)
        """,
        caller,
        broadcast_type,
        priority,
        NIL,
        sorted(ages, reverse=True),
    )


async def counted(site: Site, caller: str) -> int:
    """How many sends of somebody's have been counted."""
    query = "SELECT count(*) FROM sender.counted_sends WHERE caller = $1"
    return int(await site.admin.fetchval(query, caller))


async def quota(site: Site, caller: Metadata, **fields: object) -> sender_pb2.Quota:
    """What GetQuota says."""
    request = sender_pb2.GetQuotaRequest(**({"type": "feature.released"} | fields))  # type: ignore[arg-type]
    return (await site.stub.GetQuota(request, metadata=caller)).quota
