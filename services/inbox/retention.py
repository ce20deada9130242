"""Owns forgetting: what leaves inboxes and when, what of it stays for good, and how far back the log goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self
from uuid import UUID

from services.inbox.domain import EVERYBODY
from services.inbox.store import QUERIES, SCHEMA
from services.inbox.waking import Waking
from services.inbox.work_store import WorkStore
from shared import cleaning, replays
from shared.audience import Audience
from shared.cleaning import Batch, Cleaner, Hasty, RowChore
from shared.clock import Clock
from shared.database import Database
from shared.ordered_log import OrderedLog
from shared.settings import Environment

# Longer than any call takes that saw an item before it left.
_TEXTS_KEPT_FOR: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How long items stay after they have arrived, by whether they have expired; how far back the log goes."""

    items: timedelta
    expired: timedelta
    log: timedelta
    interval_s: float

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Reads the INBOX_RETENTION_ settings, and INBOX_LOG_RETENTION_S."""
        # How far back a stream can go on from: long enough for a phone that was off over the weekend.
        log_s = env.seconds("INBOX_LOG_RETENTION_S", 7 * 86_400, least=60, most=90 * 86_400)
        return cls(
            items=cleaning.days(env, "INBOX_RETENTION_ITEM_DAYS", 90),
            # Nobody sees these; they go by the time that the sender forgets their broadcast.
            expired=cleaning.days(env, "INBOX_RETENTION_EXPIRED_DAYS", 30),
            log=timedelta(seconds=log_s),
            interval_s=cleaning.interval_s(env, "INBOX"),
        )


class Leaving:
    """Broadcasts whose time in inboxes is over. Taking one out is seen at once, like a cancel's; its rows go later."""

    what = "broadcasts"

    def __init__(self, worked: Database, store: WorkStore, waking: Waking, terms: RetentionTerms) -> None:
        self.kept_for = terms.items
        self._worked = worked
        self._store = store
        self._waking = waking
        self._terms = (terms.items, terms.expired)

    async def count(self) -> int:
        """How many are to leave."""
        return int(await self._worked.fetchval(QUERIES["count_leaving"], *self._terms))

    async def remove(self, hasty: Hasty, size: int) -> Batch:
        """Take one out: everybody's lists, counts and streams wait for the place in the log that it is given."""
        leaving = await self._worked.fetchrow(QUERIES["find_next_leaving"], *self._terms)
        if leaving is None:
            return Batch(0, is_last=True)
        broadcast_id: UUID = leaving["broadcast_id"]
        seeing = await self._seeing(broadcast_id, leaving["wall"]) if leaving["is_shown"] else Audience()
        done = await hasty.run(QUERIES["take_out"], broadcast_id, seeing.to_bytes(), *self._terms)
        await self._waking.announce()
        return done

    async def list_shown(self, broadcast_ids: Sequence[UUID], *, after_clean_up: bool) -> list[UUID]:
        """Those of these that somebody's inbox shows; `after_clean_up` leaves out those that are to leave."""
        rows = await self._worked.fetch(QUERIES["find_shown"], broadcast_ids, after_clean_up, *self._terms)
        return [row["broadcast_id"] for row in rows]

    async def _seeing(self, broadcast_id: UUID, wall: Sequence[UUID]) -> Audience:
        """Those who have it in their lists. Its wall may be forgotten by the time that the log is read."""
        members = await self._store.find_members(broadcast_id)
        if EVERYBODY in wall:
            return members
        return members & Audience.union_of(team.members for team in await self._store.find_teams(wall))


def own_cleaner(
    worked: Database, worker_url: str, leaving: Leaving, terms: RetentionTerms, clock: Clock
) -> Cleaner:
    """What removes, in this order, what the inbox keeps; `worker_url` is where `worked` leads.

    Texts come first, so that they are those of an earlier run, and marks behind the items that they are about.
    """
    both = (terms.items, terms.expired)
    texts = RowChore(
        "texts", terms.items, worked, QUERIES["count_emptied_texts"], QUERIES["remove_emptied_texts"],
        counted_by=(_TEXTS_KEPT_FOR,), removed_by=(_TEXTS_KEPT_FOR,),
    )  # fmt: skip
    items = RowChore(
        "items", terms.items, worked, QUERIES["count_leaving_items"], QUERIES["empty_broadcasts"],
        counted_by=both, removed_by=(),
    )  # fmt: skip
    marks = RowChore(
        "all-read marks", terms.items, worked, QUERIES["count_old_marks"], QUERIES["remove_old_marks"],
        counted_by=both, removed_by=(),
    )  # fmt: skip
    requests, log = replays.retention(worked, SCHEMA), OrderedLog(worked, SCHEMA).retention(terms.log)
    chores = (texts, leaving, items, marks, requests, log)
    return Cleaner(chores, cleaning.opening(worker_url, SCHEMA), clock, terms.interval_s)
