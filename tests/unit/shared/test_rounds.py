"""Work that goes round until it is stopped."""

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from shared.errors import DependencyUnavailable
from shared.rounds import Rounds


class Counting(Rounds):
    """Counts its rounds; what a round does is the test's."""

    def __init__(self, every_s: float, meanwhile: Callable[[int], None]) -> None:
        super().__init__(every_s)
        self.rounds = 0
        self._meanwhile = meanwhile

    @override
    async def look(self) -> None:
        self.rounds += 1
        self._meanwhile(self.rounds)


async def test_goes_round_until_it_is_stopped() -> None:
    """And not once more after it."""

    def stop_at_three(rounds: int) -> None:
        if rounds == 3:
            counting.stop()

    counting = Counting(0.0, stop_at_three)
    await counting.run()
    assert counting.rounds == 3


async def test_stop_does_not_wait_for_the_next_round() -> None:
    """However long it would be until then."""
    begun = asyncio.Event()
    counting = Counting(3_600.0, lambda _: begun.set())
    running = asyncio.create_task(counting.run())
    await begun.wait()
    counting.stop()
    await asyncio.wait_for(running, 5)
    assert counting.rounds == 1


async def test_outage_only_puts_a_round_off() -> None:
    """It is told, and the next one goes as if nothing had been."""

    def fail_first(rounds: int) -> None:
        if rounds == 1:
            raise DependencyUnavailable
        counting.stop()

    counting = Counting(0.0, fail_first)
    with capture_logs() as logs:
        await counting.run()
    assert counting.rounds == 2
    assert [(line["event"], line["of"]) for line in logs] == [("round_interrupted", "Counting")]


async def test_fault_of_the_work_ends_it() -> None:
    """What is no outage is for whoever watches the process."""

    def fail(_: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await Counting(0.0, fail).run()
