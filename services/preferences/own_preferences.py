"""Owns what people do with their own preferences: see them, and edit them without losing anybody else's edit."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from wedsync.broadcast.v1 import preferences_pb2

from services.preferences.changes import ChangeKind, Entry, recipients_changed, weddings_changed
from services.preferences.editing import changed_weddings, edit, require_reach
from services.preferences.keeper import IndexKeeper
from services.preferences.messages import masked_paths, preferences_message, to_given
from services.preferences.presets import PersonalPreferences, Preferences
from services.preferences.store import Edit, PersonalStore
from shared.errors import NotFound, StaleEtag
from shared.failpoints import declare, failpoint
from shared.methods import Replay
from shared.replays import Answer, KeptAnswers, answer_to, request_of

log = structlog.get_logger(__name__)

_ATTEMPTS: Final = 5
UPDATE: Final = "UpdatePreferences"
BEFORE_COMMIT, AFTER_COMMIT = declare("preferences.edit.before_commit", "preferences.edit.after_commit")


class OwnPreferences:
    """Every method is about the user who calls."""

    def __init__(self, store: PersonalStore, answers: KeptAnswers, keeper: IndexKeeper) -> None:
        self._store = store
        self._replay = answers.replay(UPDATE, preferences_pb2.UpdatePreferencesResponse)
        self._keeper = keeper

    def replays(self) -> dict[str, Replay | None]:
        """What answers a repeated request before anything about it is judged anew."""
        return {UPDATE: self._replay}

    async def get(self, user_id: UUID) -> PersonalPreferences:
        """Their preferences as they apply. Raises NotFound when the directory does not know them."""
        found, _ = await self._find(await self._number(user_id))
        return found

    async def update(
        self, user_id: UUID, request: preferences_pb2.UpdatePreferencesRequest
    ) -> preferences_pb2.UpdatePreferencesResponse:
        """Change what the mask names; with an etag, only if it is still theirs.

        Raises NotFound, InvalidField, OutsideReach, StaleEtag, RequestIdReused.
        """
        number, repeatable = await self._number(user_id), request_of(UPDATE, request)
        for _ in range(_ATTEMPTS):
            try:
                change = await self._edit(number, request)
            except StaleEtag:
                # The same call, made twice at once, may have been what changed them.
                if (earlier := await self._replay(request)) is None:
                    raise
                return earlier
            response = preferences_pb2.UpdatePreferencesResponse(
                preferences=preferences_message(change.after)
            )
            if repeatable is None and not change.is_change:
                return response
            await failpoint(BEFORE_COMMIT)
            saved = await self._store.save_preferences(change, repeatable, response.SerializeToString())
            await failpoint(AFTER_COMMIT)
            if repeatable is not None and isinstance(saved, Answer):
                return answer_to(repeatable, saved, preferences_pb2.UpdatePreferencesResponse)
            if saved:
                _log_changed(change, masked_paths(request))
                return response
        raise StaleEtag("Others keep changing these preferences; try again.")

    async def _edit(self, number: int, request: preferences_pb2.UpdatePreferencesRequest) -> Edit:
        current, now = await self._find(number)
        if request.preferences.etag not in ("", current.etag):
            raise StaleEtag
        values = edit(current.values, to_given(request.preferences), masked_paths(request))
        if values.wedding_filters != current.values.wedding_filters:
            require_reach(current.values, values, await self._store.list_weddings(number))
        entries = _log_entries(number, current.values, values)
        return Edit(number, current, current.edited(values, now), entries)

    async def _number(self, user_id: UUID) -> int:
        numbers = await self._keeper.numbers_of([user_id], await self._keeper.current())
        if user_id not in numbers:
            raise NotFound("The directory does not know you.")
        return numbers[user_id]

    async def _find(self, number: int) -> tuple[PersonalPreferences, datetime]:
        found = await self._store.find_preferences(number)
        if found is None:
            raise NotFound("The directory does not know you.")
        return found


def _log_changed(edit: Edit, paths: Iterable[str]) -> None:
    if edit.is_change:
        log.info(
            "preferences_changed",
            recipient_number=edit.number,
            fields=sorted(set(paths)),
            first_edit=not edit.before.is_edited,
        )


def _log_entries(number: int, current: Preferences, edited: Preferences) -> list[Entry]:
    entries = [recipients_changed([number])]
    weddings = changed_weddings(current, edited)
    if weddings:
        entries.append(weddings_changed(ChangeKind.FILTERS, weddings))
    return entries
