"""Owns the rows about who is exported and erased: what is about one person here, and who is still to remove them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from services.preferences.changes import ChangeKind, Entry, recipients_changed, weddings_changed
from services.preferences.store import DirectoryStore
from shared.database import Database, Row, Transaction
from shared.errors import NotFound
from shared.queries import load

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))
_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Erasure:
    """A service that is to remove somebody; `user_id` is whose number it was."""

    number: int
    user_id: UUID
    service: str


class ErasureStore:
    """Erasing people, as the worker."""

    def __init__(self, database: Database, directory: DirectoryStore) -> None:
        self._database = database
        self._directory = directory

    async def erase(
        self, transaction: Transaction, actor: str, user_id: UUID, services: Sequence[str]
    ) -> datetime:
        """Take somebody off their teams and remove all that is about them here, with what `services` are to do.

        Since when they are gone. Raises NotFound for who is unknown or erased.
        """
        await self._directory.take_turn(transaction, actor)
        number = await transaction.fetchval(_QUERIES["find_number_to_erase"], user_id)
        if number is None:
            raise NotFound("There is no such recipient, or it is not yours to see.")
        await transaction.execute(_QUERIES["take_turn_of_person"], number)
        left = [row["wedding_id"] for row in await transaction.fetch(_QUERIES["leave_teams"], number)]
        erased = await transaction.fetchrow(_QUERIES["erase_recipient"], number, services)
        if erased is None:
            raise LookupError("erase_recipient answers exactly one row")
        entries: list[Entry] = [recipients_changed([number])]
        if left:
            await self._directory.raise_teams(transaction, left)
            entries.append(weddings_changed(ChangeKind.TEAM, left))
        if erased["filtered"]:
            entries.append(weddings_changed(ChangeKind.FILTERS, erased["filtered"]))
        await self._directory.append(transaction, entries)
        since: datetime = erased["erased_at"]
        return since

    async def forget_answers(self, user_id: UUID) -> None:
        """Remove what somebody was answered, but for their erasure itself."""
        await self._database.execute(_QUERIES["forget_answers_of"], str(user_id))

    async def due(self, service: str) -> list[Erasure]:
        """The next that a service is to be told of, those that have waited longest first."""
        rows = await self._database.fetch(_QUERIES["list_due_erasures"], service, _AT_ONCE)
        return [_erasure(row) for row in rows]

    async def unconfirmed(self, user_id: UUID) -> list[Erasure]:
        """Those that have not confirmed yet that this person is gone."""
        rows = await self._database.fetch(_QUERIES["list_first_erasures"], user_id)
        return [_erasure(row) for row in rows]

    async def confirm(self, erasure: Erasure, repeat_s: float) -> None:
        """It is done: for the first time, so that it is due once more after `repeat_s`, or for the second."""
        await self._database.execute(_QUERIES["confirm_erasure"], erasure.number, erasure.service, repeat_s)

    async def postpone(self, erasure: Erasure, retry_s: float) -> None:
        """It is not done: to be told again after `retry_s`, unless by now that is to be later."""
        await self._database.execute(_QUERIES["postpone_erasure"], erasure.number, erasure.service, retry_s)


class RecordStore:
    """What is written down about what somebody did, as the worker."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_audit_events(self, user_id: UUID) -> list[Row]:
        """What the audit log has not been told yet of what they did, or what was done to them."""
        return await self._database.fetch(_QUERIES["list_audit_events_about"], user_id)

    async def list_answers(self, user_id: UUID) -> list[Row]:
        """Which calls of theirs are remembered."""
        return await self._database.fetch(_QUERIES["list_answers_of"], str(user_id))


def _erasure(row: Row) -> Erasure:
    return Erasure(row["number"], row["user_id"], row["service"])
