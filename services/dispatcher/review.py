"""Owns deciding again about the members of chunks that wait, before they leave late, and of those that are held."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from services.dispatcher.domain import CHANNELS_OF, ChunkState, Decided, Kind
from services.dispatcher.figures import REVIEWED, tell_closed
from services.dispatcher.neighbours import Audiences, Readers
from services.dispatcher.snapshot import Redecision, Slice, redecide, redecide_held, spare_readers
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Rules, WaitingChunk
from shared.audience import Audience
from shared.backoff import backoff_s
from shared.clock import Clock
from shared.errors import DependencyUnavailable

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
"""Broadcasts that a round asks about at the same time: each waits for others most of the time, and for the disk."""
_RETRY_FIRST_S: Final = 0.1
_RETRY_CEILING_S: Final = 1.0


class Reviewer:
    """Asks who of waiting chunks is to be treated otherwise by now, and moves them to where they belong."""

    def __init__(
        self,
        store: DispatchStore,
        audiences: Audiences,
        readers: Readers,
        most_held: int,
        clock: Clock,
    ) -> None:
        """What is held anew is cut into chunks of at most `most_held` people."""
        self._store = store
        self._audiences = audiences
        self._readers = readers
        self._most_held = most_held
        self._clock = clock

    async def review(self, chunks: Sequence[WaitingChunk], decided: Callable[[], None]) -> None:
        """Bring these chunks up to date; those that are held stay so, with the people who are to be held until then.

        `decided` is called after each broadcast: what was decided about it is not fresh for long. When it fails for
        some broadcasts it is done for the others, and the first failure is raised.
        """
        groups: dict[tuple[UUID, Kind, ChunkState], list[WaitingChunk]] = defaultdict(list)
        for chunk in chunks:
            groups[chunk.broadcast_id, chunk.kind, chunk.state].append(chunk)
        rules = await self._store.rules({broadcast_id for broadcast_id, _, _ in groups})
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(broadcast_id: UUID, kind: Kind, group: Sequence[WaitingChunk]) -> None:
            async with turns:
                await self._review_group(rules[broadcast_id], kind, group)
            decided()

        asked = (one(broadcast_id, kind, group) for (broadcast_id, kind, _), group in groups.items())
        # One broadcast's trouble must not keep the others waiting.
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _review_group(self, rules: Rules, kind: Kind, chunks: Sequence[WaitingChunk]) -> None:
        """Chunks of one kind of one broadcast: one question for all of them."""
        since = Decided(
            min(chunk.decided.directory_version for chunk in chunks),
            min(chunk.decided.time for chunk in chunks),
        )
        members = Audience.union_of(chunk.members for chunk in chunks)
        asked = self._clock.monotonic()
        slices, decided = await self._audiences.decide_again(rules, members, since, CHANNELS_OF[kind])
        by_decision: dict[Decided, list[tuple[WaitingChunk, Redecision]]] = defaultdict(list)
        for chunk, change in await self._changes(kind, chunks, slices, decided):
            # Who is put back on a team is not among those who change then. What they did to their quiet hours in the
            # meantime is found only when it is asked for since before it.
            by_decision[chunk.decided if change.is_open and rules.wall else decided].append((chunk, change))
        for last, changes in by_decision.items():
            await self._write(changes, last, asked)

    async def _write(
        self, changes: Sequence[tuple[WaitingChunk, Redecision]], decided: Decided, asked: float
    ) -> None:
        """Put these chunks of one broadcast into their new form, as they were `decided` at last."""
        unchanged = [chunk for chunk, change in changes if not change.moved]
        changed = [(chunk, change) for chunk, change in changes if change.moved]
        if unchanged:
            await self._store.confirm(unchanged, decided, self._clock.monotonic() - asked)
        if changed:
            age_s = self._clock.monotonic() - asked
            tell_closed(await self._store.redecide(changed, decided, age_s))
        REVIEWED.labels("unchanged").inc(len(unchanged))
        REVIEWED.labels("changed").inc(len(changed))

    async def _changes(
        self, kind: Kind, chunks: Sequence[WaitingChunk], slices: Sequence[Slice], decided: Decided
    ) -> list[tuple[WaitingChunk, Redecision]]:
        readers = await asyncio.gather(*(self._readers_of(kind, chunk) for chunk in chunks))
        changes = []
        for chunk, read in zip(chunks, readers, strict=True):
            changes.append((chunk, self._redecide(chunk, slices, decided, read)))
            await asyncio.sleep(0)  # each takes a while when much has changed
        return changes

    async def _readers_of(self, kind: Kind, chunk: WaitingChunk) -> Audience | None:
        """Who has read what they would be alerted of now; of what is held that is looked for once it is due."""
        if kind is not Kind.ALERT or chunk.state is ChunkState.HELD:
            return None
        return await self._readers.among(chunk.broadcast_id, chunk.members)

    def _redecide(
        self, chunk: WaitingChunk, slices: Sequence[Slice], decided: Decided, read: Audience | None
    ) -> Redecision:
        if chunk.release_at is not None:
            return redecide_held(chunk.members, chunk.release_at, slices, decided.time, self._most_held)
        if read is not None:
            slices = spare_readers(slices, chunk.members, read)
        return redecide(chunk.kind, chunk.members, slices, self._most_held)


class Rounds:
    """A lane's reviews, one after the other and beside its sending.

    A lane that waited for a whole round would find what was decided first old again, and ask for it once more.
    """

    def __init__(
        self, reviewer: Reviewer, lane: str, decided: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        """`decided` is called when something can be sent now, `wake` when a round has ended."""
        self._reviewer = reviewer
        self._lane = lane
        self._decided = decided
        self._wake = wake
        self._round: asyncio.Task[None] | None = None
        self._failures = 0

    def begin(self, chunks: Sequence[WaitingChunk]) -> None:
        """Have these decided again, unless a round is under way: what it leaves is found again after it."""
        if chunks and self._round is None:
            self._round = asyncio.create_task(self._run(chunks), name=f"review-{self._lane}")

    async def end(self) -> None:
        """Break off what is under way: nothing is lost by it but the asking."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _run(self, chunks: Sequence[WaitingChunk]) -> None:
        try:
            await self._reviewer.review(chunks, self._note_decided)
        except DependencyUnavailable as error:
            self._failures += 1
            log.warning("review_interrupted", lane=self._lane, failures=self._failures, error=str(error))
        except Exception:
            self._failures += 1
            log.exception("review_failed", lane=self._lane, failures=self._failures)
        try:
            if self._failures:
                await asyncio.sleep(backoff_s(self._failures, _RETRY_FIRST_S, _RETRY_CEILING_S))
        finally:
            self._round = None
        self._wake()

    def _note_decided(self) -> None:
        self._failures = 0
        self._decided()
