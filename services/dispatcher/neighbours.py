"""Asks the other services: what is to be dispatched, who is meant and what each of them gets, and who has read it."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from google.rpc import code_pb2
from wedsync.broadcast.v1 import audience_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.dispatcher.domain import Channel, Decided
from services.dispatcher.messages import (
    CHANNELS,
    changes_of,
    order_of,
    rules_message,
    slice_of,
    time_message,
    time_of,
)
from services.dispatcher.snapshot import BrokenSnapshot, Slice, Snapshot
from services.dispatcher.work import Changes, Order, Rules
from shared.audience import Audience
from shared.channels import ServiceChannel
from shared.errors import IllegalState, NotFound, ServiceError

RESOLVE_TIMEOUT_S: Final = 10.0
# With half of the time for which a decision is fresh, nothing leaves more than a second after it was asked for.
REEVALUATE_TIMEOUT_S: Final = 0.75
SLICES_BETWEEN_TURNS: Final = 32

ORDER_METHOD: Final = "wedsync.broadcast.v1.SenderService/GetDispatchOrder"
AUDIENCE_SERVICE: Final = "wedsync.broadcast.v1.AudienceService"
READERS_METHOD: Final = "wedsync.broadcast.v1.InboxService/ListReaders"


class OrderRefused(Exception):
    """The sender will not have this broadcast dispatched now: cancelled, expired, not due, or a right was lost."""


class UnknownOrder(Exception):
    """The sender knows no such broadcast."""


class UnresolvableAudience(Exception):
    """What the targeting names does not exist any more, or is not to be used: the reason's name, and what is told."""


class Orders:
    """The sender, as the one who orders."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._stub = SenderServiceStub(channel)

    async def read(self, broadcast_id: UUID) -> Order:
        """The order, whether or not it may be carried out. Raises UnknownOrder."""
        return await self._ask(broadcast_id, sender_pb2.DISPATCH_PURPOSE_CONTENT)

    async def begin(self, broadcast_id: UUID) -> Order:
        """The order, once the sender holds it for being dispatched. Raises OrderRefused, UnknownOrder."""
        try:
            return await self._ask(broadcast_id, sender_pb2.DISPATCH_PURPOSE_PLAN)
        except ServiceError as error:
            if error.status == code_pb2.FAILED_PRECONDITION:
                raise OrderRefused(error.reason_name) from error
            raise

    async def _ask(self, broadcast_id: UUID, purpose: sender_pb2.DispatchPurpose.ValueType) -> Order:
        request = sender_pb2.GetDispatchOrderRequest(broadcast_id=str(broadcast_id), purpose=purpose)
        try:
            return order_of((await self._stub.GetDispatchOrder(request)).order)
        except NotFound as error:
            raise UnknownOrder from error


class Audiences:
    """The directory and everybody's preferences, as the one who decides."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._stub = AudienceServiceStub(channel)

    async def resolve(self, order: Order) -> Snapshot:
        """Who is meant and what each of them gets now. Raises UnresolvableAudience, BrokenSnapshot."""
        request = audience_pb2.ResolveAudienceRequest(
            targeting=order.targeting, rules=rules_message(order.rules), channels=CHANNELS.values()
        )
        slices: list[Slice] = []
        last: audience_pb2.ResolveAudienceResponse | None = None
        try:
            async for response in self._stub.ResolveAudience(request, timeout=RESOLVE_TIMEOUT_S):
                last = response
                await _take(slices, response)
        except (NotFound, IllegalState) as error:
            raise UnresolvableAudience(f"{error.reason_name}: {error.message}") from error
        if last is None:
            raise BrokenSnapshot("an answer about an audience was empty")
        return Snapshot(tuple(slices), last.targeted, _decided(last))

    async def decide_again(
        self, rules: Rules, members: Audience, since: Decided, channels: Sequence[Channel]
    ) -> tuple[list[Slice], Decided]:
        """What those of `members` get who have changed since; everyone when `since` is version 0."""
        request = audience_pb2.ReevaluateAudienceRequest(
            members=members.to_bytes(),
            since_version=since.directory_version,
            since_time=time_message(since.time),
            rules=rules_message(rules),
            channels=[CHANNELS[channel] for channel in channels],
        )
        slices: list[Slice] = []
        last: audience_pb2.ReevaluateAudienceResponse | None = None
        async for response in self._stub.ReevaluateAudience(request, timeout=REEVALUATE_TIMEOUT_S):
            last = response
            await _take(slices, response)
        if last is None:
            raise BrokenSnapshot("an answer about members was empty")
        return slices, _decided(last)

    async def head(self) -> int:
        """The version of the directory at this call."""
        return (await self._stub.LookupRecipients(audience_pb2.LookupRecipientsRequest())).directory_version

    async def changes_since(self, version: int) -> Changes:
        """Whom the directory's log is about since a version."""
        response = await self._stub.ListChanges(audience_pb2.ListChangesRequest(since_version=version))
        return changes_of(response)

    async def role_of(self, user_id: UUID) -> str | None:
        """The role that the directory gives a person now; None for somebody it does not know."""
        request = audience_pb2.LookupRecipientsRequest(user_ids=[str(user_id)])
        response = await self._stub.LookupRecipients(request)
        return response.recipients[0].role if response.recipients else None


class Readers:
    """The inbox, as the one who knows what was read."""

    def __init__(self, channel: ServiceChannel) -> None:
        self._stub = InboxServiceStub(channel)

    async def among(self, broadcast_id: UUID, members: Audience) -> Audience:
        """Those of a chunk's members who have read the broadcast."""
        request = inbox_pb2.ListReadersRequest(broadcast_id=str(broadcast_id), members=members.to_bytes())
        response = await self._stub.ListReaders(request)
        return Audience.from_bytes(response.readers) if response.readers else Audience()


_Answer = audience_pb2.ResolveAudienceResponse | audience_pb2.ReevaluateAudienceResponse


async def _take(slices: list[Slice], response: _Answer) -> None:
    """Keep the slices of a response, and now and then let others have their turn: decoding many takes a while."""
    for part in response.slices:
        slices.append(slice_of(part))
        if len(slices) % SLICES_BETWEEN_TURNS == 0:
            await asyncio.sleep(0)


def _decided(response: _Answer) -> Decided:
    return Decided(response.directory_version, time_of(response.decide_time))
