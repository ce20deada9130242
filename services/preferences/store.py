"""Owns the preferences service's tables: one method a query, or a few that take effect together."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
from wedsync.broadcast.v1.events_pb2 import DirectoryChanged

from services.preferences.changes import ChangeKind, Entry, recipients_changed, weddings_changed
from services.preferences.directory import (
    KnownPerson,
    PeopleWritten,
    Person,
    Reach,
    Team,
    TeamWritten,
    WeddingDetails,
    WeddingsWritten,
    require_admin_right,
    require_known,
)
from services.preferences.index import FilterGroup, PeopleGroups
from services.preferences.presets import PersonalPreferences
from services.preferences.rows import (
    from_personal,
    to_filter_group,
    to_known_person,
    to_people_groups,
    to_personal,
    to_segment_entry,
    to_wedding_entry,
)
from services.preferences.segments import SegmentEntry
from services.preferences.weddings import WeddingEntry
from shared import subjects
from shared.audience import Audience
from shared.database import Database, Queryable, Transaction
from shared.errors import NotFound
from shared.ordered_log import OrderedLog
from shared.outbox import Outbox, OutboxEntry
from shared.queries import load
from shared.replays import Answer, Request
from shared.served_log import ServedLog

SCHEMA: Final = "preferences"
PEOPLE_PAGE: Final = 65_536
"""Recipient numbers read at once: a container of the bitmaps that they end up in, and a fraction of a second."""

# The inbox was asked already, and where it could not be reached, what is not for them is on somebody's screen.
_TEAM_RANK: Final = subjects.rank("critical")
_WEDDINGS_PAGE: Final = 5_000
_SETTINGS_OF_SOMEBODY: Final = "preferences_of_somebody"
_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, slots=True)
class Edit:
    """One person's preferences before and after an edit or a reset, and when; the same when it changes nothing."""

    number: int
    before: PersonalPreferences
    after: PersonalPreferences
    at: datetime
    entries: Sequence[Entry] = ()

    @property
    def is_change(self) -> bool:
        """Whether anything is to be saved."""
        return self.after.version != self.before.version


def served_log() -> ServedLog:
    """The log to which this process' connections must lead: what it holds in memory is good for that one alone."""
    return ServedLog("The directory", _QUERIES["find_log_identity"])


class PersonalStore:
    """What people do in their own name, as the login under personal policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_preferences(self, number: int) -> tuple[PersonalPreferences, datetime] | None:
        """A person's preferences as they apply, and the time now; None for somebody unknown or erased."""
        row = await self._database.fetchrow(_QUERIES["read_preferences"], number)
        return (to_personal(row), row["read_at"]) if row is not None else None

    async def save_preferences(self, edit: Edit, request: Request | None, response: bytes) -> bool | Answer:
        """Keep an edit with its log entries and what it is answered; False when another edit came first.

        Nothing is kept when the request_id was taken before: then what it was answered. Raises NotFound when its person
        was erased meanwhile.
        """
        try:
            row = await self._database.fetchrow(
                _QUERIES["save_preferences"],
                request and request.caller,
                request and request.method,
                request and request.request_id,
                request and request.body_hash,
                response,
                edit.at,
                edit.number,
                edit.before.version if edit.is_change else None,
                *from_personal(edit.after),
                [kind for kind, _ in edit.entries],
                [body for _, body in edit.entries],
            )
        except asyncpg.CheckViolationError as error:
            if error.constraint_name != _SETTINGS_OF_SOMEBODY:
                raise
            raise NotFound("The directory does not know you.") from error
        if row is None:
            raise LookupError("save_preferences answers exactly one row")
        if row["known_body_hash"] is not None:
            return Answer(row["known_body_hash"], row["known_response"])
        return bool(row["is_kept"])

    async def list_weddings(self, number: int) -> list[UUID]:
        """The weddings on whose team a person is."""
        async with self._database.as_recipient(number) as transaction:
            rows = await transaction.fetch(_QUERIES["list_own_weddings"], number)
        return [row["wedding_id"] for row in rows]

    async def find_person(self, caller: int | None, reach: Reach, user_id: UUID) -> KnownPerson | None:
        """Somebody as the caller may see them; None for those they may not see. `caller` is None for services."""
        row = await self._database.fetchrow(_QUERIES["find_recipient"], caller, reach, user_id)
        return to_known_person(row) if row is not None else None


class IndexStore:
    """What the set indexes are read from, as the worker."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_numbers(self, user_ids: Collection[UUID]) -> dict[UUID, int]:
        """The numbers of those of these users whom the directory knows; not of those who are erased."""
        return await _find_numbers(self._database, user_ids)

    async def find_names(self, numbers: Collection[int]) -> dict[int, tuple[UUID, str]]:
        """The user ids and names of those of these numbers whom the directory knows."""
        rows = await self._database.fetch(_QUERIES["find_names"], list(numbers))
        return {row["number"]: (row["user_id"], row["display_name"]) for row in rows}

    async def list_weddings_of(self, number: int) -> list[UUID]:
        """The weddings on whose team somebody is."""
        rows = await self._database.fetch(_QUERIES["list_own_weddings"], number)
        return [row["wedding_id"] for row in rows]

    async def find_last_number(self) -> int:
        """The highest recipient number; 0 when there is nobody."""
        return int(await self._database.fetchval(_QUERIES["find_last_number"]))

    async def list_people(self, start: int, stop: int) -> PeopleGroups:
        """Those with a number from `start` up to, and without, `stop`."""
        return to_people_groups(await self._database.fetch(_QUERIES["list_people"], start, stop))

    async def find_people(self, numbers: Audience) -> PeopleGroups:
        """These people."""
        return to_people_groups(await self._database.fetch(_QUERIES["find_people"], numbers.to_list()))

    async def list_weddings(self) -> AsyncIterator[list[WeddingEntry]]:
        """All weddings with their teams, in pages."""
        last: UUID | None = None
        while True:
            rows = await self._database.fetch(_QUERIES["list_weddings_after"], last, _WEDDINGS_PAGE)
            if not rows:
                return
            last = rows[-1]["wedding_id"]
            yield [to_wedding_entry(row) for row in rows]

    async def find_weddings(self, wedding_ids: Collection[UUID]) -> list[WeddingEntry]:
        """Those of these weddings that there are, with their teams."""
        rows = await self._database.fetch(_QUERIES["find_weddings"], list(wedding_ids))
        return [to_wedding_entry(row) for row in rows]

    async def find_filters(self, wedding_ids: Collection[UUID]) -> list[FilterGroup]:
        """What people have set for these weddings."""
        rows = await self._database.fetch(_QUERIES["find_filters"], list(wedding_ids))
        return [to_filter_group(row) for row in rows]

    async def list_segments(self) -> list[SegmentEntry]:
        """All segments; there are few."""
        return [
            to_segment_entry(row) for row in await self._database.fetch(_QUERIES["list_segment_criteria"])
        ]

    async def find_segments(self, segment_ids: Collection[UUID]) -> list[SegmentEntry]:
        """Those of these segments that there are."""
        rows = await self._database.fetch(_QUERIES["find_segment_criteria"], list(segment_ids))
        return [to_segment_entry(row) for row in rows]


class DirectoryStore:
    """Changes of the directory, as the worker: each takes its place in the log last in the transaction it is given.

    `actor` is who is on record for a change: a user id, or the name of a service account.
    """

    def __init__(self, database: Database, log: OrderedLog, outbox: Outbox) -> None:
        self._database = database
        self._log = log
        self._outbox = outbox

    async def upsert_people(
        self, transaction: Transaction, actor: str, people: Sequence[Person], *, may_change_admins: bool
    ) -> PeopleWritten:
        """Add or alter people, all or none; nothing that is said of the erased counts. Raises PermissionDenied."""
        await self.take_turn(transaction, actor)
        user_ids = [person.user_id for person in people]
        found = await transaction.fetch(_QUERIES["find_roles"], user_ids)
        roles = {row["user_id"]: row["role"] for row in found}
        erased = await _find_erased(transaction, set(user_ids) - roles.keys())
        require_admin_right(
            (person for person in people if person.user_id not in erased),
            roles,
            may_change_admins=may_change_admins,
        )
        rows = await transaction.fetch(_QUERIES["upsert_recipients"], *_columns(people))
        changed = [row["number"] for row in rows if row["is_added"] or row["is_altered"]]
        version = await self.append(transaction, [recipients_changed(changed)] if changed else [])
        numbers = tuple(row["number"] for row in rows)
        return PeopleWritten(numbers, sum(row["is_added"] for row in rows), version)

    async def upsert_weddings(
        self, transaction: Transaction, actor: str, weddings: Sequence[WeddingDetails]
    ) -> WeddingsWritten:
        """Add or alter weddings, all or none; their teams stay."""
        await self.take_turn(transaction, actor)
        rows = await transaction.fetch(_QUERIES["upsert_weddings"], *_columns(weddings))
        changed = [row["wedding_id"] for row in rows]
        entries = [weddings_changed(ChangeKind.WEDDINGS, changed)] if changed else []
        version = await self.append(transaction, entries)
        return WeddingsWritten(sum(row["is_added"] for row in rows), version)

    async def set_team(
        self, transaction: Transaction, actor: str, wedding_id: UUID, user_ids: Sequence[UUID]
    ) -> TeamWritten:
        """Make these users a wedding's whole team but for the erased, and have the inbox told when that changes it.

        One who is there twice is on it once.
        Raises NotFound for the wedding, InvalidField for users whom the directory has never known.
        """
        await self.take_turn(transaction, actor)
        version = await transaction.fetchval(_QUERIES["find_team_version"], wedding_id)
        if version is None:
            raise NotFound("There is no such wedding.")
        numbers = await _find_numbers(transaction, user_ids)
        erased = await _find_erased(transaction, set(user_ids) - numbers.keys())
        require_known(user_ids, numbers.keys() | erased)
        row = await transaction.fetchrow(_QUERIES["replace_team"], wedding_id, sorted(numbers.values()))
        added, removed = (row["added"], row["removed"]) if row is not None else (0, 0)
        if added or removed or version == 0:
            version = (await self.raise_teams(transaction, [wedding_id]))[wedding_id]
            await self.append(transaction, [weddings_changed(ChangeKind.TEAM, [wedding_id])])
        return TeamWritten(version, added, removed)

    async def find_team(self, wedding_id: UUID) -> Team:
        """A wedding's team as it is now. Raises NotFound."""
        row = await self._database.fetchrow(_QUERIES["find_team"], wedding_id)
        if row is None:
            raise NotFound("There is no such wedding.")
        return Team(row["team_version"], tuple(row["members"]))

    async def unsettled_teams(self, older_than_s: float) -> list[tuple[UUID, int]]:
        """Weddings with the versions of their teams that were set longer ago, and that the inbox has not confirmed."""
        rows = await self._database.fetch(_QUERIES["find_unsettled_teams"], older_than_s)
        keys = (row["key"].split(":") for row in rows)
        return [(UUID(wedding_id), int(version)) for wedding_id, version in keys]

    async def settle_team(self, wedding_id: UUID, version: int) -> None:
        """The inbox has confirmed this version of a team."""
        await self._outbox.settle(self._database, _team_key(wedding_id, version))

    async def take_turn(self, transaction: Transaction, actor: str) -> None:
        """Let nobody else change the directory until the transaction ends."""
        await transaction.execute(_QUERIES["take_directory_turn"], actor)

    async def raise_teams(
        self, transaction: Transaction, wedding_ids: Collection[UUID]
    ) -> Mapping[UUID, int]:
        """Raise the versions of teams that have changed, and tell everybody who follows; the versions.

        The log, which is last, is left to the caller.
        """
        rows = await transaction.fetch(_QUERIES["raise_team_versions"], list(wedding_ids))
        versions = {row["wedding_id"]: int(row["team_version"]) for row in rows}
        await self._outbox.add_many(transaction, [_team_told(*each) for each in versions.items()])
        return versions

    async def append(self, transaction: Transaction, entries: Sequence[Entry]) -> int:
        """Add to the log, last in the transaction; where it ends, also when there is nothing to add."""
        return await self._log.append_many(transaction, entries)


def _team_told(wedding_id: UUID, version: int) -> OutboxEntry:
    payload = DirectoryChanged(wedding_id=str(wedding_id), team_version=version).SerializeToString()
    return OutboxEntry(
        subjects.DIRECTORY_CHANGED,
        payload,
        _TEAM_RANK,
        key=_team_key(wedding_id, version),
        settle="report",
    )


def _team_key(wedding_id: UUID, version: int) -> str:
    return f"{wedding_id}:{version}"


async def _find_numbers(database: Queryable, user_ids: Collection[UUID]) -> dict[UUID, int]:
    rows = await database.fetch(_QUERIES["find_numbers"], list(user_ids))
    return {row["user_id"]: row["number"] for row in rows}


async def _find_erased(database: Queryable, user_ids: Collection[UUID]) -> set[UUID]:
    """Those of these users, whom the directory does not know, whom it knew until they were erased."""
    if not user_ids:
        return set()
    return {row["user_id"] for row in await database.fetch(_QUERIES["find_erased"], list(user_ids))}


def _columns(entries: Iterable[Person] | Iterable[WeddingDetails]) -> list[list[object]]:
    """A list for each field: as `unnest` takes them."""
    return [list(column) for column in zip(*map(astuple, entries), strict=True)]
