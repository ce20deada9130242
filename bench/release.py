"""The end of a night: a hundred thousand who are held until the same minute, and critical broadcasts in the middle."""

import asyncio
import gc
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Final
from uuid import UUID

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.broadcasts import ERRAND, Broadcasts
from bench.disk import calm
from bench.isolation import EVERY_S, LEAST_BOUND_MS, Urgent
from bench.report import Bound, Result, Row, summarize
from bench.site import mailer, started
from shared.audience import Audience
from shared.queries import load

SCENARIO: Final = "release"
RECIPIENTS: Final = 1_000_000
FIRST: Final = 300_001
HELD: Final = 100_000
TOGETHER: Final = 10
RATE: Final = 5_000
WARM_UP: Final = 20
IDLE_SENDS: Final = 200
FULL_IDLE_SENDS: Final = 600
_TIER: Final = "bench-sleepers"
_TIERS: Final = tuple(f"{_TIER}-{number}" for number in range(TOGETHER))
# From when a night is set to its end there is at least so long, for all to be sent and to be in every inbox.
_LEAD_S: Final = 40.0
_POLL_S: Final = 0.1
_DEADLINE_S: Final = 120.0
_TOLERANCE: Final = 0.05
_LATE_S: Final = 2.0
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, slots=True)
class Alerts:
    """Some that arrived in one commit: when, in seconds from the end of the night, and whom they woke."""

    at_s: float
    members: Audience


@dataclass(frozen=True, slots=True)
class Morning:
    """All who were woken at the end of one night, in order, and how often each should have been."""

    alerts: Sequence[Alerts]
    expected: Audience

    @property
    def early(self) -> int:
        """How many were woken before their window ended."""
        return sum(len(each.members) for each in self.alerts if each.at_s < 0)

    @property
    def missing(self) -> int:
        """How many were not woken."""
        return len(self.expected - Audience.union_of(each.members for each in self.alerts))

    @property
    def repeated(self) -> int:
        """How many alerts were one too many."""
        return sum(len(each.members) for each in self.alerts) - len(self.expected) + self.missing

    @property
    def last_s(self) -> float:
        """From the end of the night until everybody was woken."""
        return self.alerts[-1].at_s

    @property
    def rate(self) -> float:
        """People a second over the steady part, from the first tenth of them to the last."""
        total, woken = sum(len(each.members) for each in self.alerts), 0
        edges: list[tuple[float, int]] = []
        for each in self.alerts:
            woken += len(each.members)
            if woken >= total * (0.1, 0.9, 2.0)[len(edges)]:
                edges.append((each.at_s, woken))
        (begins_s, first), (ends_s, last) = edges
        return (last - first) / (ends_s - begins_s)

    @property
    def most(self) -> int:
        """How many at most were woken within a second of the clock."""
        seconds = Counter[int]()
        for each in self.alerts:
            seconds[int(each.at_s)] += len(each.members)
        return max(seconds.values())

    def row(self, case: str) -> Row:
        """From the end of the night until alerts were committed."""
        return Row(
            case,
            summarize([each.at_s * 1e3 for each in self.alerts]),
            facts={"people a second": round(self.rate), "most in a second": self.most},
        )

    def bounds(self, case: str) -> list[Bound]:
        """At the rate, nobody early, twice or not at all, and the last one soon."""
        return [
            Bound(f"{case}: rate", self.rate, RATE * (1 + _TOLERANCE), "people a second"),
            Bound(f"{case}: rate", self.rate, RATE * (1 - _TOLERANCE), "people a second", is_least=True),
            Bound(f"{case}: woken before their window ended", self.early, 0, "people"),
            Bound(f"{case}: not woken", self.missing, 0, "people"),
            Bound(f"{case}: woken twice", self.repeated, 0, "people"),
            Bound(f"{case}: the last one", self.last_s, HELD / RATE + _LATE_S, "s"),
        ]


class Nights:
    """Has many people sleep until the same minute, and sees when they are woken."""

    def __init__(self, connection: asyncpg.Connection, broadcasts: Broadcasts) -> None:
        """`connection` is for one thing at a time; `broadcasts` has another."""
        self._connection = connection
        self._broadcasts = broadcasts
        self._people = Audience.of(range(FIRST, FIRST + HELD))

    async def prepare(self) -> None:
        """Makes them reachable by tiers."""
        await self._connection.execute(_QUERIES["sort_by_tier"], FIRST, HELD, _TIER, TOGETHER)

    async def night(self, targetings: Sequence[Sequence[str]]) -> tuple[datetime, list[UUID]]:
        """A night in which a broadcast to each of these tiers is held; when it ends, and the broadcasts."""
        ends = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        if ends - datetime.now(UTC) < timedelta(seconds=_LEAD_S):
            ends += timedelta(minutes=1)
        async with self._connection.transaction():
            await self._connection.execute(_QUERIES["set_nights"], FIRST, HELD, ends)
            await self._connection.execute(_QUERIES["tell_of_nights"], self._people.to_bytes())
        size = HELD // len(targetings)
        sent = [await self._broadcasts.send(ERRAND, Targeting(tiers=tiers), size) for tiers in targetings]
        await self._until("count_held", sent, HELD)
        if datetime.now(UTC) >= ends:
            raise RuntimeError("the night was over before all were asleep")
        return ends, sent

    async def morning(self, ends: datetime, sent: Sequence[UUID]) -> Morning:
        """Who was woken when, once nobody is left to be."""
        await self._until("count_asleep", sent, 0)
        rows = await self._connection.fetch(_QUERIES["list_alerts"], list(sent))
        alerts = [
            Alerts((row["arrived_at"] - ends).total_seconds(), Audience.from_bytes(row["members"]))
            for row in rows
        ]
        return Morning(alerts, self._people)

    async def _until(self, query: str, sent: Sequence[UUID], people: int) -> None:
        deadline = perf_counter() + _DEADLINE_S
        while (found := await self._connection.fetchval(_QUERIES[query], list(sent))) != people:
            if perf_counter() > deadline:
                raise RuntimeError(f"{query}: {found} people after {_DEADLINE_S:g} s, not {people}")
            await asyncio.sleep(_POLL_S)


async def run(full: bool, console: Console) -> Result:
    """Starts a stack with a million recipients and measures one broadcast's release, then that of ten together."""
    with started(RECIPIENTS, console, settings={"DISPATCHER_RELEASE_PER_SECOND": str(RATE)}) as stack:
        url = stack.environment["DATABASE_URL"]
        connections = [await asyncpg.connect(url) for _ in range(3)]
        async with grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as channel:
            sender = SenderServiceStub(channel)
            urgent = await Urgent.prepare(stack, connections[0], sender)
            nights = Nights(connections[1], await Broadcasts.open(connections[2], sender, mailer(stack)))
            await nights.prepare()
            await urgent.one_by_one(WARM_UP)
            with console.status("waiting for a calm disk"):
                disk = await calm(stack.state.path)
            gc.freeze()
            with console.status("measuring"):
                idle = summarize(await urgent.on_schedule(FULL_IDLE_SENDS if full else IDLE_SENDS))
                ends, sent = await nights.night([_TIERS])
                await _sleep_until(ends)
                took_ms = await urgent.on_schedule(round(HELD / RATE / EVERY_S))
                one = await nights.morning(ends, sent)
                ends, sent = await nights.night([[tier] for tier in _TIERS])
                await _sleep_until(ends)
                ten = await nights.morning(ends, sent)
        for each in connections:
            await each.close()
    beside = summarize(took_ms)
    ten_of = f"{TOGETHER} of {HELD // TOGETHER:,}"
    return Result(
        scenario=SCENARIO,
        title=f"{HELD:,} people whose quiet hours end in the same minute, at {RATE:,} a second",
        rows=[
            one.row(f"one broadcast to {HELD:,}: end of the night → alert"),
            ten.row(f"{ten_of} together: end of the night → alert"),
            Row("critical to 50 people, idle: scheduled → durable in every inbox", idle),
            Row("critical to 50 people, in the middle of the release", beside),
        ],
        bounds=[
            *one.bounds("one broadcast"),
            *ten.bounds(ten_of),
            Bound("critical p99 in the middle", beside.p99, max(2 * idle.p99, LEAST_BOUND_MS)),
        ],
        settings={"recipients": RECIPIENTS, "rate": RATE, "full": full, "fsync_ms": asdict(disk)},
    )


async def _sleep_until(moment: datetime) -> None:
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
