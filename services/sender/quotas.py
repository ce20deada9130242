"""Says what a sender has left, and holds them to it: from memory where it is known, else from the database."""

import asyncio
from collections.abc import Iterable
from weakref import WeakValueDictionary

import structlog
from wedsync.broadcast.v1 import sender_pb2

from services.sender.directory import Directory, author_of
from services.sender.domain import TYPES
from services.sender.limits import Limit, Limits, Quota, Standing, Tally, rate_limited
from services.sender.messages import draft_to_count, quota_message
from services.sender.refusals import Refusals
from services.sender.rights import require_sender, require_type, require_weddings
from services.sender.rules import kind_violations
from services.sender.store import CallStore
from shared.auth import current_identity
from shared.clock import Clock
from shared.errors import FieldViolation
from shared.validation import is_id

log = structlog.get_logger(__name__)


class Quotas:
    """What GetQuota does once the edge has let a call in, and what a send asks before and after it is counted."""

    def __init__(
        self, store: CallStore, directory: Directory, limits: Limits, refusals: Refusals, clock: Clock
    ) -> None:
        self._store = store
        self._directory = directory
        self._limits = limits
        self._refusals = refusals
        self._clock = clock
        self._lines: WeakValueDictionary[Tally, asyncio.Lock] = WeakValueDictionary()

    def violations(self, request: sender_pb2.GetQuotaRequest) -> Iterable[FieldViolation]:
        """The rules of product.md that a request breaks, besides those in the contract."""
        return kind_violations(draft_to_count(request))

    async def get(self, request: sender_pb2.GetQuotaRequest) -> sender_pb2.GetQuotaResponse:
        """What is left of what a valid request names."""
        draft = draft_to_count(request)
        caller = await self._directory.caller((draft.wedding_id,) if draft.wedding_id else ())
        require_sender(caller)
        require_type(caller, TYPES[draft.type])
        require_weddings(caller)
        tally = Tally(caller.author, draft.type, draft.chosen_priority, draft.wedding_id)
        standing = await self._store.find_standing(tally, self.limit(tally))
        return sender_pb2.GetQuotaResponse(quota=quota_message(standing.quota))

    def tally(self, request: sender_pb2.SendBroadcastRequest) -> Tally | None:
        """What a send of the caller counts with; None for one that its rules will refuse, which counts with nothing."""
        draft = draft_to_count(request)
        if any(kind_violations(draft)) or (draft.wedding_id is not None and not is_id(draft.wedding_id)):
            return None
        return Tally(author_of(current_identity()), draft.type, draft.chosen_priority, draft.wedding_id)

    def limit(self, tally: Tally) -> Limit:
        """How much of this may be sent."""
        return self._limits.of(tally)

    def line(self, tally: Tally) -> asyncio.Lock:
        """What those hold who send what is counted together: the database takes one of them at a time.

        So the others wait here, and not each on a connection that somebody else could use.
        """
        return self._lines.setdefault(tally, asyncio.Lock())

    def refuse_known(self, tally: Tally, request_id: str = "") -> None:
        """Raise RateLimited when it is known here that nothing is left, so that nobody need be asked.

        Not for the request_id of a send that was accepted: that is a repetition, whose answer is not known here.
        """
        refusal = self._refusals.find(tally)
        if refusal is not None and not refusal.may_repeat(request_id):
            raise rate_limited(tally, refusal.quota, self._refusals.retry_after_s(refusal))

    async def require_left(self, tally: Tally) -> Quota:
        """What is left before a send that is only validated. Raises RateLimited when it is nothing."""
        asked_at = self._clock.monotonic()
        standing = await self._store.find_standing(tally, self.limit(tally))
        return self.settle(tally, standing, asked_at, is_counted=standing.quota.reset_time is None)

    def settle(self, tally: Tally, standing: Standing, asked_at: float, *, is_counted: bool) -> Quota:
        """What is left after the database was asked, at `asked_at` (monotonic), to count a send.

        Raises RateLimited when it was not counted. When nothing is left, the next will not get that far.
        """
        if standing.quota.reset_time is not None:
            self._refusals.note(tally, standing, asked_at)
        if not is_counted:
            _log_refusal(tally, standing.quota)
            raise rate_limited(tally, standing.quota, standing.retry_after_s)
        return standing.quota


def _log_refusal(tally: Tally, quota: Quota) -> None:
    """Once for each time that it is found out; what is refused from memory leaves its line as a call."""
    log.info(
        "rate_limited",
        type=tally.type,
        priority=tally.priority.slug,
        is_service=tally.author.is_service,
        about_wedding=tally.wedding_id is not None,
        hour_used=quota.hour_used,
        day_used=quota.day_used,
    )
