"""Owns who is told what of whom by the directory."""

from uuid import UUID

from services.preferences.directory import KnownPerson, Reach, reach_of
from services.preferences.keeper import IndexKeeper
from services.preferences.store import PersonalStore
from shared.errors import NotFound


class DirectoryReads:
    """What callers see of the directory, each as far as they may."""

    def __init__(self, store: PersonalStore, keeper: IndexKeeper) -> None:
        self._store = store
        self._keeper = keeper

    async def get(self, caller: UUID | None, role: str | None, user_id: UUID) -> KnownPerson:
        """Somebody as the caller, who has this role, may see them; `caller` is None for services. Raises NotFound."""
        number = await self._number(caller) if caller is not None else None
        reach = reach_of(role, is_service=caller is None)
        found = await self._store.find_person(number, reach, user_id)
        if found is None:
            message = "There is no such recipient, or it is not yours to see."
            raise NotFound(message) if reach is Reach.EVERYONE else NotFound.or_not_yours(message)
        return found

    async def _number(self, user_id: UUID) -> int | None:
        return (await self._keeper.numbers_of([user_id], await self._keeper.current())).get(user_id)
