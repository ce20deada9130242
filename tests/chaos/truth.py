"""Owns who should get what, worked out from the demo world alone with sets: nothing of the suite is asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from pyroaring import BitMap

from stack.world import EditedPreferences, World

CATEGORIES: Final = {
    "maintenance": "system",
    "feature": "system",
    "security": "system",
    "tier": "business",
    "trial": "business",
    "payment": "business",
    "form": "collaboration",
    "journey": "collaboration",
    "timeline": "collaboration",
    "wedding": "wedding",
    "coordinator": "wedding",
}
"""product.md's table, by the first word of a type."""
ESSENTIAL: Final = frozenset(
    {
        "security.alert",
        "payment.required",
        "timeline.changed",
        "wedding.cancelled",
        "wedding.emergency",
        "coordinator.handoff",
    }
)


@dataclass(frozen=True, slots=True)
class Meant:
    """Whom a broadcast is meant for: numbers that must have it, and those that may, who change their mind meanwhile."""

    must: BitMap
    may: BitMap


class Truth:
    """The demo world as sets of recipient numbers.

    `undecided` are people whose preferences change during the run, `changing` weddings whose teams do.
    """

    def __init__(self, world: World, undecided: Iterable[int], changing: Iterable[UUID]) -> None:
        people = list(world.people())
        self.user_ids: dict[int, UUID] = {each.number: each.user_id for each in people}
        self.numbers: dict[UUID, int] = {each.user_id: each.number for each in people}
        self.everyone = BitMap(self.user_ids)
        self.roles: dict[str, BitMap] = {}
        for person in people:
            self.roles.setdefault(person.role, BitMap()).add(person.number)
        self.weddings = {each.wedding_id: BitMap(each.team) for each in world.weddings()}
        self._undecided = BitMap(undecided)
        self._changing = {str(wedding_id) for wedding_id in changing}
        edited = list(world.edited_preferences())
        self._critical_only = BitMap(each.number for each in edited if each.critical_only)
        self._muted = {
            category: BitMap(each.number for each in edited if not _wants(each, category))
            for category in set(CATEGORIES.values())
        }

    def meant(self, type_: str, audience: BitMap, wedding_id: str) -> Meant:
        """Those of an audience whose inbox gets a broadcast of this type, which goes past no channel of theirs."""
        if wedding_id in self._changing:
            return Meant(BitMap(), audience)
        if type_ in ESSENTIAL:
            return Meant(audience, audience)
        category = CATEGORIES[type_.partition(".")[0]]
        wanted = audience - self._critical_only - self._muted[category]
        return Meant(wanted - self._undecided, wanted | (audience & self._undecided))


def _wants(preferences: EditedPreferences, category: str) -> bool:
    return bool(getattr(preferences, category))
