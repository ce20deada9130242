"""Owns who plays which part in a run: who watches, changes their mind or sleeps, and which weddings are written to."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final
from uuid import UUID

from stack.world import CAST, World

_ALONE: Final = 8
_ASLEEP_ALONE: Final = 3
_TOGETHER: Final = 150
_UNDECIDED: Final = 30
_SLEEPERS: Final = 12
_WALLED: Final = 40
_CHANGING: Final = 3


@dataclass(frozen=True, slots=True)
class Cast:
    """Recipient numbers and weddings by their part. Nobody who watches is on a team that changes, or undecided."""

    alone: Sequence[int]
    together: Sequence[int]
    undecided: Sequence[int]
    sleepers: Sequence[int]
    walled: list[UUID]
    changing: list[UUID]


def choose_cast(world: World, random: Random) -> Cast:
    """Parts by chance; some of those who watch sleep."""
    weddings = [wedding for wedding in world.weddings() if len(wedding.team) > 1]
    chosen = random.sample(weddings[1:], _WALLED + _CHANGING)
    changing, walled = chosen[:_CHANGING], [weddings[0], *chosen[_CHANGING:]]
    moved = {number for wedding in changing for number in wedding.team}
    people = [number for number in range(len(CAST) + 1, world.recipients + 1) if number not in moved]
    random.shuffle(people)
    undecided, people = people[:_UNDECIDED], people[_UNDECIDED:]
    sleepers, people = people[:_SLEEPERS], people[_SLEEPERS:]
    on_teams = sorted({number for wedding in walled for number in wedding.team} & set(people))
    alone = [*sleepers[:_ASLEEP_ALONE], *random.sample(on_teams, _ALONE - _ASLEEP_ALONE)]
    together = [number for number in people if number not in alone][:_TOGETHER]
    return Cast(
        alone,
        together,
        undecided,
        sleepers,
        [wedding.wedding_id for wedding in walled],
        [wedding.wedding_id for wedding in changing],
    )
