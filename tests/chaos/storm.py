"""Owns the course of a run: faults over a steady load, then no more of them, and the load to its end."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.chaos.crew import Crew
from tests.chaos.ending import end
from tests.chaos.site import Site
from tests.chaos.terms import HEALING_LIMIT_S, RECOVERY_BOUND_S, SHORT_CALM_S, Terms

_ECHO_EVERY_S: Final = 1.0
_ECHOED: Final = 4
_POLL_S: Final = 0.1
_LAST_CHANGE_S: Final = 0.5
"""A change whose caller has just gone away may be committed all the same."""
_COUNTED_AGAIN_S: Final = 2.0
"""What was being counted when it was to be counted again puts that off: it is told once more."""
_PROVOKED: Final = ("expire", "redecide", "lease_again")
_PROVOKING: Final = ("every inbox killed", "NATS stopped")
"""What makes those places be reached that only come to pass when something is late."""
_PATIENCE_S: Final = 4.0
"""How long a process may live without reaching what it is to die at, once nothing else is left to be done."""


@dataclass(slots=True)
class Course:
    """What the course has to tell: when it healed, its kills in calm weather, and what did not come to an end."""

    healed_at: float = 0.0
    solitary: list[float] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    """How long each part took, for people."""
    _since: float = field(default_factory=time.monotonic)

    async def go(self, name: str, part: Awaitable[None], limit_s: float) -> None:
        """One part of it. One that fails, or is not over in time, is told and does not keep the rest from happening."""
        try:
            async with asyncio.timeout(limit_s):
                await part
        except Exception as error:  # noqa: BLE001  # a build may be broken in any way, and the verdict must name it
            self.unfinished.append(f"{name} broke off: {error!r}")
        self._note_phase(name)

    def _note_phase(self, name: str) -> None:
        now = time.monotonic()
        self.phases.append(f"{name} {now - self._since:.0f} s")
        print(f"  {self.phases[-1]}", flush=True)
        self._since = now


async def weather(site: Site, crew: Crew, terms: Terms) -> Course:
    """Everything until nothing is on its way any more, or the time for that is up."""
    course = Course()
    async with _loaded(crew, course) as sending:
        await course.go("storm", _storm(site, crew, terms), terms.storm_limit_s)
        await course.go("healing", _heal(site), HEALING_LIMIT_S)
        course.healed_at = time.time()
        await course.go("calm", _calm(crew, terms, course), 2 * terms.calm_s)
        crew.workload.stop()
        await course.go("draining", _drain(crew, sending), terms.drain_s)
    await course.go("agreeing", _agree(crew), terms.drain_s)
    await course.go("counting", _count(crew), terms.count_limit_s)
    return course


@asynccontextmanager
async def _loaded(crew: Crew, course: Course) -> AsyncIterator[asyncio.Task[None]]:
    """With everybody at work; the task is the sends. Whoever has stopped working before the end is told."""
    sending = asyncio.create_task(crew.workload.run(), name="workload")
    others = [
        asyncio.create_task(crew.desk.run(), name="desk"),
        asyncio.create_task(crew.changes.run(), name="changes"),
        asyncio.create_task(_echoing(crew), name="echo"),
    ]
    try:
        yield sending
        for task in others:
            if task.done():
                course.unfinished.append(f"{task.get_name()} broke off: {task.exception()!r}")
    finally:
        await end([sending, *others])


async def _echoing(crew: Crew) -> None:
    while True:
        await asyncio.sleep(_ECHO_EVERY_S)
        await crew.echo.repeat(_ECHOED)


async def _storm(site: Site, crew: Crew, terms: Terms) -> None:
    """Each fault once in an order of chance, then more of them until the time is up and all has fired."""
    began, random = time.monotonic(), Random(f"{terms.seed}:storm")
    site.arming.begin()
    for process in site.processes:
        process.signal(signal.SIGKILL)  # what starts from now on is armed
    names: list[str] = []
    while (passed := time.monotonic() - began) < terms.storm_most_s:
        for process in site.processes:
            process.check()
        missing = site.arming.missing()
        if not crew.faults.missing() and passed > terms.storm_s:
            if not missing:
                return
            await _chase(site, crew, missing, random)
            continue
        if site.arming.is_through():
            site.arming.again()
        if not names:
            names = random.sample(sorted(crew.faults.catalogue), len(crew.faults.catalogue))
        await crew.faults.run([names.pop()])


async def _chase(site: Site, crew: Crew, missing: list[str], random: Random) -> None:
    """Bring about what has not fired yet: by making something late, and by arming other processes with it."""
    if all(any(word in name for word in _PROVOKED) for name in missing):
        await crew.faults.run([random.choice(_PROVOKING)])
    for process in site.processes:
        if process.age_s > _PATIENCE_S and any(name.startswith(process.service) for name in missing):
            process.signal(signal.SIGKILL)
    await asyncio.sleep(_POLL_S)


async def _heal(site: Site) -> None:
    """Every server up, also after a storm that was broken off, and every process afresh with nothing armed."""
    site.arming.end()
    await site.mend()
    for process in site.processes:
        process.release()
        process.signal(signal.SIGKILL)
    await asyncio.sleep(_POLL_S)
    await site.until_ready()


async def _calm(crew: Crew, terms: Terms, course: Course) -> None:
    """Kills one by one, each with the time that recovering from it may take; or just a moment without any."""
    for _ in range(terms.solitary_kills):
        await asyncio.sleep(RECOVERY_BOUND_S)
        course.solitary.append(time.time())
        await crew.faults.kill_one()
    await asyncio.sleep(RECOVERY_BOUND_S if terms.solitary_kills else SHORT_CALM_S)


async def _drain(crew: Crew, sending: asyncio.Task[None]) -> None:
    """Wait until every send has its answer, and every broadcast and cancel its end."""
    await sending
    while await crew.record.unfinished():
        await asyncio.sleep(_POLL_S)


async def _agree(crew: Crew) -> None:
    """Wait until the inbox has every team as the directory has it, now that nobody changes teams any more."""
    await asyncio.sleep(_LAST_CHANGE_S)
    while await crew.record.walls_that_differ():
        await asyncio.sleep(_POLL_S)


async def _count(crew: Crew) -> None:
    """Wait until everybody's figures are counted once more, now that nobody does anything any more."""
    moment = await crew.record.moment()
    while await crew.record.count_again(moment):
        await asyncio.sleep(_COUNTED_AGAIN_S)
