"""The share of calls that is refused, on a server that is a queue: it finds what is right, stays there, and lets go."""

from collections import deque
from dataclasses import dataclass, field

import pytest

from shared.shedding import TARGET_S, TICK_S, Shedding


@dataclass
class Server:
    """One after the other: an answer takes so many seconds and a refusal so many, and a probe waits like a call."""

    answer_s: float
    refusal_s: float
    now: float = 0.0
    shedding: Shedding = field(default_factory=Shedding)
    waits: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    answered: int = 0
    _queue: deque[tuple[float, bool]] = field(default_factory=deque)
    _probe_began: float | None = None
    _probed_s: float = 0.0
    _tick: float = TICK_S
    _due: float = 0.0
    _credit: float = 0.0

    def run(self, rate: float, seconds: float) -> None:
        """So many calls a second, evenly, for so long; figures are of this run."""
        self.waits, self.shares, self.answered = [], [], 0
        end, self._due = self.now + seconds, max(self._due, self.now)
        while self.now < end:
            while self._due <= self.now:
                self._queue.append((self._due, False))
                self._due += 1 / rate
            while self._tick <= self.now:
                self._follow()
            if self._queue:
                self._serve(*self._queue.popleft())
            else:
                self.now = min(self._due, self._tick)

    def _follow(self) -> None:
        under_way_s = self._tick - self._probe_began if self._probe_began is not None else 0.0
        wait_s = max(self._probed_s, under_way_s)
        self.shedding.follow(self._tick, wait_s)
        self.waits.append(wait_s)
        self.shares.append(self.shedding.share)
        if self._probe_began is None:
            self._probe_began = self._tick
            self._queue.append((self._tick, True))
        self._tick += TICK_S

    def _serve(self, came: float, is_probe: bool) -> None:
        if is_probe:
            self._probed_s, self._probe_began = self.now - came, None
            return
        self._credit += 1 - self.shedding.share
        if self._credit >= 1:
            self._credit -= 1
            self.answered += 1
            self.now += self.answer_s
        else:
            self.now += self.refusal_s


@pytest.mark.parametrize("times", [1.3, 2, 3, 5])
@pytest.mark.parametrize(("answer_s", "refusal_s"), [(0.001, 0.0001), (0.0027, 0.0001), (0.02, 0.0001)])
def test_share_settles_where_all_time_is_used_and_calls_wait_as_long_as_they_may(
    times: float, answer_s: float, refusal_s: float
) -> None:
    """Whatever an answer costs and however much comes: no swinging, which refuses too many and then too few."""
    server = Server(answer_s, refusal_s)
    rate = times / answer_s
    server.run(rate, 5)
    server.run(rate, 20)
    right = (1 - 1 / times) / (1 - refusal_s / answer_s)
    assert sum(server.shares) / len(server.shares) == pytest.approx(right, abs=0.03)
    assert max(server.shares) - min(server.shares) < 0.15
    assert max(server.waits) < 2 * TARGET_S
    most = (1 - times * refusal_s / answer_s) / (1 - refusal_s / answer_s) / answer_s
    assert server.answered / 20 > 0.97 * most


def test_nobody_is_refused_soon_after_it_is_over() -> None:
    """Three times the load for ten seconds is forgotten in three."""
    server = Server(0.001, 0.0001)
    server.run(3_000, 10)
    assert server.shedding.share > 0.5
    server.run(500, 3)
    assert server.shedding.share == 0


def test_load_that_is_carried_refuses_nobody() -> None:
    """Nine tenths of what it can do, and a burst of 0.4 seconds' work in the middle."""
    server = Server(0.001, 0.0001)
    server.run(900, 5)
    assert max(server.shares) == 0
    server.run(10_000, 0.04)
    server.run(500, 3)
    assert max(server.shares) == 0
