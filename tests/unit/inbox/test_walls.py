"""The walls behind changes, whose teams change and are read at the same time."""

import asyncio
from collections.abc import Collection
from typing import cast
from uuid import UUID, uuid4

from services.inbox.changes import Change, Changes
from services.inbox.domain import ArrivalKind, Content, Team
from services.inbox.entries import Arrived, TeamChanged
from services.inbox.work_store import WorkStore
from shared.audience import Audience
from shared.clock import SystemClock
from tests.unit.inbox.places import NOW

WEDDING = uuid4()
AMARA, JONAS = 1, 2
CONTENT = Content(uuid4(), "timeline.changed", 3, 2, "Rain", "Indoors.", None, None, (WEDDING,), None)
ARRIVED = Arrived(1, NOW, ArrivalKind.ITEM, CONTENT.broadcast_id, Audience.of([AMARA, JONAS]))
JOINED = TeamChanged(2, Team(WEDDING, 2, Audience.of([AMARA, JONAS])), Audience.of([JONAS]))
LEFT = TeamChanged(3, Team(WEDDING, 3, Audience.of([JONAS])), Audience.of([AMARA]))


class Database:
    """It has read a team when it is asked, and answers when it is let."""

    def __init__(self) -> None:
        self.team = Team(WEDDING, 1, Audience.of([AMARA]))
        self.asked = 0
        self.answers = asyncio.Event()

    async def find_contents(self, broadcast_ids: Collection[UUID]) -> list[Content]:
        return [CONTENT]

    async def find_teams(self, wedding_ids: Collection[UUID]) -> list[Team]:
        team, self.asked = self.team, self.asked + 1
        await self.answers.wait()
        return [team]


def changes_of(database: Database) -> Changes:
    """The changes of a log, read from there."""
    return Changes(cast(WorkStore, database), uuid4(), SystemClock())


async def test_a_team_that_changes_while_it_is_read_stays_changed() -> None:
    """The reading had begun before, so what it found is old."""
    database = Database()
    changes = changes_of(database)
    reading = asyncio.create_task(changes.read([ARRIVED]))
    await asyncio.sleep(0)
    changes.apply(JOINED)
    database.answers.set()
    [change] = await reading
    assert change.audience() == Audience.of([AMARA, JONAS])


async def test_what_was_read_at_the_same_time_has_one_wall() -> None:
    """Whoever leaves the team is out of all of it; and nothing is told before its team is known."""
    database = Database()
    changes = changes_of(database)
    readings = [asyncio.create_task(changes.read([ARRIVED])) for _ in range(2)]
    await asyncio.sleep(0)
    assert database.asked == len(readings)
    database.answers.set()
    read: list[Change] = [change for reading in readings for change in await reading]
    assert [change.audience() for change in read] == [Audience.of([AMARA])] * 2
    changes.apply(LEFT)
    assert [change.audience() for change in read] == [Audience.of([JONAS])] * 2
