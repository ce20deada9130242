"""Owns what the directory's log has said lately: who has changed since a version, found in a few unions."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from services.preferences.changes import Changes, gather, joined
from shared.ordered_log import LogEntry

_BLOCK: Final = 64
_REMEMBERED_BLOCKS: Final = 512


class _Block:
    """Entries that follow each other; what a full one is about is gathered once."""

    def __init__(self) -> None:
        self._entries: list[LogEntry] = []
        self._changes: Changes | None = None

    @property
    def first(self) -> int:
        """The position of the first entry."""
        return self._entries[0].position

    @property
    def last(self) -> int:
        """The position of the last entry."""
        return self._entries[-1].position

    @property
    def is_full(self) -> bool:
        """Whether no further entry fits in."""
        return len(self._entries) == _BLOCK

    def add(self, entry: LogEntry) -> None:
        """Take in the next entry."""
        self._entries.append(entry)

    def since(self, version: int) -> Changes:
        """What those of its entries are about that come after a version."""
        if version >= self.first or not self.is_full:
            return gather(entry for entry in self._entries if entry.position > version)
        if self._changes is None:
            self._changes = gather(self._entries)
        return self._changes


class RecentChanges:
    """The last tens of thousands of entries of the log, which follow each other without a gap."""

    def __init__(self) -> None:
        self._blocks: deque[_Block] = deque(maxlen=_REMEMBERED_BLOCKS)

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Take in what comes next in the log; the oldest are forgotten."""
        for entry in entries:
            if not self._blocks or self._blocks[-1].is_full:
                self._blocks.append(_Block())
            self._blocks[-1].add(entry)

    def forget(self) -> None:
        """Begin anew, with any entry."""
        self._blocks.clear()

    def since(self, version: int) -> Changes | None:
        """What all entries after a version are about; None when they are not all remembered.

        Whoever asks often while much changes pays for what has changed since they asked last, and for one step in
        sixty-four of the rest.
        """
        if not self._blocks or self._blocks[0].first > version + 1:
            return None
        found = []
        for block in reversed(self._blocks):
            if block.last <= version:
                break
            found.append(block.since(version))
        return joined(found)
