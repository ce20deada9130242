"""Owns what the inbox does for everybody: merges, receipts, teams and tombstones, as the login of its workers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any
from uuid import UUID

import asyncpg

from services.inbox.domain import (
    EVERYBODY,
    ArrivalKind,
    Chunk,
    Content,
    Engagement,
    Merge,
    Receipt,
    ReceiptAction,
    Retraction,
    Team,
    words_of,
)
from services.inbox.entries import arrival_body
from services.inbox.rows import content_of, receipt_of
from services.inbox.store import QUERIES
from shared.audience import Audience, Partition
from shared.database import Database, Row
from shared.replays import Request, id_reused


class ContentMissing(LookupError):
    """A chunk came without the content of its broadcast, which is not kept here either."""


class ReceiptOutcome(StrEnum):
    """What became of one item of a call, or of a call that was answered before."""

    RECORDED = "recorded"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class ReceiptCall:
    """One recipient's call: what they did with these items, each named once; `request` when it may be repeated."""

    recipient_number: int
    broadcast_ids: tuple[UUID, ...]
    action: ReceiptAction
    url: str | None
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """One item of a call: its times now, and what the call did. Its whole call was refused for one that `is_cause`."""

    outcome: ReceiptOutcome
    receipt: Receipt
    is_critical: bool
    is_cause: bool
    newly_acknowledged: bool


@dataclass(frozen=True, slots=True)
class Repeated:
    """A call whose request_id was answered before: in these bytes, None when that was another body."""

    response: bytes | None

    def answer(self) -> bytes:
        """What is answered again. Raises RequestIdReused."""
        if self.response is None:
            raise id_reused()
        return self.response


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """A chunk cut into what is stored of it: its entry in the log, and nobody's membership if it is an alert."""

    chunk: Chunk
    body: bytes
    members: Partition

    @classmethod
    def of(cls, chunk: Chunk) -> "ChunkRows":
        """The rows of a chunk, which takes a moment."""
        stored = Audience() if chunk.kind is ArrivalKind.ALERT else chunk.members
        return cls(chunk, arrival_body(chunk.broadcast_id, chunk.members), stored.partition())


@dataclass(slots=True)
class _MergeArguments:
    """Chunks as the arrays that Postgres takes."""

    chunks: list[tuple[object, ...]] = field(default_factory=list)
    blocks: list[tuple[int, int, bytes]] = field(default_factory=list)
    direct: list[tuple[int, int]] = field(default_factory=list)

    def add(self, rows: ChunkRows) -> None:
        chunk = rows.chunk
        recipients = 0 if chunk.kind is ArrivalKind.ALERT else len(chunk.members)
        self.chunks.append((chunk.broadcast_id, chunk.number, chunk.kind.value, recipients, rows.body))
        place = len(self.chunks)
        self.blocks += [(place, block, bits) for block, bits in rows.members.dense]
        self.direct += [(place, number) for number in rows.members.sparse]

    def columns(self) -> list[list[object]]:
        """The arrays in the order of merge_chunks."""
        return [*_columns(self.chunks, 5), *_columns(self.blocks, 3), *_columns(self.direct, 2)]


class WorkStore:
    """Everybody's inboxes, for what happens to them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def merge(self, chunks: Sequence[ChunkRows], contents: Iterable[Content]) -> list[Merge | None]:
        """Merge chunks in one transaction; None for one that holds somebody who has its broadcast already.

        Chunks of one broadcast must be disjoint. Raises ContentMissing when one is of a broadcast whose content is
        neither kept nor given.
        """
        arguments = _MergeArguments()
        for chunk in chunks:
            arguments.add(chunk)
        given = [content_object(content) for content in contents]
        try:
            rows = await self._database.fetch(QUERIES["merge_chunks"], given or None, *arguments.columns())
        except asyncpg.ForeignKeyViolationError as error:
            raise ContentMissing from error
        return [_merge_of(row) for row in rows]

    async def find_members(self, broadcast_id: UUID, within: Audience | None = None) -> Audience:
        """Who has a broadcast: all of them, or those in the blocks where `within` has somebody."""
        blocks = None if within is None else _blocks(within)
        rows = await self._database.fetch(QUERIES["find_members"], broadcast_id, blocks)
        dense = Audience.from_blocks(
            (row["block"], row["members"]) for row in rows if row["block"] is not None
        )
        return dense | Audience.of(row["recipient_number"] for row in rows if row["block"] is None)

    async def record_receipts(
        self, calls: Sequence[ReceiptCall]
    ) -> tuple[list[list[Recorded] | Repeated], int | None]:
        """Record calls of different recipients in one transaction, unless another node is at the same items just now.

        What became of each call's items, in their order, unless it was answered before; and where the log says so,
        None when nothing is new.
        """
        asked = [
            (place, call.recipient_number, broadcast_id, call.action.value, call.url)
            for place, call in enumerate(calls, 1)
            for broadcast_id in call.broadcast_ids
        ]
        requests = [call.request for call in calls]
        if any(requests):
            rows = await self._database.fetch_retrying(
                QUERIES["record_receipts_once"], *_request_columns(requests), *_columns(asked, 5)
            )
        else:
            rows = await self._database.fetch_retrying(QUERIES["record_receipts"], *_columns(asked, 5))
        left = iter(rows)
        results = [_result_of(call, left) for call in calls]
        return results, next((row["log_position"] for row in rows if row["log_position"] is not None), None)

    async def mark_all_read(
        self, recipient_number: int, request: Request | None
    ) -> tuple[datetime | Repeated, int | None]:
        """Everything that has arrived counts as read, unless the call was answered before.

        Since when it does, and where the log says so; None for nothing new.
        """
        row = await self._database.fetchrow(
            QUERIES["mark_all_read"],
            request and request.caller,
            request and request.method,
            request and request.request_id,
            request and request.body_hash,
            recipient_number,
        )
        if row is None:
            raise LookupError("mark_all_read answers exactly one row")
        result = Repeated(row["response"]) if row["is_repeated"] else row["read_at"]
        return result, row["log_position"]

    async def retract(self, broadcast_id: UUID, *, hide: bool) -> Retraction:
        """Let nothing more of a broadcast arrive, and with `hide` take it out; what had arrived."""
        row = await self._database.fetchrow(QUERIES["retract_broadcast"], broadcast_id, hide)
        if row is None:
            raise LookupError("retract_broadcast answers exactly one row")
        return Retraction(row["arrived"], tuple(row["chunks"]))

    async def apply_team(self, team: Team) -> int:
        """From now on this is the wedding's team, unless a newer one is known; the version that holds."""
        members = team.members.to_list()
        return int(
            await self._database.fetchval(QUERIES["apply_team"], team.wedding_id, team.version, members)
        )

    async def find_team_version(self, wedding_id: UUID) -> int:
        """The version that was applied last; 0 for none."""
        return int(await self._database.fetchval(QUERIES["find_team_version"], wedding_id) or 0)

    async def find_unknown_teams(self, wedding_ids: Iterable[UUID]) -> list[UUID]:
        """Those of the weddings whose team was never applied."""
        rows = await self._database.fetch(QUERIES["find_unknown_teams"], list(wedding_ids))
        return [row["wedding_id"] for row in rows]

    async def find_teams(self, wedding_ids: Iterable[UUID]) -> list[Team]:
        """The teams as they are applied; one that never was is version 0 of nobody."""
        rows = await self._database.fetch(QUERIES["find_teams"], list(wedding_ids))
        return [Team(row["wedding_id"], row["version"], Audience.of(row["members"])) for row in rows]

    async def is_behind_wall(self, recipient_number: int, broadcast_id: UUID) -> bool:
        """Whether there is such a broadcast, and it is about weddings on whose teams this person is not."""
        return bool(await self._database.fetchval(QUERIES["is_behind_wall"], recipient_number, broadcast_id))

    async def find_contents(self, broadcast_ids: Iterable[UUID]) -> list[Content]:
        """What these broadcasts say, those that are known."""
        return [
            content_of(row)
            for row in await self._database.fetch(QUERIES["find_contents"], list(broadcast_ids))
        ]

    async def find_first_arrivals(self, broadcast_ids: Iterable[UUID]) -> dict[UUID, datetime]:
        """When the first item of each of these broadcasts arrived."""
        rows = await self._database.fetch(QUERIES["find_first_arrivals"], list(broadcast_ids))
        return {row["broadcast_id"]: row["arrived_at"] for row in rows}

    async def find_numbers(self, user_ids: Iterable[UUID]) -> dict[UUID, int]:
        """The numbers of users, those that are known."""
        rows = await self._database.fetch(QUERIES["find_numbers"], list(user_ids))
        return {row["user_id"]: row["number"] for row in rows}

    async def keep_numbers(self, numbers: dict[UUID, int]) -> None:
        """Remember users' numbers for good."""
        await self._database.execute(QUERIES["keep_numbers"], list(numbers), list(numbers.values()))

    async def count_engagement(self, broadcast_ids: Sequence[UUID]) -> list[Engagement]:
        """How many people did what, in the order of the ids; zeros for an unknown one."""
        rows = await self._database.fetch(QUERIES["count_engagement"], broadcast_ids)
        return [_engagement(row) for row in rows]

    async def count_engagement_until(
        self, broadcast_ids: Sequence[UUID], until: datetime
    ) -> list[Engagement]:
        """The same as it was just before a moment, with how long readers took."""
        rows = await self._database.fetch(QUERIES["count_engagement_until"], broadcast_ids, until)
        return [
            replace(_engagement(row), time_to_read=timedelta(microseconds=row["time_to_read_us"]))
            for row in rows
        ]

    async def find_readers(self, broadcast_id: UUID, among: Audience) -> Audience:
        """Those of some recipients who have read a broadcast."""
        rows = await self._database.fetch(QUERIES["find_readers"], broadcast_id, _blocks(among))
        return Audience.of(row["number"] for row in rows) & among


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as arrays, one a column."""
    return [[row[column] for row in rows] for column in range(width)]


def _engagement(row: Row) -> Engagement:
    return Engagement(
        delivered=row["delivered"],
        read=row["read"],
        acknowledged=row["acknowledged"],
        dismissed=row["dismissed"],
        clicked=row["clicked"],
        cleaned_at=row["cleaned_at"],
    )


def _blocks(audience: Audience) -> list[int]:
    return [block for block, _ in audience.split_blocks()]


def _merge_of(row: Row) -> Merge | None:
    if row["outcome"] == "overlapping":
        return None
    return Merge(row["outcome"] == "merged", row["at_position"] or 0, row["at"])


def _request_columns(requests: Sequence[Request | None]) -> list[list[Any]]:
    """Callers, methods, ids and bodies, with nulls for calls without an id."""
    return [
        [request and request.caller for request in requests],
        [request and request.method for request in requests],
        [request and request.request_id for request in requests],
        [request and request.body_hash for request in requests],
    ]


def _result_of(call: ReceiptCall, left: Iterator[Row]) -> list[Recorded] | Repeated:
    """What the next rows say of a call: one a broadcast, or one in all when it was answered before."""
    first = next(left)
    if first["outcome"] == ReceiptOutcome.REPEATED:
        return Repeated(first["response"])
    rows = (first, *islice(left, len(call.broadcast_ids) - 1))
    return [_recorded_of(*each) for each in zip(call.broadcast_ids, rows, strict=True)]


def _recorded_of(broadcast_id: UUID, row: Row) -> Recorded:
    return Recorded(
        ReceiptOutcome(row["outcome"]),
        receipt_of(broadcast_id, row),
        row["is_critical"],
        row["is_cause"],
        row["newly_acknowledged"],
    )


def content_object(content: Content) -> dict[str, object]:
    """A content as keep_contents takes it."""
    action, wedding = content.action, content.wedding
    return {
        "broadcast_id": str(content.broadcast_id),
        "type": content.type,
        "category": content.category,
        "priority": content.priority,
        "title": content.title,
        "message": content.message,
        "action_label": action and action.label,
        "action_url": action and action.url,
        "wedding_id": wedding and str(wedding.wedding_id),
        "couple_name": wedding and wedding.couple_name,
        "wedding_date": wedding and wedding.wedding_date and wedding.wedding_date.isoformat(),
        "wall": [str(wedding_id) for wedding_id in content.wall or (EVERYBODY,)],
        "expires_at": content.expires_at and content.expires_at.isoformat(),
        "words": words_of((content.title, content.message)),
    }
