"""Builds everybody who works on a site during a run: callers, watchers, senders, saboteurs and those who look."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Final

from wedsync.broadcast.v1.directory_pb2 import Recipient, UserType

from stack.load import SEED
from stack.world import Person, World
from tests.chaos.callers import Callers
from tests.chaos.cast import Cast, choose_cast
from tests.chaos.changes import Changes
from tests.chaos.desk import Desk
from tests.chaos.echo import Echo
from tests.chaos.ending import end
from tests.chaos.faults import Faults
from tests.chaos.reading import Lists, Record
from tests.chaos.screens import Screens
from tests.chaos.site import OBSERVER, Site
from tests.chaos.terms import Terms
from tests.chaos.truth import Truth
from tests.chaos.workload import Workload

_OPEN_S: Final = 60.0
_CHANGING_SHARE: Final = 4
"""How much more often a wedding whose team changes is written to than any other."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Everybody who works on a site."""

    cast: Cast
    truth: Truth
    callers: Callers
    record: Record
    lists: Lists
    screens: Screens
    workload: Workload
    desk: Desk
    changes: Changes
    echo: Echo
    faults: Faults


@asynccontextmanager
async def working_on(site: Site, terms: Terms) -> AsyncIterator[Crew]:
    """The crew, with every stream open and before anything is sent."""
    crew = _hire(site, terms)
    watching = asyncio.create_task(crew.screens.follow())
    try:
        await crew.echo.open()
        async with asyncio.timeout(_OPEN_S):
            await crew.screens.until_open()
        yield crew
    finally:
        await end([watching])
        await crew.echo.close()
        await crew.callers.close()
        await crew.record.close()


def _hire(site: Site, terms: Terms) -> Crew:
    def dice(part: str) -> Random:
        """Chances of their own for each part, so that one does not shift another's."""
        return Random(f"{terms.seed}:{part}")

    world = World(terms.recipients, SEED, datetime.now(UTC).date())
    cast = choose_cast(world, dice("cast"))
    truth = Truth(world, cast.undecided, cast.changing)
    callers = Callers(site.addresses, site.mint, dice("callers"))
    record = Record(site.admin_url)
    screens = Screens(callers, truth, cast.alone, cast.together)
    echo = Echo(site.nats_access.url_for(OBSERVER), dice("echo"))
    changes = Changes(
        callers,
        truth,
        dice("changes"),
        readers=screens.alone,
        undecided=cast.undecided,
        sleepers=cast.sleepers,
        weddings=cast.changing,
        entries=[_entry(each) for each in world.people() if each.number in cast.undecided],
    )
    return Crew(
        cast=cast,
        truth=truth,
        callers=callers,
        record=record,
        lists=Lists(callers, truth),
        screens=screens,
        workload=Workload(
            callers,
            truth,
            dice("workload"),
            terms.sends_per_second,
            [*cast.walled, *cast.changing * _CHANGING_SHARE],
            record.arrived,
            echo.follow_cancel,
        ),
        desk=Desk(callers, record, dice("desk")),
        changes=changes,
        echo=echo,
        faults=Faults(site, echo, dice("faults")),
    )


def _entry(person: Person) -> Recipient:
    """Somebody as the directory knows them."""
    return Recipient(
        user_id=str(person.user_id),
        display_name=person.display_name,
        role=person.role,
        user_type=UserType.Value(f"USER_TYPE_{person.user_type.upper()}"),
        tier=person.tier,
        email=person.email or "",
        phone=person.phone or "",
        time_zone=person.time_zone,
    )
