"""Owns merging chunks into inboxes: groups of them in one transaction, each of them once for good."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.inbox.contents import Contents
from services.inbox.domain import Chunk, Content, Merge
from services.inbox.groups import Group, apart
from services.inbox.waking import Waking
from services.inbox.work_store import ChunkRows, ContentMissing, WorkStore
from shared.errors import DependencyUnavailable
from shared.failpoints import declare, failpoint

# As many chunks as 10,000 recipients scattered over a million numbers take, several times over.
_LARGEST_GROUP: Final = 64

declare("inbox.merge.before_commit", "inbox.merge.after_commit")


@dataclass(frozen=True, slots=True)
class _Asked:
    rows: ChunkRows
    content: Content | None


class Merging:
    """One lane's merges: whatever comes while a group is being committed is in the next."""

    def __init__(self, store: WorkStore, contents: Contents, waking: Waking) -> None:
        self._store = store
        self._contents = contents
        self._waking = waking
        self._group: Group[_Asked, Merge] = Group(self._commit, _LARGEST_GROUP)

    async def merge(self, broadcast_id: UUID, chunks: Iterable[Chunk]) -> list[tuple[Chunk, Merge]]:
        """Return once each chunk is in its people's inboxes, by this merge or an earlier one, or refused for good.

        They are iterated over while what they say is fetched; whatever that raises is passed on, with nothing done.
        """
        content, rows = await asyncio.gather(self._contents.unkept(broadcast_id), _cut(chunks))
        try:
            merges = await self._group.ask_all([_Asked(each, content) for each in rows])
        except ContentMissing as error:
            self._contents.forget(broadcast_id)
            raise DependencyUnavailable("The content was not kept; it is fetched again.") from error
        return [(each.chunk, merge) for each, merge in zip(rows, merges, strict=True)]

    async def _commit(self, group: Sequence[_Asked]) -> list[Merge]:
        merges: dict[int, Merge] = {}
        for round_ in apart(group, _clash):
            merged = await self._merge_round([asked for _, asked in round_])
            merges |= {place: merge for (place, _), merge in zip(round_, merged, strict=True)}
        return [merges[place] for place in range(len(group))]

    async def _merge_round(self, group: Sequence[_Asked]) -> list[Merge]:
        contents = {asked.content.broadcast_id: asked.content for asked in group if asked.content is not None}
        await failpoint("inbox.merge.before_commit")
        merges = await self._store.merge([asked.rows for asked in group], contents.values())
        await failpoint("inbox.merge.after_commit")
        for broadcast_id in contents:
            self._contents.note_kept(broadcast_id)
        settled = [
            merge if merge is not None else await self._merge_rest(asked.rows.chunk)
            for asked, merge in zip(group, merges, strict=True)
        ]
        await self._waking.announce(max(merge.position for merge in settled))
        return settled

    async def _merge_rest(self, chunk: Chunk) -> Merge:
        """Merge without those who have the broadcast already: the chunk was cut anew after it had been merged."""
        while True:
            present = await self._store.find_members(chunk.broadcast_id, within=chunk.members)
            rest = Chunk(chunk.broadcast_id, chunk.number, chunk.kind, chunk.members - present)
            merge = (await self._store.merge([ChunkRows.of(rest)], ()))[0]
            if merge is not None:
                return merge


async def _cut(chunks: Iterable[Chunk]) -> list[ChunkRows]:
    """Chunks as rows: to read and to cut each takes a moment, and others have their turn in between."""
    rows = []
    for chunk in chunks:
        rows.append(ChunkRows.of(chunk))
        await asyncio.sleep(0)
    return rows


def _clash(one: _Asked, other: _Asked) -> bool:
    """Whether two chunks cannot be merged in the same breath."""
    a, b = one.rows.chunk, other.rows.chunk
    return a.broadcast_id == b.broadcast_id and (a.number == b.number or not a.members.isdisjoint(b.members))
