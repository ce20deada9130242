"""Owns doing things in groups: whatever is asked while one group is being committed makes up the next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from shared.errors import ServiceError

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class Group(Generic[_Asked, _Answer]):
    """Asks one at a time, commits many at once; who asks when nothing is under way does not wait for company."""

    def __init__(
        self, commit: Callable[[Sequence[_Asked]], Awaitable[Sequence[_Answer]]], largest: int
    ) -> None:
        """`commit` answers each of up to `largest`, in their order; it must bear being asked the same again."""
        self._commit = commit
        self._largest = largest
        self._waiting: list[tuple[_Asked, asyncio.Future[_Answer]]] = []
        self._committing: asyncio.Task[None] | None = None

    async def ask(self, asked: _Asked) -> _Answer:
        """The answer, once it is committed. Raises what the commit raised for this one."""
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_waiting())
        return await answer

    async def ask_all(self, asked: Sequence[_Asked]) -> list[_Answer]:
        """The answers to all of these, which are committed together as far as a group takes them.

        Raises what the commit raised for one of them.
        """
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[_Answer]] = [loop.create_future() for _ in asked]
        self._waiting += zip(asked, answers, strict=True)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_waiting())
        return await asyncio.gather(*answers)

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
                await self._settle(group)
        finally:
            self._committing = None

    async def _settle(self, group: list[tuple[_Asked, "asyncio.Future[_Answer]"]]) -> None:
        try:
            answers = await self._commit([asked for asked, _ in group])
        except Exception as error:  # noqa: BLE001  # each of the group is told, whatever it was
            await self._settle_failed(group, error)
            return
        for (_, waiting), answer in zip(group, answers, strict=True):
            if not waiting.done():
                waiting.set_result(answer)

    async def _settle_failed(
        self, group: list[tuple[_Asked, "asyncio.Future[_Answer]"]], error: Exception
    ) -> None:
        # An outage is everybody's; a defect is one's own, and must not fail the others.
        if len(group) > 1 and not isinstance(error, ServiceError):
            for each in group:
                await self._settle([each])
            return
        for _, waiting in group:
            if not waiting.done():
                waiting.set_exception(error)


def apart(items: Iterable[_Asked], clash: Callable[[_Asked, _Asked], bool]) -> list[list[tuple[int, _Asked]]]:
    """Items with their places, in as few rounds as keep apart those that clash; the earlier one goes first."""
    rounds: list[list[tuple[int, _Asked]]] = []
    for place, item in enumerate(items):
        last = max(
            (i for i, done in enumerate(rounds) if any(clash(other, item) for _, other in done)), default=-1
        )
        if last + 1 == len(rounds):
            rounds.append([])
        rounds[last + 1].append((place, item))
    return rounds
