"""Sends the broadcasts of a benchmark, and sees in the database when they are durable in every recipient's inbox."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Self
from uuid import UUID, uuid4

import asyncpg
import grpc
from wedsync.broadcast.v1.common_pb2 import Priority, Targeting
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest, SendBroadcastResponse
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.site import Metadata
from shared.queries import load

# Looking takes the cores from what is measured, and looking rarely is added to it. Nothing arrives before the first.
FIRST_LOOK_S = 0.008
# Whoever knows how soon an audience was reached at best looks first after this part of that.
SOONER = 0.8
POLL_S = 0.001
DEADLINE_S = 120.0
RETRIES = 10
RETRY_S = 1.0
CALL_S = 30.0
_OUT_OF_BREATH = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_QUERIES = load(Path(__file__).with_name("arrivals.sql"))


async def have_accepted(
    sender: SenderServiceStub, request: SendBroadcastRequest, metadata: Metadata
) -> SendBroadcastResponse:
    """As a client does that tries again as it was told to: a server that has just started may be out of breath."""
    for _ in range(RETRIES):
        try:
            return await sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _OUT_OF_BREATH:
                raise
            await asyncio.sleep(RETRY_S)
    return await sender.SendBroadcast(request, metadata=metadata, timeout=CALL_S)


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent. The types used here reach the inbox whatever a person has muted: audiences are of exact sizes."""

    type: str
    priority: Priority.ValueType


PAYMENT = Letter("payment.required", Priority.PRIORITY_HIGH)
# About a wedding: any other critical one would wait for approval.
EMERGENCY = Letter("wedding.emergency", Priority.PRIORITY_CRITICAL)
ERRAND = Letter("payment.required", Priority.PRIORITY_LOW)


class Broadcasts:
    """A sender with a view into the inboxes."""

    def __init__(self, connection: asyncpg.Connection, sender: SenderServiceStub, metadata: Metadata) -> None:
        """`connection` is used for one thing at a time."""
        self._connection = connection
        self._sender = sender
        self._metadata = metadata
        self._arrived: asyncpg.prepared_stmt.PreparedStatement

    @classmethod
    async def open(
        cls, connection: asyncpg.Connection, sender: SenderServiceStub, metadata: Metadata
    ) -> Self:
        """With its most frequent query prepared."""
        broadcasts = cls(connection, sender, metadata)
        broadcasts._arrived = await connection.prepare(_QUERIES["count_arrived"])
        return broadcasts

    async def send(self, letter: Letter, targeting: Targeting, size: int, wedding_id: str = "") -> UUID:
        """Have a broadcast accepted; RuntimeError when its audience is not of this size."""
        request = SendBroadcastRequest(
            request_id=str(uuid4()),
            type=letter.type,
            priority=letter.priority,
            title="Your subscription is due",
            message="Please update your payment details to keep your account active.",
            targeting=targeting,
            wedding_id=wedding_id,
        )
        answer = await have_accepted(self._sender, request, self._metadata)
        if answer.targeted_users != size:
            raise RuntimeError(f"{answer.targeted_users} people are targeted, not {size}")
        return UUID(answer.broadcast.broadcast_id)

    async def arrive(self, broadcast_id: UUID, size: int, at_best_s: float = 0.0) -> None:
        """Return once everybody has it, committed; `at_best_s` is the least that it took before."""
        deadline = perf_counter() + DEADLINE_S
        await asyncio.sleep(max(FIRST_LOOK_S, SOONER * at_best_s))
        while (arrived := await self._arrived.fetchval(broadcast_id)) < size:
            if perf_counter() > deadline:
                raise RuntimeError(f"{broadcast_id}: {arrived} of {size} after {DEADLINE_S:g} s")
            await asyncio.sleep(POLL_S)

    async def arrived(self, broadcast_ids: list[UUID]) -> dict[UUID, int]:
        """How many have each of these now."""
        rows = await self._connection.fetch(_QUERIES["count_arrived_each"], broadcast_ids)
        return {row["broadcast_id"]: row["recipients"] for row in rows}

    async def is_closed(self, broadcast_id: UUID) -> bool:
        """Whether nothing of it is on its way any more."""
        return bool(await self._connection.fetchval(_QUERIES["is_closed"], broadcast_id))

    async def settle(self) -> None:
        """Return once nothing at all is on its way."""
        deadline = perf_counter() + DEADLINE_S
        while await self._connection.fetchval(_QUERIES["count_outstanding"]):
            _require_time(deadline)
            await asyncio.sleep(0.01)

    async def users(self, first: int, last: int) -> list[UUID]:
        """The people with these numbers."""
        rows = await self._connection.fetch(_QUERIES["find_users"], first, last)
        return [row["user_id"] for row in rows]

    async def settle_disk(self) -> None:
        """Have the server write what was loaded."""
        await self._connection.execute(_QUERIES["settle_disk"], timeout=DEADLINE_S)


def _require_time(deadline: float) -> None:
    if perf_counter() > deadline:
        raise RuntimeError(f"a broadcast is still on its way after {DEADLINE_S:g} s")
