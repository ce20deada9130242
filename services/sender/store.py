"""Owns the sender's tables: one method a query; rows in, domain values out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from services.sender.domain import (
    TYPES,
    Action,
    Author,
    Broadcast,
    Cancellation,
    Content,
    Decision,
    Priority,
    State,
    Targeting,
    Wedding,
    states_before,
)
from services.sender.filters import Filter, Place
from services.sender.limits import Limit, Quota, Standing, Tally
from services.sender.messages import due_payload, quota_part
from services.sender.rights import Caller, shown_to
from shared.database import Database, Row
from shared.queries import load
from shared.replays import Answer, Request
from shared.subjects import broadcast_due

SCHEMA: Final = "sender"
_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class Counted:
    """Whether a send was counted, and so accepted, and how its limit stands by then."""

    is_accepted: bool
    standing: Standing


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Where a broadcast stands after it was told to end, and whether that moved it."""

    state: State
    has_moved: bool


class CallStore:
    """What a call may see and do in its caller's name, as the login under personal policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def accept(
        self, broadcast: Broadcast, request: Request | None, method: str, response: bytes, limit: Limit
    ) -> Answer | Counted:
        """Count a broadcast and keep it with its wall, outbox row and answer, if the limit has room for it.

        Or else the answer that its request_id has already.
        """
        content = broadcast.content
        try:
            (row,) = await self._database.fetch(
                _QUERIES["accept_broadcast"],
                broadcast.author.name,
                broadcast.author.is_service,
                method,
                request and request.request_id,
                request and request.body_hash,
                response,
                broadcast.broadcast_id,
                *_content_values(content),
                content.wall,
                content.scheduled_for,
                content.expires_at,
                broadcast.created_at,
                broadcast.targeted,
                broadcast_due(content.priority.slug),
                due_payload(broadcast),
                content.scheduled_for <= broadcast.created_at,
                broadcast.state,
                limit.hour,
                limit.day,
            )
        except asyncpg.UniqueViolationError:
            # Another call had the same id at the same time for something that is counted elsewhere.
            earlier = await self.find_answer(request) if request else None
            if earlier is None:
                raise
            return earlier
        if row["is_counted"] is None:
            return _replayed(row)
        return Counted(row["is_counted"], _standing(row, limit))

    async def find_standing(self, tally: Tally, limit: Limit) -> Standing:
        """How a limit stands."""
        (row,) = await self._database.fetch(
            _QUERIES["find_standing"],
            tally.author.name,
            tally.type,
            tally.priority,
            tally.wedding_id,
            limit.hour,
            limit.day,
        )
        return _standing(row, limit)

    async def find_count_identity(self) -> UUID:
        """Which counts these are."""
        identity: UUID = await self._database.fetchval(_QUERIES["find_count_identity"])
        return identity

    async def find_answer(self, request: Request) -> Answer | None:
        """The first answer to a request_id, None for a new one."""
        row = await self._database.fetchrow(
            _QUERIES["find_request"], request.caller, request.method, request.request_id
        )
        return None if row is None else _replayed(row)

    async def remember_answer(self, request: Request, response: bytes) -> Answer | None:
        """Keep the answer to a request_id; the one that stands, which another call may have kept before."""
        row = await self._database.fetchrow(
            _QUERIES["remember_request"],
            request.caller,
            request.method,
            request.request_id,
            request.body_hash,
            response,
        )
        return None if row is None else Answer(row["known_body_hash"], row["known_response"])

    async def find_wall(self, broadcast_id: str) -> tuple[str, ...]:
        """The weddings that bound a broadcast's audience; none for one that does not exist."""
        rows = await self._database.fetch(_QUERIES["find_wall"], broadcast_id)
        return tuple(str(row["wedding_id"]) for row in rows)

    async def find_visible(self, caller: Caller, broadcast_id: str) -> Broadcast | None:
        """A broadcast, None when it is not there or not this caller's to see."""
        row = await self._database.fetchrow(
            _QUERIES["find_visible_broadcast"],
            caller.author.name,
            caller.reads_all,
            caller.team_weddings,
            broadcast_id,
        )
        return None if row is None else shown_to(caller, _broadcast(row))

    async def list_visible(
        self, caller: Caller, wanted: Filter, after: Place | None, count: int
    ) -> list[Broadcast]:
        """Up to `count` broadcasts that are this caller's to see, newest first, from the one that follows `after`."""
        rows = await self._database.fetch(
            _QUERIES["list_visible_broadcasts"],
            caller.author.name,
            caller.reads_all,
            caller.team_weddings,
            wanted.states or None,
            wanted.types,
            wanted.priorities or None,
            wanted.created_by or None,
            wanted.wedding_id,
            wanted.created.start,
            wanted.created.end,
            wanted.due.start,
            wanted.due.end,
            after and after.created_at,
            after and after.broadcast_id,
            count,
        )
        return [shown_to(caller, _broadcast(row)) for row in rows]

    async def request_cancel(self, caller: Caller, broadcast_id: str, reason: str, *, retract: bool) -> bool:
        """Note that a broadcast is to be stopped; False when it is not the caller's to stop, or has ended otherwise."""
        return bool(
            await self._database.fetchval(
                _QUERIES["request_cancel"],
                caller.author.name,
                caller.is_admin,
                broadcast_id,
                [*states_before(State.CANCELLED), State.CANCELLED],
                reason,
                retract,
            )
        )


class DispatchStore:
    """What carries any broadcast through its states, as the worker's login."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, broadcast_id: str) -> Broadcast | None:
        """A broadcast, None when there is none."""
        row = await self._database.fetchrow(_QUERIES["find_broadcast"], broadcast_id)
        return None if row is None else _broadcast(row)

    async def count_segment_uses(self, segment_id: str) -> int:
        """How many broadcasts are still to go out to a segment."""
        return int(await self._database.fetchval(_QUERIES["count_segment_uses"], segment_id))

    async def begin_dispatch(self, broadcast_id: str, wedding: Wedding | None) -> bool:
        """Move to dispatching with the facts of its wedding; False when it may not go there from where it is."""
        state = await self._database.fetchval(
            _QUERIES["begin_dispatch"],
            broadcast_id,
            states_before(State.DISPATCHING),
            wedding and wedding.couple_name,
            wedding and wedding.wedding_date,
        )
        return state is not None

    async def conclude(
        self, broadcast_id: str, before: Sequence[State], state: State, at: datetime, error: str = ""
    ) -> Conclusion | None:
        """End dispatching in `state`, from one of the states `before`; None when there is no such broadcast."""
        row = await self._database.fetchrow(
            _QUERIES["conclude_broadcast"], broadcast_id, before, state, at, error
        )
        return None if row is None else Conclusion(State(row["present"]), row["has_moved"])

    async def decide(self, broadcast: Broadcast, by: Author, state: State, reason: str) -> bool:
        """Move what waits for approval to `state`; False when it does not wait any more."""
        return bool(
            await self._database.fetchval(
                _QUERIES["decide_broadcast"],
                by.name,
                broadcast.broadcast_id,
                states_before(state),
                state,
                reason,
                broadcast_due(broadcast.content.priority.slug),
                due_payload(broadcast),
            )
        )

    async def finish_cancel(
        self, broadcast_id: str, *, stopped: int, already_sent: int, retracted: bool
    ) -> bool:
        """End a cancel that was asked for; False when the broadcast came to another end meanwhile."""
        return bool(
            await self._database.fetchval(
                _QUERIES["finish_cancel"],
                broadcast_id,
                states_before(State.CANCELLED),
                stopped,
                already_sent,
                retracted,
            )
        )

    async def count_waiting(self) -> dict[Priority, int]:
        """How many broadcasts are due and have not come to their end, by priority."""
        rows = await self._database.fetch(_QUERIES["count_waiting"])
        return {Priority(row["rank"] + 1): row["waiting"] for row in rows}

    async def unfinished_cancels(self, older_than_s: float, limit: int) -> list[str]:
        """Broadcasts whose cancel was asked for that long ago and is not finished."""
        rows = await self._database.fetch(_QUERIES["list_unfinished_cancels"], older_than_s, limit)
        return [str(row["broadcast_id"]) for row in rows]


def _replayed(row: Row) -> Answer:
    """An answer with the quota that it was given with: serialised messages, one after the other, are one."""
    response: bytes = row["known_response"]
    if row["hour_limit"] is not None:
        limit = Limit(row["hour_limit"], row["day_limit"])
        response += quota_part(Quota(limit, row["hour_used"], row["day_used"], row["reset_time"]))
    return Answer(row["known_body_hash"], response)


def _standing(row: Row, limit: Limit) -> Standing:
    quota = Quota(limit, row["hour_used"], row["day_used"], row["reset_time"])
    return Standing(quota, row["counted_at"], row["request_ids"] or b"")


def _content_values(content: Content) -> tuple[object, ...]:
    """The columns from `type` to `wedding_date`."""
    targeting, wedding = content.targeting, content.wedding
    return (
        content.type.name,
        content.priority,
        content.title,
        content.message,
        content.action and content.action.label,
        content.action and content.action.url,
        targeting.everyone,
        targeting.user_ids,
        targeting.roles,
        targeting.tiers,
        targeting.segment_ids,
        targeting.wedding_ids,
        wedding and wedding.wedding_id,
        wedding.couple_name if wedding else "",
        wedding and wedding.wedding_date,
    )


def _broadcast(row: Row) -> Broadcast:
    return Broadcast(
        broadcast_id=str(row["broadcast_id"]),
        content=_content(row),
        author=Author(row["created_by"], row["created_by_service"]),
        created_at=row["created_at"],
        targeted=row["targeted"],
        state=State(row["state"]),
        sent_at=row["sent_at"],
        failed_at=row["failed_at"],
        error=row["error"],
        is_being_cancelled=row["cancel_requested_at"] is not None,
        is_to_be_retracted=row["retract"],
        cancellation=_cancellation(row),
        decision=_decision(row),
    )


def _content(row: Row) -> Content:
    return Content(
        type=TYPES[row["type"]],
        priority=Priority(row["priority"]),
        title=row["title"],
        message=row["message"],
        targeting=_targeting(row),
        scheduled_for=row["scheduled_for"],
        action=Action(row["action_label"], row["action_url"]) if row["action_label"] is not None else None,
        wedding=_wedding(row),
        expires_at=row["expires_at"],
    )


def _targeting(row: Row) -> Targeting:
    return Targeting(
        everyone=row["everyone"],
        user_ids=tuple(map(str, row["user_ids"])),
        roles=tuple(row["roles"]),
        tiers=tuple(row["tiers"]),
        segment_ids=tuple(map(str, row["segment_ids"])),
        wedding_ids=tuple(map(str, row["wedding_ids"])),
    )


def _wedding(row: Row) -> Wedding | None:
    if row["wedding_id"] is None:
        return None
    return Wedding(str(row["wedding_id"]), row["couple_name"], row["wedding_date"])


def _cancellation(row: Row) -> Cancellation | None:
    if row["cancelled_at"] is None:
        return None
    return Cancellation(
        at=row["cancelled_at"],
        reason=row["cancel_reason"],
        stopped=row["stopped"],
        already_sent=row["already_sent"],
        retracted=row["retracted"],
    )


def _decision(row: Row) -> Decision | None:
    if row["decided_at"] is None:
        return None
    return Decision(row["decided_by"], row["decided_at"], row["decision_reason"])
