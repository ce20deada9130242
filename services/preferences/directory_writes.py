"""Owns changes of the directory: checked, kept, and told to the inbox, whose own wall must not be behind."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from services.preferences.directory import (
    PeopleWritten,
    Person,
    TeamWritten,
    WeddingDetails,
    WeddingsWritten,
    check_people,
    check_weddings,
)
from services.preferences.store import DirectoryStore
from services.preferences.wall import InboxWall
from shared.audience import Audience
from shared.auth import current_identity
from shared.errors import FieldViolation

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TeamSet:
    """What setting a team has done, and whether the inbox applies it already."""

    written: TeamWritten
    inbox_applied: bool


class DirectoryWrites:
    """What services that feed the directory may change."""

    def __init__(
        self,
        store: DirectoryStore,
        wall: InboxWall,
        wake_relay: Callable[[], None],
        wake_teller: Callable[[], None],
    ) -> None:
        """`wake_relay` is told of changed teams, `wake_teller` of whatever may be for the audit log."""
        self._store = store
        self._wall = wall
        self._wake_relay = wake_relay
        self._wake_teller = wake_teller

    async def upsert_people(self, people: Sequence[Person], *, may_change_admins: bool) -> PeopleWritten:
        """Add or replace people, all or none. Raises InvalidField, PermissionDenied."""
        check_people(people)
        written = await self._store.upsert_people(_actor(), people, may_change_admins=may_change_admins)
        self._wake_teller()
        return written

    async def upsert_weddings(
        self, weddings: Sequence[WeddingDetails], broken: Iterable[FieldViolation]
    ) -> WeddingsWritten:
        """Add or replace weddings, all or none; `broken` is what was wrong with them already. Raises InvalidField."""
        check_weddings(weddings, broken)
        return await self._store.upsert_weddings(_actor(), weddings)

    async def set_team(self, wedding_id: UUID, user_ids: Sequence[UUID]) -> TeamSet:
        """Replace a wedding's team and have the inbox apply it. Raises NotFound, InvalidField."""
        written = await self._store.set_team(_actor(), wedding_id, user_ids)
        self._wake_relay()
        self._wake_teller()
        # Also when nothing has changed: setting a team again puts right an inbox that could not be reached before.
        inbox_applied = await self._wall.apply(wedding_id, written.team_version, Audience.of(written.members))
        log.info(
            "team_set",
            wedding_id=str(wedding_id),
            team_version=written.team_version,
            added=written.added,
            removed=written.removed,
            inbox_applied=inbox_applied,
        )
        return TeamSet(written, inbox_applied)


def _actor() -> str:
    return current_identity().name
