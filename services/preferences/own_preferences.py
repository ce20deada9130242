"""Owns what people do with their own preferences: see, edit and reset them, without losing anybody else's edit."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeAlias, TypeVar
from uuid import UUID

import structlog
from wedsync.broadcast.v1 import preferences_pb2

from services.preferences.changes import ChangeKind, Entry, recipients_changed, weddings_changed
from services.preferences.editing import EVERYTHING, changed_weddings, edit, require_reach
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
UPDATE, RESET = "UpdatePreferences", "ResetPreferences"
BEFORE_COMMIT, AFTER_COMMIT = declare("preferences.edit.before_commit", "preferences.edit.after_commit")

_Request: TypeAlias = preferences_pb2.UpdatePreferencesRequest | preferences_pb2.ResetPreferencesRequest
_Response = TypeVar(
    "_Response", preferences_pb2.UpdatePreferencesResponse, preferences_pb2.ResetPreferencesResponse
)


@dataclass(frozen=True, slots=True)
class _Method(Generic[_Response]):
    """One of the methods that change something: its name, its answer, and what answers its repetition."""

    name: str
    response: type[_Response]
    replay: Callable[[_Request], Awaitable[_Response | None]]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What somebody wants to become of their preferences: of those with this etag, or of any when it is empty."""

    etag: str
    paths: Sequence[str]
    after: Callable[[PersonalPreferences, datetime], PersonalPreferences]


class OwnPreferences:
    """Every method is about the user who calls."""

    def __init__(self, store: PersonalStore, answers: KeptAnswers, keeper: IndexKeeper) -> None:
        self._store = store
        self._update = _method(UPDATE, preferences_pb2.UpdatePreferencesResponse, answers)
        self._reset = _method(RESET, preferences_pb2.ResetPreferencesResponse, answers)
        self._keeper = keeper

    def replays(self) -> dict[str, Replay | None]:
        """What answers a repeated request before anything about it is judged anew."""
        return {each.name: each.replay for each in (self._update, self._reset)}

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
        paths = masked_paths(request)

        def edited(current: PersonalPreferences, now: datetime) -> PersonalPreferences:
            return current.edited(edit(current.values, to_given(request.preferences), paths), now)

        wish = _Wish(request.preferences.etag, paths, edited)
        return await self._change(user_id, self._update, request, wish)

    async def reset(
        self, user_id: UUID, request: preferences_pb2.ResetPreferencesRequest
    ) -> preferences_pb2.ResetPreferencesResponse:
        """Go back to the preset of their role; with an etag, only if it is still theirs.

        Raises NotFound, StaleEtag, RequestIdReused.
        """
        wish = _Wish(request.etag, [EVERYTHING], lambda current, now: current.reset())
        return await self._change(user_id, self._reset, request, wish)

    async def _change(
        self, user_id: UUID, method: _Method[_Response], request: _Request, wish: _Wish
    ) -> _Response:
        number, repeatable = await self._number(user_id), request_of(method.name, request)
        for _ in range(_ATTEMPTS):
            try:
                change = await self._edit(number, wish)
            except StaleEtag:
                # The same call, made twice at once, may have been what changed them.
                if (earlier := await method.replay(request)) is None:
                    raise
                return earlier
            response = method.response(preferences=preferences_message(change.after))
            if repeatable is None and not change.is_change:
                return response
            await failpoint(BEFORE_COMMIT)
            saved = await self._store.save_preferences(change, repeatable, response.SerializeToString())
            await failpoint(AFTER_COMMIT)
            if repeatable is not None and isinstance(saved, Answer):
                return answer_to(repeatable, saved, method.response)
            if saved:
                _log_changed(change, wish.paths)
                return response
        raise StaleEtag("Others keep changing these preferences; try again.")

    async def _edit(self, number: int, wish: _Wish) -> Edit:
        current, now = await self._find(number)
        if wish.etag not in ("", current.etag):
            raise StaleEtag
        after = wish.after(current, now)
        if after.values.wedding_filters != current.values.wedding_filters:
            require_reach(current.values, after.values, await self._store.list_weddings(number))
        return Edit(number, current, after, now, _log_entries(number, current.values, after.values))

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


def _method(name: str, response: type[_Response], answers: KeptAnswers) -> _Method[_Response]:
    return _Method(name, response, answers.replay(name, response))


def _log_changed(edit: Edit, paths: Iterable[str]) -> None:
    if edit.is_change:
        log.info(
            "preferences_changed",
            recipient_number=edit.number,
            fields=sorted(set(paths)),
            first_edit=not edit.before.is_edited,
            is_reset=not edit.after.is_edited,
        )


def _log_entries(number: int, current: Preferences, edited: Preferences) -> list[Entry]:
    entries = [recipients_changed([number])]
    weddings = changed_weddings(current, edited)
    if weddings:
        entries.append(weddings_changed(ChangeKind.FILTERS, weddings))
    return entries
