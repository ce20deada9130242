"""Answers about the audit log: who did what, and whether all of it is as it was written; takes in what others saw."""

from typing import Final

from wedsync.broadcast.v1 import sender_pb2

from services.sender.audit import (
    BEGINNING,
    PAGE_SIZE,
    VERIFIED,
    Checkpoint,
    Flaw,
    FlawKind,
    Verified,
    follow,
)
from services.sender.audit_messages import (
    checkpoint_of,
    entry_message,
    event_of,
    query_message,
    verified_message,
)
from services.sender.audit_store import AuditChain, AuditPages
from services.sender.directory import Directory, author_of
from shared import opaque
from shared.auth import current_identity
from shared.clock import Clock

_PLACE_BYTES: Final = 8
_LAST_POSITION: Final = 2**63 - 1
# So many entries at a time keep others waiting for a few milliseconds.
_PART: Final = 128
_LONGEST_S: Final = 2.0
"""A call that checks takes no longer, so that no deadline ends it, however busy the machine is."""


class Auditing:
    """What the calls about the audit log do once the edge has let them in."""

    def __init__(self, pages: AuditPages, chain: AuditChain, directory: Directory, clock: Clock) -> None:
        self._pages = pages
        self._chain = chain
        self._directory = directory
        self._clock = clock

    async def list(self, request: sender_pb2.ListAuditEventsRequest) -> sender_pb2.ListAuditEventsResponse:
        """A page, newest first. Raises InvalidPageToken."""
        caller, query = await self._directory.caller(), query_message(request)
        asked, size = repr((caller.author, query)).encode(), request.page_size or PAGE_SIZE
        below = _place(request.page_token, asked) if request.page_token else None
        # One more than is shown says whether there is another page.
        found = await self._pages.list_entries(caller, query, below, size + 1)
        response = sender_pb2.ListAuditEventsResponse(events=map(entry_message, found[:size]))
        if len(found) > size:
            place = found[size - 1].position.to_bytes(_PLACE_BYTES)
            response.next_page_token = opaque.write_page_token(place, asked)
        return response

    async def verify(self, request: sender_pb2.VerifyAuditLogRequest) -> sender_pb2.VerifyAuditLogResponse:
        """Check a part of the chain, and what is known of it."""
        since = checkpoint_of(request.since)
        # Before any entry is read: what it has on record then is there to be read.
        last = await self._chain.last_checkpoint()
        for kept in (since, checkpoint_of(request.expected)):
            flaw = await self._flaw_of(kept)
            if flaw is not None:
                return verified_message(Verified(BEGINNING, BEGINNING, flaw))
        return verified_message(await self._walk(since, request.page_size or VERIFIED, last))

    async def record(
        self, request: sender_pb2.RecordAuditEventsRequest
    ) -> sender_pb2.RecordAuditEventsResponse:
        """Add what another service has seen."""
        source = author_of(current_identity()).name
        await self._chain.record(source, [event_of(event, source) for event in request.events])
        return sender_pb2.RecordAuditEventsResponse()

    async def _flaw_of(self, kept: Checkpoint) -> Flaw | None:
        """What is wrong when the log does not agree with a checkpoint that somebody has kept."""
        if kept == BEGINNING or (found := await self._chain.find_hash(kept.position)) == kept.hash:
            return None
        if found is not None:
            return Flaw(FlawKind.CHECKPOINT_DIFFERS, kept.position)
        end = await self._chain.find_end()
        if kept.position > end:
            return Flaw(FlawKind.TAIL_MISSING, end + 1)
        return Flaw(FlawKind.ENTRY_MISSING, kept.position)

    async def _walk(self, since: Checkpoint, most: int, last: int) -> Verified:
        """Follow the chain for `most` entries, or as long as a call may take; it ends no sooner than at `last`."""
        through, until = since, self._clock.monotonic() + _LONGEST_S
        while (left := since.position + most - through.position) and self._clock.monotonic() < until:
            entries = await self._chain.read_after(through.position, min(_PART, left))
            if not entries:
                is_cut = through.position < last
                flaw = Flaw(FlawKind.TAIL_MISSING, through.position + 1) if is_cut else None
                return Verified(since, through, flaw, is_complete=not is_cut)
            known = await self._chain.checkpoints(through.position, entries[-1].position)
            through, flaw = follow(through, entries, known)
            if flaw is not None:
                return Verified(since, through, flaw)
        return Verified(since, through)


def _place(token: str, asked: bytes) -> int:
    """The position that a page token names. Raises InvalidPageToken for one that this query did not give."""
    place = opaque.read_page_token(token, asked)
    position = int.from_bytes(place)
    if len(place) != _PLACE_BYTES or position > _LAST_POSITION:
        raise opaque.refused_page_token()
    return position
