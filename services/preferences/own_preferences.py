"""Owns what people do with their own preferences: see them, and edit them without losing anybody else's edit."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog

from services.preferences.changes import ChangeKind, Entry, recipients_changed, weddings_changed
from services.preferences.editing import GivenPreferences, changed_weddings, edit, require_reach
from services.preferences.keeper import IndexKeeper
from services.preferences.presets import PersonalPreferences, Preferences
from services.preferences.store import PersonalStore
from shared.errors import NotFound, StaleEtag

log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5


class OwnPreferences:
    """Every method is about the user who calls."""

    def __init__(self, store: PersonalStore, keeper: IndexKeeper) -> None:
        self._store = store
        self._keeper = keeper

    async def get(self, user_id: UUID) -> PersonalPreferences:
        """Their preferences as they apply. Raises NotFound when the directory does not know them."""
        return await self._find(await self._number(user_id))

    async def update(
        self, user_id: UUID, given: GivenPreferences, paths: Sequence[str], etag: str
    ) -> PersonalPreferences:
        """Change what `paths` name; with an etag, only if it is still theirs.

        Raises NotFound, InvalidField, OutsideReach, StaleEtag.
        """
        number = await self._number(user_id)
        for _ in range(_ATTEMPTS):
            current = await self._find(number)
            if etag and etag != current.etag:
                raise StaleEtag
            edited = edit(current.values, given, paths)
            if edited == current.values:
                return current
            await self._check_filters(number, current.values, edited)
            entries = _log_entries(number, current.values, edited)
            if await self._store.save_preferences(number, current.version, edited, entries):
                log.info(
                    "preferences_changed",
                    recipient_number=number,
                    fields=sorted(set(paths)),
                    first_edit=not current.is_edited,
                )
                return await self._find(number)
        raise StaleEtag("Others keep changing these preferences; try again.")

    async def _check_filters(self, number: int, current: Preferences, edited: Preferences) -> None:
        if edited.wedding_filters != current.wedding_filters:
            require_reach(current, edited, await self._store.list_weddings(number))

    async def _number(self, user_id: UUID) -> int:
        numbers = await self._keeper.numbers_of([user_id], await self._keeper.current())
        if user_id not in numbers:
            raise NotFound("The directory does not know you.")
        return numbers[user_id]

    async def _find(self, number: int) -> PersonalPreferences:
        found = await self._store.find_preferences(number)
        if found is None:
            raise NotFound("The directory does not know you.")
        return found


def _log_entries(number: int, current: Preferences, edited: Preferences) -> list[Entry]:
    entries = [recipients_changed([number])]
    weddings = changed_weddings(current, edited)
    if weddings:
        entries.append(weddings_changed(ChangeKind.FILTERS, weddings))
    return entries
