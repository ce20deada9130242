"""An inbox as a list that is sorted and filtered: what the real one is held against."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.inbox.domain import CRITICAL, MOST_PINNED, Arrangement, Content, Filter, ReceiptAction

FAR = datetime(2099, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Entry:
    """A broadcast that arrived, and what became of it."""

    content: Content
    arrived: int
    is_read: bool = False
    is_acknowledged: bool = False
    is_dismissed: bool = False
    is_pinned: bool = False
    snoozed_until: datetime | None = None

    @property
    def is_snoozed(self) -> bool:
        return self.snoozed_until is not None and self.snoozed_until > datetime.now(UTC)


@dataclass(slots=True)
class Oracle:
    """One recipient's inbox."""

    entries: list[Entry] = field(default_factory=list)
    retracted: set[UUID] = field(default_factory=set)
    teams: set[UUID] = field(default_factory=set)

    def arrive(self, content: Content) -> None:
        self.entries.append(Entry(content, len(self.entries)))

    def visible(self) -> list[Entry]:
        return [entry for entry in self.entries if self._is_visible(entry)]

    def unread(self) -> int:
        return sum(not entry.is_read and not entry.is_snoozed for entry in self.visible())

    def is_settled(self, margin: timedelta = timedelta(milliseconds=100)) -> bool:
        """Whether nothing is about to expire or to come back."""
        moments = [
            each for entry in self.entries for each in (entry.content.expires_at, entry.snoozed_until) if each
        ]
        return not any(timedelta() < each - datetime.now(UTC) < margin for each in moments)

    def listed(self, wanted: Filter) -> list[UUID]:
        """What a filter leaves, pinned ones on top, newest first: by a wedding on whose team they are not, nothing."""
        if wanted.wedding_id is not None and wanted.wedding_id not in self.teams:
            return []
        found = [entry for entry in self.visible() if _matches(entry, wanted)]
        return [entry.content.broadcast_id for entry in sorted(found, key=_place)]

    def record(self, ids: Iterable[UUID], action: ReceiptAction) -> bool:
        """Whether it was recorded: a critical item must be acknowledged before it is dismissed."""
        known = [entry for entry in self.visible() if entry.content.broadcast_id in set(ids)]
        if action is ReceiptAction.DISMISSED and any(
            entry.content.priority == CRITICAL and not entry.is_acknowledged for entry in known
        ):
            return False
        for entry in known:
            entry.is_read |= action is not ReceiptAction.RESTORED
            entry.is_acknowledged |= action is ReceiptAction.ACKNOWLEDGED
            if action is ReceiptAction.DISMISSED:
                entry.is_dismissed = True
                entry.snoozed_until = None
            if action is ReceiptAction.RESTORED:
                entry.is_dismissed = False
        return True

    def arrange(self, broadcast_id: UUID, arrangement: Arrangement, until: datetime | None = None) -> str:
        """What becomes of it: arranged, or the reason why not."""
        found = [entry for entry in self.visible() if entry.content.broadcast_id == broadcast_id]
        if not found:
            return "unknown"
        entry = found[0]
        if entry.is_dismissed and arrangement in (Arrangement.SNOOZED, Arrangement.PINNED):
            return "dismissed"
        pinned = sum(each.is_pinned and not each.is_dismissed for each in self.visible())
        if arrangement is Arrangement.PINNED and not entry.is_pinned and pinned >= MOST_PINNED:
            return "full"
        if arrangement in (Arrangement.SNOOZED, Arrangement.WOKEN):
            entry.snoozed_until = until
        else:
            entry.is_pinned = arrangement is Arrangement.PINNED
        return "arranged"

    def mark_all_read(self) -> None:
        for entry in self.entries:
            entry.is_read = True

    def _is_visible(self, entry: Entry) -> bool:
        content = entry.content
        if content.broadcast_id in self.retracted:
            return False
        if content.expires_at is not None and content.expires_at < datetime.now(UTC):
            return False
        return not content.wall or bool(self.teams & set(content.wall))


def _place(entry: Entry) -> tuple[bool, int]:
    return not entry.is_pinned, -entry.arrived


def _matches(entry: Entry, wanted: Filter) -> bool:
    content = entry.content
    if entry.is_dismissed and not wanted.include_dismissed:
        return False
    if entry.is_snoozed and not wanted.include_snoozed:
        return False
    if entry.is_read and wanted.unread_only:
        return False
    if wanted.priorities and content.priority not in wanted.priorities:
        return False
    is_prefix = wanted.type.endswith(".") and content.type.startswith(wanted.type)
    if wanted.type not in ("", content.type) and not is_prefix:
        return False
    if wanted.wedding_id is not None and wanted.wedding_id not in content.wall:
        return False
    return _has_words(f"{content.title} {content.message}", wanted.search)


def _has_words(text: str, search: str) -> bool:
    """Whether all words are there; the last may be the beginning of one."""
    there = set(re.findall(r"[a-z]+", text.lower()))
    words = re.findall(r"[a-z]+", search.lower())
    whole, last = set(words[:-1]), words[-1] if words else ""
    return whole <= there and (not words or any(word.startswith(last) for word in there))


def a_content(broadcast_id: UUID, **changes: object) -> Content:
    """A content, with some fields otherwise."""
    usual = Content(broadcast_id, "feature.released", 1, 3, "New plans", "Try them", None, None, (), None)
    return replace(usual, **changes)  # type: ignore[arg-type]


def past() -> datetime:
    """A time that has been."""
    return datetime.now(UTC) - timedelta(hours=1)
