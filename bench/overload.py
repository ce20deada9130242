"""What the suite carries, and what it still does when it is offered three times that for a minute, and right after.

Those who call have a core of their own, as on machines of their own: what they need must not look like what refusing
them costs. The suite with its servers has the others.
"""

import asyncio
import os
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final
from uuid import UUID

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Priority, ReceiptAction, Targeting
from wedsync.broadcast.v1.inbox_pb2 import (
    GetUnreadCountRequest,
    ListInboxItemsRequest,
    RecordReceiptsRequest,
)
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.broadcasts import PAYMENT, Broadcasts
from bench.offering import DEADLINE_S, Offering, Outcome, Work
from bench.peak_memory import forget_peak, peak_mib, resident_mib
from bench.report import Bound, Result, Row, summarize
from bench.site import mailer, started
from shared.queries import load
from stack.background import BackgroundStack
from stack.tokens import TokenMint

SCENARIO: Final = "overload"
RECIPIENTS: Final = 10_000
CALLERS: Final = 500
_TOGETHER: Final = 3
ITEMS: Final = 60
PAGE: Final = 50
TIMES: Final = 3
SECONDS, FULL_SECONDS = 12.0, 60.0
STEP_SECONDS: Final = 5.0
RATES: Final = {
    "SendBroadcast": (10, 20, 30, 40, 50, 60, 80, 100, 150, 200),
    "RecordReceipts": (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 800, 1_000, 1_200),
    "ListInboxItems": (25, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800),
    "GetUnreadCount": (500, 700, 900, 1_100, 1_300, 1_600, 1_800, 2_000, 2_200, 2_400, 2_800),
}
SERVICES: Final = ("sender", "preferences", "dispatcher", "inbox")
NORMAL_AGAIN_S: Final = 10.0
_GOODPUT: Final = 0.8
_CARRIED: Final = 0.99
_NORMAL_SHARE: Final = 0.99
_MOST_GROWTH_MIB: Final = 100.0
# At a rate that is carried, no work piles up.
_CAUGHT_UP_S: Final = 2.0
# One step that fails may have met something else on the machine; two in a row have not.
_MISSES: Final = 2
_POLL_S: Final = 0.1
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, slots=True)
class Overload:
    """What was carried, what became of three times that, how soon all was well, and megabytes by service.

    What is carried was measured right `before` and right `after` the overload, together for half as long, because
    the machine has better and worse minutes.
    """

    rate: float
    before: Outcome
    offered: Outcome
    after: Outcome
    normal_s: float
    before_mib: Mapping[str, float]
    peak_mib: Mapping[str, float]
    after_mib: Mapping[str, float]

    @property
    def best(self) -> float:
        """Goodput at the highest rate that is carried."""
        return (self.before.answered + self.after.answered) / (self.before.seconds + self.after.seconds)

    @property
    def goodput_share(self) -> float:
        """Goodput under three times the load, of the best."""
        return self.offered.goodput / self.best

    def rows(self, method: str) -> Iterator[Row]:
        """Latencies of answered calls, and of refusals, with rates beside them."""
        yield Row(
            f"{method}, carried",
            summarize([*self.before.latencies_ms, *self.after.latencies_ms]),
            facts={"offered/s": self.rate, "answered/s": round(self.best, 1)},
        )
        yield Row(
            f"{method}, {TIMES} times that",
            summarize(self.offered.latencies_ms),
            facts={
                "offered/s": round(self.offered.offered / self.offered.seconds, 1),
                "answered/s": round(self.offered.goodput, 1),
                "of its best": round(self.goodput_share, 2),
                "refused": self.offered.refused,
                "late": self.offered.late,
                "normal again in s": round(self.normal_s, 1),
            }
            | {f"{name} peak MiB": round(self.peak_mib[name]) for name in SERVICES},
        )
        if self.offered.refusals_ms:
            yield Row(f"{method}, its refusals", summarize(self.offered.refusals_ms))

    def bounds(self, method: str) -> Iterator[Bound]:
        """What is promised of it."""
        yield Bound(f"{method}, goodput of its best", self.goodput_share, _GOODPUT, "", is_least=True)
        yield Bound(f"{method}, refusals that do not say when to come again", self.offered.unclear, 0, "")
        yield Bound(f"{method}, other failures", sum(self.offered.codes.values()), 0, "")
        yield Bound(f"{method}, normal again after", self.normal_s, NORMAL_AGAIN_S, "s")
        growth = max(self.peak_mib[name] - self.before_mib[name] for name in SERVICES)
        yield Bound(f"{method}, growth of a service at most", growth, _MOST_GROWTH_MIB, "MiB")


class Suite:
    """A running stack, and what it is offered."""

    def __init__(self, stack: BackgroundStack, connection: asyncpg.Connection, cores: Sequence[int]) -> None:
        """`cores` are those of the callers."""
        self._stack = stack
        self._cores = cores
        self._connection = connection
        self._mint = TokenMint.existing(stack.state.keys)
        self._sent: list[UUID] = []

    async def fill(self) -> None:
        """Everybody has as many items as a page holds."""
        async with grpc.aio.insecure_channel(self._stack.environment["SENDER_ADDR"]) as channel:
            broadcasts = await Broadcasts.open(
                self._connection, SenderServiceStub(channel), mailer(self._stack)
            )
            for _ in range(ITEMS):
                self._sent.append(await broadcasts.send(PAYMENT, Targeting(everyone=True), RECIPIENTS))
            await self._caught_up()

    async def work(self, method: str) -> Work:
        """The calls of a method."""
        rows = await self._connection.fetch(_QUERIES["list_people"], CALLERS)
        users: list[UUID] = [row["user_id"] for row in rows]
        if method == "SendBroadcast":
            token = self._mint.mint_service_token("bench", ["broadcast.send"])
            sends = [(token, _send(users[n : n + 10])) for n in range(0, CALLERS, 10)]
            target, path = self._stack.environment["SENDER_ADDR"], _path("SenderService", method)
            return Work(target, path, sends, is_new=True, cores=self._cores)
        calls = [(self._mint.mint_user_token(user_id), self._request(method)) for user_id in users]
        target, path = self._stack.environment["INBOX_ADDR"], _path("InboxService", method)
        return Work(target, path, calls, is_new=method == "RecordReceipts", cores=self._cores)

    def _request(self, method: str) -> bytes:
        """What somebody asks of their inbox."""
        if method == "RecordReceipts":
            ids = map(str, random.sample(self._sent, _TOGETHER))
            read = ReceiptAction.RECEIPT_ACTION_READ
            return RecordReceiptsRequest(broadcast_ids=ids, action=read).SerializeToString()
        if method == "ListInboxItems":
            # First pages come from memory; a search is what the database is asked for.
            return ListInboxItemsRequest(page_size=PAGE, search="subscription").SerializeToString()
        return GetUnreadCountRequest().SerializeToString()

    async def measure(self, method: str, seconds: float) -> Overload:
        """Finds what is carried, offers three times that in the middle of it, and waits until all is well again."""
        async with _offering(await self.work(method)) as offering:
            await offering.offer(RATES[method][0], STEP_SECONDS)
            rate = await self._carried(offering, RATES[method])
            best_before = await self._settled(offering, rate, seconds / 4)
            for pid in self._pids():
                forget_peak(pid)
            before = self._mib(resident_mib)
            offered = await offering.offer(rate * TIMES, seconds)
            normal_s = await self._normal_again(offering, rate / 2)
            peak, after = self._mib(peak_mib), self._mib(resident_mib)
            best_after = await self._settled(offering, rate, seconds / 4)
            return Overload(rate, best_before, offered, best_after, normal_s, before, peak, after)

    async def _settled(self, offering: Offering, rate: float, seconds: float) -> Outcome:
        """An offer, once what it leaves to be delivered is."""
        outcome = await offering.offer(rate, seconds)
        await self._caught_up()
        return outcome

    async def _carried(self, offering: Offering, rates: Sequence[int]) -> float:
        """The highest rate at which nearly all calls are answered in time, and nothing is left behind for long.

        Shortly offered, so this may be a little more than would be carried for long, but hardly less.
        """
        best, missed = 0, 0
        for rate in rates:
            outcome = await offering.offer(rate, STEP_SECONDS)
            ended = monotonic()
            await self._caught_up()
            if outcome.answered_share >= _CARRIED and monotonic() - ended <= _CAUGHT_UP_S:
                best, missed = rate, 0
            elif (missed := missed + 1) == _MISSES:
                break
        if not best:
            raise RuntimeError(f"not even {rates[0]} calls a second are carried")
        return best

    async def _normal_again(self, offering: Offering, rate: float) -> float:
        """Seconds until calls at half of what is carried are all answered, and nothing is left to be delivered."""
        started_at = monotonic()
        while True:
            since = monotonic() - started_at
            outcome = await offering.offer(rate, 1.0)
            if outcome.answered_share >= _NORMAL_SHARE:
                break
        await self._caught_up()
        return max(since, monotonic() - started_at - 1.0)

    async def _caught_up(self) -> None:
        while await self._connection.fetchval(_QUERIES["count_waiting"]):
            await asyncio.sleep(_POLL_S)

    def _pids(self) -> list[int]:
        return [process.pid for name in SERVICES for process in self._stack.services(name)]

    def _mib(self, read: Callable[[int], float]) -> dict[str, float]:
        """Of all processes of each service together."""
        return {name: sum(read(process.pid) for process in self._stack.services(name)) for name in SERVICES}


async def run(full: bool, console: Console) -> Result:
    """Starts a stack and overloads it with one kind of call after the other."""
    seconds = FULL_SECONDS if full else SECONDS
    measured: dict[str, Overload] = {}
    with _apart() as cores, started(RECIPIENTS, console) as stack:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        suite = Suite(stack, connection, cores)
        with console.status("filling inboxes"):
            await suite.fill()
        for method in RATES:
            with console.status(method):
                measured[method] = await suite.measure(method, seconds)
        await connection.close()
    return Result(
        SCENARIO,
        f"{TIMES} times what is carried, for {seconds:g} s",
        [row for method, each in measured.items() for row in each.rows(method)],
        [bound for method, each in measured.items() for bound in each.bounds(method)],
        settings={"recipients": RECIPIENTS, "callers": CALLERS, "deadline_s": DEADLINE_S, "full": full},
    )


@contextmanager
def _apart() -> Iterator[Sequence[int]]:
    """Whatever is started in this block has all cores but the last; that one it answers, for those who call."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:-1] or cores)
    try:
        yield cores[-1:]
    finally:
        os.sched_setaffinity(0, cores)


@asynccontextmanager
async def _offering(work: Work) -> AsyncIterator[Offering]:
    with tempfile.TemporaryDirectory() as folder:
        offering = await Offering.start(work, Path(folder))
        try:
            yield offering
        finally:
            await offering.close()


def _send(user_ids: Sequence[UUID]) -> bytes:
    """A broadcast to a few people, without its request_id; of a type that nobody can have muted."""
    return SendBroadcastRequest(
        type=PAYMENT.type,
        priority=Priority.PRIORITY_NORMAL,
        title="Your subscription is due",
        message="Please update your payment details to keep your account active.",
        targeting=Targeting(user_ids=map(str, user_ids)),
    ).SerializeToString()


def _path(service: str, method: str) -> str:
    return f"/wedsync.broadcast.v1.{service}/{method}"
