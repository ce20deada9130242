"""The dispatcher's neighbours in miniature: a sender, a directory and an inbox that do what a test has written down."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.msg import Msg
from wedsync.broadcast.v1 import audience_pb2, common_pb2, events_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceServicer
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceServicer
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceServicer

from services.dispatcher.domain import Channel, DeliveryState, Kind
from services.dispatcher.messages import CHANNELS
from services.dispatcher.snapshot import Slice
from shared import subjects
from shared.audience import Audience
from shared.errors import NotFound, ServiceError
from shared.messaging import Messaging
from shared.pull_worker import Delivery

_KINDS = {
    events_pb2.ARRIVAL_KIND_ITEM: Kind.ITEM,
    events_pb2.ARRIVAL_KIND_SILENT_ITEM: Kind.SILENT_ITEM,
    events_pb2.ARRIVAL_KIND_ALERT: Kind.ALERT,
}


@dataclass(slots=True)
class SendersBook(SenderServiceServicer):
    """Orders by broadcast; an error in `refusals` is what the next question about it gets, and all that follow."""

    orders: dict[str, sender_pb2.DispatchOrder] = field(default_factory=dict)
    refusals: dict[str, ServiceError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def GetDispatchOrder(
        self, request: sender_pb2.GetDispatchOrderRequest, context: object
    ) -> sender_pb2.GetDispatchOrderResponse:
        if request.purpose == sender_pb2.DISPATCH_PURPOSE_CONTENT:
            self.asked.append(request.broadcast_id)
        elif request.broadcast_id in self.refusals:
            raise self.refusals[request.broadcast_id]
        if request.broadcast_id not in self.orders:
            raise NotFound
        return sender_pb2.GetDispatchOrderResponse(order=self.orders[request.broadcast_id])


@dataclass(slots=True)
class Decision:
    """What the directory says about one broadcast: at first, of those who have changed, and when a hold has ended."""

    snapshot: Sequence[Slice] = ()
    targeted: int = 0
    changed: Sequence[Slice] = ()
    released: Sequence[Slice] = ()
    failure: Exception | None = None


@dataclass(slots=True)
class DirectoryBook(AudienceServiceServicer):
    """Decisions by broadcast type: each test broadcast has a type of its own. `pause_s` is what a review takes,
    `resolve_pause_s` what a first answer does.

    Everybody is decided about at `version` at first; `changes` is what the log says after it.
    """

    decisions: dict[str, Decision] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)
    reviewed: list[audience_pb2.ReevaluateAudienceRequest] = field(default_factory=list)
    pause_s: float = 0.0
    resolve_pause_s: float = 0.0
    version: int = 7
    changes: audience_pb2.ListChangesResponse = field(default_factory=audience_pb2.ListChangesResponse)
    listed: list[int] = field(default_factory=list)

    async def ListChanges(
        self, request: audience_pb2.ListChangesRequest, context: object
    ) -> audience_pb2.ListChangesResponse:
        self.listed.append(request.since_version)
        if request.since_version >= self.changes.directory_version:
            return audience_pb2.ListChangesResponse(directory_version=request.since_version)
        return self.changes

    async def ResolveAudience(
        self, request: audience_pb2.ResolveAudienceRequest, context: object
    ) -> AsyncIterator[audience_pb2.ResolveAudienceResponse]:
        self.resolved.append(request.rules.type)
        await asyncio.sleep(self.resolve_pause_s)
        decision = self.decisions[request.rules.type]
        if decision.failure is not None:
            raise decision.failure
        # A message each, and one without any: both are how an answer may come.
        for part in [[_message(each)] for each in decision.snapshot] or [[]]:
            yield audience_pb2.ResolveAudienceResponse(
                slices=part, targeted=decision.targeted, directory_version=self.version, decide_time=_now()
            )

    async def ReevaluateAudience(
        self, request: audience_pb2.ReevaluateAudienceRequest, context: object
    ) -> AsyncIterator[audience_pb2.ReevaluateAudienceResponse]:
        self.reviewed.append(request)
        await asyncio.sleep(self.pause_s)
        decision = self.decisions[request.rules.type]
        if decision.failure is not None:
            raise decision.failure
        members = Audience.from_bytes(request.members)
        yield audience_pb2.ReevaluateAudienceResponse(directory_version=self.version + 2, decide_time=_now())
        for each in decision.changed if request.since_version else decision.released:
            part = Slice(each.channel, each.outcome, each.members & members, each.reason, each.release_at)
            if part.members and CHANNELS[part.channel] in request.channels:
                yield audience_pb2.ReevaluateAudienceResponse(
                    slices=[_message(part)], directory_version=self.version + 2, decide_time=_now()
                )

    async def LookupRecipients(
        self, request: audience_pb2.LookupRecipientsRequest, context: object
    ) -> audience_pb2.LookupRecipientsResponse:
        return audience_pb2.LookupRecipientsResponse(directory_version=self.version)


@dataclass(slots=True)
class Arrival:
    """A chunk in the inbox: what it was, and how often it came."""

    kind: Kind
    members: Audience
    epochs: list[int]


def _open() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class InboxBook(InboxServiceServicer):
    """Merges chunks once and reports them, when `is_open`; tells nobody while `is_mute`, refuses the `retracted`."""

    messaging: Messaging
    arrivals: dict[tuple[str, int], Arrival] = field(default_factory=dict)
    retracted: set[str] = field(default_factory=set)
    readers: dict[str, Audience] = field(default_factory=dict)
    order: list[tuple[str, int]] = field(default_factory=list)
    messages: dict[str, int] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    in_flight: dict[str, int] = field(default_factory=dict)
    most_in_flight: dict[str, int] = field(default_factory=dict)
    is_mute: bool = False
    is_open: asyncio.Event = field(default_factory=_open)

    async def ListReaders(
        self, request: inbox_pb2.ListReadersRequest, context: object
    ) -> inbox_pb2.ListReadersResponse:
        readers = self.readers.get(request.broadcast_id, Audience()) & Audience.from_bytes(request.members)
        return inbox_pb2.ListReadersResponse(readers=readers.to_bytes())

    async def hear_begun(self, message: Msg) -> None:
        """What an inbox takes as a hint."""
        self.begun.append(events_pb2.DispatchBegun.FromString(message.data).broadcast_id)

    async def merge(self, delivery: Delivery) -> None:
        """What the inbox's consumer does with chunks."""
        chunks = events_pb2.InboxDeliveries.FromString(delivery.payload).deliveries
        broadcast_id = chunks[0].broadcast_id
        assert delivery.message_id == f"{broadcast_id}:{chunks[0].chunk}:{chunks[0].epoch}"
        assert {chunk.broadcast_id for chunk in chunks} == {broadcast_id}
        self.messages[broadcast_id] = self.messages.get(broadcast_id, 0) + 1
        self._note_in_flight(broadcast_id, len(chunks))
        await self.is_open.wait()
        reports = [_report(chunk, self._arrive(chunk)) for chunk in chunks]
        self._note_in_flight(broadcast_id, -len(chunks))
        if not self.is_mute:
            payload = events_pb2.DeliveryReports(reports=reports).SerializeToString()
            await self.messaging.publish(subjects.DELIVERY_REPORT, payload, delivery.message_id)

    def of(self, broadcast_id: UUID) -> dict[int, Arrival]:
        """The chunks of one broadcast by number."""
        return {chunk: each for (key, chunk), each in self.arrivals.items() if key == str(broadcast_id)}

    def people(self, broadcast_id: UUID, *kinds: Kind) -> Audience:
        """Who has it by chunks of these kinds."""
        found = self.of(broadcast_id).values()
        return Audience.union_of(each.members for each in found if each.kind in kinds)

    def _arrive(self, chunk: events_pb2.InboxDelivery) -> Arrival | None:
        key = chunk.broadcast_id, chunk.chunk
        arrival = self.arrivals.get(key)
        if arrival is not None:
            arrival.epochs.append(chunk.epoch)
        elif chunk.broadcast_id not in self.retracted:
            members = Audience.from_bytes(chunk.members)
            arrival = self.arrivals[key] = Arrival(_KINDS[chunk.kind], members, [chunk.epoch])
            self.order.append(key)
        return arrival

    def _note_in_flight(self, broadcast_id: str, change: int) -> None:
        count = self.in_flight[broadcast_id] = self.in_flight.get(broadcast_id, 0) + change
        self.most_in_flight[broadcast_id] = max(count, self.most_in_flight.get(broadcast_id, 0))


def _report(chunk: events_pb2.InboxDelivery, arrival: Arrival | None) -> events_pb2.DeliveryReport:
    return events_pb2.DeliveryReport(
        broadcast_id=chunk.broadcast_id,
        chunk=chunk.chunk,
        epoch=chunk.epoch,
        size=len(arrival.members) if arrival else 0,
        outcome=events_pb2.REPORT_OUTCOME_MERGED if arrival else events_pb2.REPORT_OUTCOME_STOPPED,
        time=_now(),
    )


def now_on_both(members: Audience) -> list[Slice]:
    """Everyone gets the item, and is alerted."""
    return [Slice(channel, DeliveryState.PENDING, members) for channel in Channel]


def asleep(members: Audience, release_at: datetime) -> list[Slice]:
    """Everyone gets the item silently, and is alerted later."""
    return [
        Slice(Channel.IN_APP, DeliveryState.PENDING, members),
        Slice(Channel.REALTIME, DeliveryState.HELD, members, release_at=release_at),
    ]


def _message(part: Slice) -> audience_pb2.AudienceSlice:
    message = audience_pb2.AudienceSlice(
        channel=CHANNELS[part.channel],
        outcome=common_pb2.DeliveryState.Value(f"DELIVERY_STATE_{part.outcome.name}"),
        members=part.members.to_bytes(),
        count=len(part.members),
        directory_version=7,
    )
    if part.reason is not None:
        message.reason = common_pb2.SuppressionReason.Value(f"SUPPRESSION_REASON_{part.reason.name}")
    if part.release_at is not None:
        message.release_at.FromDatetime(part.release_at)
    return message


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC))
    return stamp
