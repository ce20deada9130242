"""Owns that what is held follows its people: when their settings change, so does the time at which they are alerted."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from services.dispatcher.domain import Priority
from services.dispatcher.hold_store import HoldStore
from services.dispatcher.neighbours import Audiences
from services.dispatcher.review import Reviewer
from services.dispatcher.work import Changes, WaitingChunk
from shared.audience import Audience
from shared.clock import Clock
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

_EVERY_S: Final = 1.0
_LONGEST_REST_S: Final = 5.0
_REST: Final = 4
"""After looking through all that is held there is so many times as long a rest, up to a bound."""
_REMEMBERED_S: Final = 60.0
_MOST_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class _Heard:
    """Changes, and when they were heard of."""

    changes: Changes
    at: float


class Memory:
    """The changes of the last minute, by which a chunk is judged whose decision is older than they are.

    A chunk may be committed some time after its members were decided about; until then nobody can see that it is there.
    """

    def __init__(self) -> None:
        self._heard: deque[_Heard] = deque()

    def __bool__(self) -> bool:
        return bool(self._heard)

    def add(self, changes: Changes, now: float) -> None:
        """These were heard of at `now`. When there are very many, the oldest count as one change."""
        if changes.people or changes.weddings or changes.is_anybody:
            self._heard.append(_Heard(changes, now))
        if len(self._heard) > _MOST_REMEMBERED:
            oldest, next_one = self._heard.popleft(), self._heard.popleft()
            self._heard.appendleft(replace(next_one, changes=_joined([next_one.changes, oldest.changes])))

    def forget(self, now: float) -> None:
        """What has been heard of for more than a minute by `now`, when everything was looked through meanwhile."""
        while self._heard and self._heard[0].at < now - _REMEMBERED_S:
            self._heard.popleft()

    def clear(self) -> None:
        """Nothing is held, so nothing has to be known."""
        self._heard.clear()

    def since(self) -> list[tuple[int, Changes]]:
        """Versions, the latest first, each with all that concerns a decision that is older than it."""
        found: list[tuple[int, Changes]] = []
        for heard in reversed(self._heard):
            later = [found[-1][1]] if found else []
            found.append((heard.changes.version, _joined([*later, heard.changes])))
        return found


class Following:
    """Looks every second whether somebody has changed, so that those for whom alerts are held are woken when they want.

    It is one question a second however much is held, and none while nothing is. What is held is looked through only
    when somebody has changed; what then has to be decided again is little. Nothing depends on it but when an alert is
    due: everybody is decided anew before they are alerted, and until then whatever they have muted can be taken back.
    """

    def __init__(
        self,
        store: HoldStore,
        audiences: Audiences,
        reviewer: Reviewer,
        lanes: Collection[Priority],
        clock: Clock,
    ) -> None:
        self._store = store
        self._audiences = audiences
        self._reviewer = reviewer
        self._lanes = lanes
        self._clock = clock
        self._version: int | None = None
        self._memory = Memory()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return once the present round is through."""
        self._stop.set()

    async def run(self) -> None:
        """Make a round every second until `stop`, and fewer when looking through what is held takes long."""
        while not self._stop.is_set():
            began, rest_s = self._clock.monotonic(), _EVERY_S
            try:
                await self.follow()
                rest_s = max(_EVERY_S, min(_LONGEST_REST_S, _REST * (self._clock.monotonic() - began)))
            except DependencyUnavailable as error:
                log.warning("following_interrupted", error=str(error))
            except Exception:
                log.exception("following_failed")
            await wait_for_hint(self._stop, rest_s)

    async def follow(self) -> None:
        """Hear what has changed, and bring up to date what is held of those concerned."""
        if not await self._store.is_any_asleep(self._lanes):
            self._version = None
            self._memory.clear()
            return
        if self._version is None and (oldest := await self._store.oldest_decision(self._lanes)) is not None:
            self._version = oldest
        if self._version is None:
            return
        began = self._clock.monotonic()
        changes = await self._audiences.changes_since(self._version)
        self._version = changes.version
        self._memory.add(changes, began)
        if self._memory:
            await self._look_through()
            self._memory.forget(began)

    async def _look_through(self) -> None:
        """Review all that is held of those concerned. Raises the first failure, once everything was looked through."""
        since, failures = self._memory.since(), list[Exception]()
        for lane in self._lanes:
            async for page in self._store.pages(lane):
                try:
                    await self._reviewer.review(await self._concerned(page, since), lambda: None)
                except Exception as error:  # noqa: BLE001  # what cannot be decided must not keep others from it
                    failures.append(error)
        if failures:
            raise failures[0]

    async def _concerned(
        self, page: Sequence[WaitingChunk], since: Sequence[tuple[int, Changes]]
    ) -> list[WaitingChunk]:
        """Those of these chunks with members who may have changed since they were decided about."""
        weddings = since[-1][1].weddings
        bound = await self._store.within({chunk.broadcast_id for chunk in page}, weddings)
        found = []
        for chunk in page:
            after = _after(chunk.decided.directory_version, since)
            if after is None:
                continue
            is_about = after.is_anybody or (bool(after.weddings) and chunk.broadcast_id in bound)
            if is_about or not after.people.isdisjoint(chunk.members):
                found.append(chunk)
        return found


def _after(version: int, since: Iterable[tuple[int, Changes]]) -> Changes | None:
    """All that came after a version; None for nothing."""
    earliest = None
    for later, changes in since:
        if later <= version:
            break
        earliest = changes
    return earliest


def _joined(several: Collection[Changes]) -> Changes:
    """All of these as one."""
    return Changes(
        max(each.version for each in several),
        Audience.union_of(each.people for each in several),
        frozenset().union(*(each.weddings for each in several)),
        any(each.is_anybody for each in several),
    )
