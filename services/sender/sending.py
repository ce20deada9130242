"""Takes broadcasts: rights, wall, audience, and the one transaction after which none can be lost."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeVar
from uuid import uuid4

import structlog
from wedsync.broadcast.v1 import sender_pb2

from services.sender.backlog import Backlog
from services.sender.directory import Count, Directory
from services.sender.domain import TYPES, Broadcast, Priority, State, needs_approval, wall_of
from services.sender.forecasts import preview_message
from services.sender.limits import Tally
from services.sender.messages import (
    broadcast_message,
    draft_to_preview,
    draft_to_send,
    quota_message,
    rules_message,
)
from services.sender.quotas import Quotas
from services.sender.rights import Caller, require_reach, require_sender
from services.sender.rules import Draft, expiry_violations, preview_violations, send_violations
from services.sender.store import CallStore
from shared.clock import Clock
from shared.errors import FieldViolation, InvalidField, OutsideReach
from shared.failpoints import declare, failpoint
from shared.replays import Answer, Replays, answer_to, request_of

log = structlog.get_logger(__name__)

SEND: Final = "SendBroadcast"
_SOON: Final = timedelta(seconds=1)
_Found = TypeVar("_Found")
BEFORE_COMMIT, AFTER_COMMIT = declare("sender.send.before_commit", "sender.send.after_commit")


class Sending:
    """What SendBroadcast and PreviewAudience do once the edge has let a call in."""

    def __init__(
        self,
        store: CallStore,
        replays: Replays,
        directory: Directory,
        backlog: Backlog,
        quotas: Quotas,
        clock: Clock,
        wake_relay: Callable[[], None],
        approval_threshold: int,
    ) -> None:
        """`wake_relay` is told of every commit that added an outbox row which is due, or nearly so.

        What is meant for more people than `approval_threshold` waits for another admin.
        """
        self._store = store
        self._replays = replays
        self._directory = directory
        self._backlog = backlog
        self._quotas = quotas
        self._clock = clock
        self._wake_relay = wake_relay
        self._approval_threshold = approval_threshold

    async def precede(
        self, request: sender_pb2.SendBroadcastRequest
    ) -> sender_pb2.SendBroadcastResponse | None:
        """What is known of a send before anybody asks who sends it: the first answer to one that is repeated.

        Raises RateLimited for one that is too much: at once and without asking anybody, when this process knows that
        and that it cannot be a repetition.
        """
        tally = self._quotas.tally(request)
        if tally is not None:
            self._quotas.refuse_known(tally, request.request_id)
            self._directory.expect([tally.wedding_id] if tally.wedding_id else [])
        earlier = await self._replays.find(SEND, request, sender_pb2.SendBroadcastResponse)
        if earlier is None and tally is not None:
            self._quotas.refuse_known(tally)
        return earlier

    def send_violations(self, request: sender_pb2.SendBroadcastRequest) -> Iterable[FieldViolation]:
        """The rules of product.md that a send breaks, besides those in the contract."""
        return send_violations(draft_to_send(request), self._clock.now())

    def preview_violations(self, request: sender_pb2.PreviewAudienceRequest) -> Iterable[FieldViolation]:
        """The rules of product.md that a preview breaks, besides those in the contract."""
        return preview_violations(draft_to_preview(request), self._clock.now())

    async def send(self, request: sender_pb2.SendBroadcastRequest) -> sender_pb2.SendBroadcastResponse:
        """Accept a valid request, or, with `validate_only`, say how it would be accepted."""
        draft = draft_to_send(request)
        wall = wall_of(draft.targeting, draft.wedding_id)
        if not request.validate_only:
            self._require_room(draft)
        caller, count = await self._meant(draft, wall)
        now = self._clock.now()
        # Finding that out took a while, in which it may have expired.
        if late := list(expiry_violations(draft, now)):
            raise InvalidField(violations=late)
        content = draft.content(now, caller.wedding(draft.wedding_id))
        waits = needs_approval(content, count.targeted, self._approval_threshold)
        state = State.AWAITING_APPROVAL if waits else State.PENDING
        broadcast = Broadcast(str(uuid4()), content, caller.author, now, count.targeted, state)
        response = _response(broadcast, count.unknown_to(caller))
        tally = Tally(caller.author, draft.type, draft.chosen_priority, draft.wedding_id)
        if request.validate_only:
            response.broadcast.ClearField("broadcast_id")
            response.quota.CopyFrom(quota_message(await self._quotas.require_left(tally)))
            return response
        return await self._accept(broadcast, tally, request, response)

    async def preview(self, request: sender_pb2.PreviewAudienceRequest) -> sender_pb2.PreviewAudienceResponse:
        """Count what everybody meant by a valid request would get now."""
        draft = draft_to_preview(request)
        wall = wall_of(draft.targeting, draft.wedding_id)
        rules = rules_message(TYPES[draft.type], draft.chosen_priority, draft.wedding_id, wall)
        # Those whose reach has no bounds are told by the forecast itself when there is no such wedding.
        bounds = wall if (await self._directory.caller()).is_coordinator else ()
        caller, forecast = await _both(
            self._sender(draft, bounds), self._directory.forecast(draft.targeting, wall, rules)
        )
        return preview_message(forecast, draft.expires_at, forecast.count.unknown_to(caller))

    async def _meant(self, draft: Draft, wall: tuple[str, ...]) -> tuple[Caller, Count]:
        """The caller, and how many people a draft of theirs means."""
        if draft.targeting.names_people or len(wall) != 1:
            return await _both(self._sender(draft, wall), self._directory.count(draft.targeting, wall))
        # The whole team of one wedding, which the directory has told the size of with the caller's place on it.
        caller = await self._sender(draft, wall)
        return caller, Count(sum(each.team_size for each in caller.weddings), 0)

    async def _sender(self, draft: Draft, wall: tuple[str, ...]) -> Caller:
        """The caller, who may send this type to this audience."""
        caller = await self._directory.caller(wall)
        require_sender(caller)
        with _wall_refusals_told(draft.type, wall):
            require_reach(caller, TYPES[draft.type], draft.targeting)
        return caller

    def _require_room(self, draft: Draft) -> None:
        """What is for later waits in no dispatcher's way."""
        if draft.scheduled_for is None or draft.scheduled_for <= self._clock.now():
            self._backlog.require_room(draft.chosen_priority)

    async def _accept(
        self,
        broadcast: Broadcast,
        tally: Tally,
        request: sender_pb2.SendBroadcastRequest,
        response: sender_pb2.SendBroadcastResponse,
    ) -> sender_pb2.SendBroadcastResponse:
        repeatable, limit = request_of(SEND, request), self._quotas.limit(tally)
        await failpoint(BEFORE_COMMIT)
        async with self._quotas.line(tally):
            self._quotas.refuse_known(tally, request.request_id)
            asked_at = self._clock.monotonic()
            outcome = await self._store.accept(
                broadcast, repeatable, SEND, response.SerializeToString(), limit
            )
            await failpoint(AFTER_COMMIT)
            if isinstance(outcome, Answer):
                return answer_to(repeatable, outcome, sender_pb2.SendBroadcastResponse)
            quota = self._quotas.settle(tally, outcome.standing, asked_at, is_counted=outcome.is_accepted)
        response.quota.CopyFrom(quota_message(quota))
        due_in = broadcast.content.scheduled_for - broadcast.created_at
        if not due_in and broadcast.state is State.PENDING:
            self._backlog.add(broadcast.content.priority)
        # What is due later than that it finds by itself, in time.
        if due_in < _SOON:
            self._wake_relay()
        _log_accepted(broadcast)
        return response


async def _both(allowed: Awaitable[Caller], found: Awaitable[_Found]) -> tuple[Caller, _Found]:
    """Who may, and what was found meanwhile: the directory is asked for both at once, and answers them together.

    A refusal waits for nothing else, so whoever may not learns nothing of what was found, not even how long it took.
    """
    finding = asyncio.ensure_future(found)
    finding.add_done_callback(_look_at_error)
    try:
        return await allowed, await finding
    finally:
        finding.cancel()


def _look_at_error(finding: "asyncio.Future[_Found]") -> None:
    """When nobody waits for it any more, its error is nobody's."""
    if not finding.cancelled():
        finding.exception()


def _response(broadcast: Broadcast, unknown_user_ids: int) -> sender_pb2.SendBroadcastResponse:
    return sender_pb2.SendBroadcastResponse(
        broadcast=broadcast_message(broadcast),
        targeted_users=broadcast.targeted,
        unknown_user_ids=unknown_user_ids,
    )


def _log_accepted(broadcast: Broadcast) -> None:
    content = broadcast.content
    fields = {
        "broadcast_id": broadcast.broadcast_id,
        "type": content.type.name,
        "priority": content.priority.slug,
        "targeted": broadcast.targeted,
        "scheduled": content.scheduled_for > broadcast.created_at,
        "awaits_approval": broadcast.state is State.AWAITING_APPROVAL,
    }
    log.info("broadcast_accepted", **fields)
    if content.priority is Priority.CRITICAL:
        log.warning("critical_broadcast_accepted", **fields)


@contextmanager
def _wall_refusals_told(broadcast_type: str, wall: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except OutsideReach:
        log.warning("wall_refused", type=broadcast_type, wedding_ids=wall[:10], weddings=len(wall))
        raise
