"""The rules of an inbox, without I/O: what an item is, how it is searched, what pages and places are called."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared import opaque
from shared.audience import CHUNK_BLOCKS, CHUNK_MEMBERS, Audience
from shared.errors import FieldViolation, InvalidCursor

EVERYBODY: Final = UUID(int=0)
"""The wedding of what is about none: everybody is on its team."""

CRITICAL: Final = 1
"""The contract's number for critical; the lower a priority, the more urgent."""

PAGE_SIZE: Final = 50
LARGEST_PAGE: Final = 100
MOST_PINNED: Final = 20

# What is written above or below a letter of another script is a part of its word: without it, it is another one.
_SIGNS: Final = "".join(
    chr(code) for code in range(0x370, 0x10000) if unicodedata.category(chr(code))[0] == "M"
)
_WORD: Final = re.compile(rf"[\w{_SIGNS}]+")
# Accents of Latin, Greek and Cyrillic letters, which people leave out when they search, and marks that show nothing.
_ACCENTS: Final = re.compile("[\u0300-\u036f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]+")
# Scripts that set no spaces between words: Thai, Lao, Myanmar, Khmer, kana and Han. A migration has the same ranges.
_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f\u1780-\u17ff"
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUN: Final = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]").match
_NO_WORD: Final = "' '"
_BEGINNING: Final = ":*"
# A lexeme of Postgres is at most 2,046 bytes, and a character at most 4.
_LONGEST_WORD: Final = 500
POSITION_BYTES: Final = 8
_BROKEN_CURSOR: Final = FieldViolation("cursor", "must be the cursor of an event of this service, or empty")
LAST_POSITION: Final = 2**63 - 1


class ArrivalKind(StrEnum):
    """What a chunk does to an inbox; the values are the log's kinds."""

    ITEM = "item"
    SILENT_ITEM = "silent_item"
    ALERT = "alert"


class Arrangement(StrEnum):
    """Where a recipient keeps an item from now on."""

    SNOOZED = "snoozed"
    WOKEN = "woken"
    PINNED = "pinned"
    UNPINNED = "unpinned"


class ReceiptAction(StrEnum):
    """What a recipient did with an item."""

    READ = "read"
    ACKNOWLEDGED = "acknowledged"
    DISMISSED = "dismissed"
    RESTORED = "restored"
    CLICKED = "clicked"


@dataclass(frozen=True, slots=True)
class Action:
    """The one button of a broadcast."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Wedding:
    """The wedding that a broadcast is about."""

    wedding_id: UUID
    couple_name: str
    wedding_date: date | None


@dataclass(frozen=True, slots=True)
class Content:
    """What a broadcast says, the same for all. `wall` is the weddings whose teams may see it, empty for everybody."""

    broadcast_id: UUID
    type: str
    category: int
    priority: int
    title: str
    message: str
    action: Action | None
    wedding: Wedding | None
    wall: tuple[UUID, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one recipient did with one item, and when first; and where they keep it."""

    broadcast_id: UUID
    read_at: datetime | None
    acknowledged_at: datetime | None
    dismissed_at: datetime | None
    clicked_at: datetime | None
    snoozed_until: datetime | None = None
    pinned_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A broadcast in one inbox, at its place in the order of arrival."""

    position: int
    content: Content
    delivered_at: datetime
    silent: bool
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broadcast lies in one inbox, and what its owner did with it: None for nothing."""

    position: int
    broadcast_id: UUID
    delivered_at: datetime
    silent: bool
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Badge:
    """How much one recipient has as of a position of the log: unread, and in all but for what is dismissed or snoozed.

    Holds until the first of that expires or is snoozed no longer. `reads` and `dismissals` are how often they had
    done either by then.
    """

    unread_count: int
    total_count: int
    position: int
    valid_until: datetime | None
    reads: int = 0
    dismissals: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items are wanted; everything that is None or false filters nothing."""

    unread_only: bool = False
    priorities: tuple[int, ...] = ()
    type: str = ""
    search: str = ""
    wedding_id: UUID | None = None
    include_dismissed: bool = False
    include_snoozed: bool = False

    @property
    def exact_type(self) -> str | None:
        """The type that is wanted, unless a prefix is."""
        return self.type if self.type and not self.type.endswith(".") else None

    @property
    def type_prefix(self) -> str | None:
        """What wanted types begin with, ending in a dot; None when one type is wanted, or all."""
        return self.type if self.type.endswith(".") else None

    @property
    def query(self) -> str | None:
        """The words that must all be there, as a tsquery: the last may be a beginning. None when nothing is looked for.

        What has no word in it, such as a question mark, asks for one that no text has.
        """
        words = fold_words(self.search)
        if not words:
            return _NO_WORD if self.search.strip() else None
        terms = [term for word in words for term in _terms_of(word)]
        return " & ".join(terms).removesuffix(_BEGINNING) + _BEGINNING

    def fingerprint(self) -> bytes:
        """What tells this filter from any other."""
        return repr(self).encode()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a broadcast's audience on its way into inboxes."""

    broadcast_id: UUID
    number: int
    kind: ArrivalKind
    members: Audience


@dataclass(frozen=True, slots=True)
class Merge:
    """What became of a chunk: merged at `position`, or stopped because its broadcast was cancelled."""

    is_merged: bool
    position: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Engagement:
    """How many people did what with a broadcast; since `cleaned_at`, if that is set, the counts say nothing.

    `time_to_read` is what all its readers took together, if that was counted.
    """

    delivered: int
    read: int
    acknowledged: int
    dismissed: int
    clicked: int
    cleaned_at: datetime | None = None
    time_to_read: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Retraction:
    """What had arrived of a broadcast when it was retracted."""

    arrived: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Team:
    """A wedding's team as the directory gave it at a version."""

    wedding_id: UUID
    version: int
    members: Audience


def fits_a_chunk(members: Audience) -> bool:
    """Whether this is no more than one transaction may take."""
    return len(list(members.chunks(CHUNK_BLOCKS))) <= 1


def fits_an_alert(members: Audience) -> bool:
    """The same for an alert, which fills no blocks, wherever its people are."""
    return len(members) <= CHUNK_MEMBERS


def fold_words(text: str) -> list[str]:
    """The words of a text as they are compared, whatever the language: without regard to case, accents or what stands
    between. Where a script sets no spaces, what stands without any is one.
    """
    if text.isascii():
        folded = text.lower()
    else:
        apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        folded = unicodedata.normalize("NFKC", _ACCENTS.sub("", apart))
    return [run for word in _WORD.findall(folded) for run in _RUN.findall(word)]


def words_of(texts: Iterable[str]) -> list[str]:
    """What some texts are found by, each once, sorted: their words, or of runs without spaces every two characters."""
    return sorted({part for text in texts for word in fold_words(text) for part in _parts_of(word)})


def _parts_of(word: str) -> list[str]:
    if not _IS_UNSPACED(word):
        return [word[:_LONGEST_WORD]]
    # The last character alone as well, so that each is the beginning of a part.
    return [word[place : place + 2] for place in range(len(word))]


def _terms_of(word: str) -> list[str]:
    """The parts that a text with this word has, as terms of a tsquery."""
    # Words have neither quotes nor backslashes in them, so this quoting is safe.
    if len(word) == 1 and _IS_UNSPACED(word):
        return [f"'{word}'{_BEGINNING}"]
    parts = _parts_of(word)
    return [f"'{part}'" for part in (parts[:-1] or parts)]


def write_cursor(position: int, log_identity: UUID) -> str:
    """The name of a place in a log, from which a stream can go on."""
    return opaque.encode(position.to_bytes(POSITION_BYTES) + log_identity.bytes[:POSITION_BYTES])


def read_cursor(cursor: str, log_identity: UUID) -> int | None:
    """The place that a cursor names, None when that is in a log which is no more. Raises InvalidCursor for rubbish."""
    try:
        raw = opaque.decode(cursor)
    except ValueError as error:
        raise InvalidCursor(violations=[_BROKEN_CURSOR]) from error
    position = int.from_bytes(raw[:POSITION_BYTES])
    if len(raw) != 2 * POSITION_BYTES or position > LAST_POSITION:
        raise InvalidCursor(violations=[_BROKEN_CURSOR])
    return position if raw[POSITION_BYTES:] == log_identity.bytes[:POSITION_BYTES] else None
