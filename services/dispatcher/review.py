"""Owns deciding again about the members of chunks that wait: before they leave late, and when a hold has ended."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import structlog

from services.dispatcher.domain import CHANNELS_OF, ChunkState, Decided, Kind
from services.dispatcher.figures import REVIEWED, tell_closed
from services.dispatcher.neighbours import Audiences, Readers
from services.dispatcher.snapshot import Redecision, Slice, redecide, spare_readers
from services.dispatcher.store import DispatchStore
from services.dispatcher.work import Rules, WaitingChunk
from shared.audience import Audience
from shared.backoff import backoff_s
from shared.errors import DependencyUnavailable

log = structlog.get_logger(__name__)

_RETRY_FIRST_S: Final = 0.1
_RETRY_CEILING_S: Final = 1.0


class Reviewer:
    """Asks who of waiting chunks is to be treated otherwise by now, and moves them to where they belong."""

    def __init__(
        self, store: DispatchStore, audiences: Audiences, readers: Readers, release_per_second: int
    ) -> None:
        self._store = store
        self._audiences = audiences
        self._readers = readers
        self._release_per_second = release_per_second

    async def review(self, chunks: Sequence[WaitingChunk], decided: Callable[[], None]) -> None:
        """Bring these chunks up to date; held ones among them are pending afterwards, as far as anybody is left.

        `decided` is called after each broadcast: what was decided about it is not fresh for long. When it fails for
        some broadcasts it is done for the others, and the first failure is raised.
        """
        groups: dict[tuple[UUID, Kind], list[WaitingChunk]] = defaultdict(list)
        for chunk in chunks:
            groups[chunk.broadcast_id, chunk.kind].append(chunk)
        rules = await self._store.rules({broadcast_id for broadcast_id, _ in groups})
        failures = []
        for (broadcast_id, kind), group in groups.items():
            try:
                await self._review_group(rules[broadcast_id], kind, group)
            except Exception as error:  # noqa: BLE001  # one broadcast's trouble must not keep the others waiting
                failures.append(error)
            else:
                decided()
        if failures:
            raise failures[0]

    async def _review_group(self, rules: Rules, kind: Kind, chunks: Sequence[WaitingChunk]) -> None:
        """Chunks of one kind of one broadcast: one question for all of them."""
        since = Decided(
            min(chunk.decided.directory_version for chunk in chunks),
            min(chunk.decided.time for chunk in chunks),
        )
        members = Audience.union_of(chunk.members for chunk in chunks)
        slices, decided = await self._audiences.decide_again(rules, members, since, CHANNELS_OF[kind])
        changes = await self._changes(kind, chunks, slices)
        unchanged = [chunk.chunk for chunk, change in changes if _is_unchanged(chunk, change)]
        changed = [(chunk, change) for chunk, change in changes if not _is_unchanged(chunk, change)]
        if unchanged:
            await self._store.confirm(rules.broadcast_id, unchanged, decided)
        if changed:
            tell_closed(await self._store.redecide(changed, decided))
        REVIEWED.labels("unchanged").inc(len(unchanged))
        REVIEWED.labels("changed").inc(len(changed))

    async def _changes(
        self, kind: Kind, chunks: Sequence[WaitingChunk], slices: Sequence[Slice]
    ) -> list[tuple[WaitingChunk, Redecision]]:
        readers: list[Audience] = []
        if kind is Kind.ALERT:
            asked = (self._readers.among(chunk.broadcast_id, chunk.members) for chunk in chunks)
            readers = await asyncio.gather(*asked)
        changes = []
        for place, chunk in enumerate(chunks):
            decided = spare_readers(slices, chunk.members, readers[place]) if readers else slices
            changes.append((chunk, redecide(kind, chunk.members, decided, self._release_per_second)))
            await asyncio.sleep(0)  # each takes a while when much has changed
        return changes


class Rounds:
    """A lane's reviews, one after the other and beside its sending.

    A lane that waited for a whole round would find what was decided first old again, and ask for it once more.
    """

    def __init__(self, reviewer: Reviewer, lane: str, wake: Callable[[], None]) -> None:
        """`wake` is called whenever there may be something to send, or to review, that was not there before."""
        self._reviewer = reviewer
        self._lane = lane
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
        self._wake()


def _is_unchanged(chunk: WaitingChunk, change: Redecision) -> bool:
    return chunk.state is ChunkState.PENDING and not change.moved
