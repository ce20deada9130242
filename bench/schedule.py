"""Due times: how late one leaves and arrives on an idle suite, and ten thousand that are due in the same second."""

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Priority, Targeting
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.announcements import Announced, Announcements, nats_server
from bench.broadcasts import EMERGENCY, PAYMENT, have_accepted
from bench.report import Bound, Result, Row, Summary, summarize
from bench.site import Metadata, mailer, started
from shared.queries import load

SCENARIO: Final = "schedule"
RECIPIENTS: Final = 10_000
ALONE: Final = 120
FULL_ALONE: Final = 400
_BETWEEN_S: Final = 0.25
TOGETHER: Final = 10_000
PRIORITIES: Final = (
    Priority.PRIORITY_CRITICAL,
    Priority.PRIORITY_HIGH,
    Priority.PRIORITY_NORMAL,
    Priority.PRIORITY_LOW,
)
_PEOPLE: Final = 3
_CALLERS: Final = 16
_TRIAL: Final = 200
"""So many tell how long it takes to have all accepted, and so when they may be due."""
_SLACK: Final = 1.5
_LEAD_S: Final = 5.0
_POLL_S: Final = 0.002
_LOOK_S: Final = 1.0
_PATIENCE_S: Final = 1_800.0
_IDLE_LIMIT_MS: Final = 250.0
# Lanes have workers of their own, so what is less urgent begins when the last critical ones leave room for it.
_MOST_AHEAD: Final = 256
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A broadcast that was accepted for a Unix time."""

    broadcast_id: str
    priority: "Priority.ValueType"
    due: float


@dataclass(frozen=True, slots=True)
class End:
    """What became of one: its state, and seconds from its due time to the last inbox and to its end."""

    priority: int
    state: str
    arrived_s: float
    sent_s: float


class Suite:
    """A running stack, and what is scheduled on it."""

    def __init__(self, connection: asyncpg.Connection, sender: SenderServiceStub, metadata: Metadata) -> None:
        self._connection = connection
        self._sender = sender
        self._metadata = metadata
        self._people: list[UUID] = []
        self._weddings: list[UUID] = []

    async def prepare(self) -> None:
        """Finds whom to write to."""
        people = await self._connection.fetch(_QUERIES["list_people"], RECIPIENTS)
        weddings = await self._connection.fetch(_QUERIES["list_weddings"], RECIPIENTS)
        self._people = [row["user_id"] for row in people]
        self._weddings = [row["wedding_id"] for row in weddings]

    async def schedule(self, due: Iterable[tuple["Priority.ValueType", float]]) -> list[Scheduled]:
        """Have these accepted, several at once."""
        callers, accepted = asyncio.Semaphore(_CALLERS), list[Scheduled]()

        async def one(priority: "Priority.ValueType", moment: float) -> None:
            async with callers:
                answer = await have_accepted(self._sender, self._request(priority, moment), self._metadata)
            accepted.append(Scheduled(answer.broadcast.broadcast_id, priority, moment))

        async with asyncio.TaskGroup() as sending:
            for priority, moment in due:
                sending.create_task(one(priority, moment))
        return accepted

    def _request(self, priority: "Priority.ValueType", moment: float) -> SendBroadcastRequest:
        """To a handful of people. A critical one is about a wedding, or it would wait for approval."""
        request = SendBroadcastRequest(
            request_id=str(uuid4()),
            type=PAYMENT.type,
            priority=priority,
            title="Your subscription is due",
            message="Please update your payment details to keep your account active.",
        )
        request.scheduled_for.FromDatetime(datetime.fromtimestamp(moment, UTC))
        if priority == EMERGENCY.priority:
            request.type, request.wedding_id = EMERGENCY.type, str(random.choice(self._weddings))
        else:
            users = random.sample(self._people, _PEOPLE)
            request.targeting.CopyFrom(Targeting(user_ids=map(str, users)))
        return request

    async def arrivals(self, scheduled: Sequence[Scheduled]) -> dict[str, float]:
        """When each was seen in an inbox, Unix time; returns once all were."""
        waiting, seen = {UUID(each.broadcast_id): each.due for each in scheduled}, dict[str, float]()
        while waiting:
            now = time.time()
            due = [broadcast_id for broadcast_id, moment in waiting.items() if moment <= now]
            rows = await self._connection.fetch(_QUERIES["arrived"], due) if due else ()
            for row in rows:
                del waiting[row["broadcast_id"]]
                seen[str(row["broadcast_id"])] = time.time()
            await asyncio.sleep(_POLL_S)
        return seen

    async def ends(self, scheduled: Sequence[Scheduled]) -> dict[str, End]:
        """What each has come to, once all have."""
        ids = [UUID(each.broadcast_id) for each in scheduled]
        while await self._connection.fetchval(_QUERIES["count_unfinished"], ids):
            await asyncio.sleep(_LOOK_S)
        return {
            str(row["broadcast_id"]): End(
                row["priority"], row["state"], row["arrived_s"] or 0.0, row["sent_s"] or 0.0
            )
            for row in await self._connection.fetch(_QUERIES["list_ends"], ids)
        }


async def run(full: bool, console: Console) -> Result:
    """Starts a stack on a NATS server that can be listened to, and measures both."""
    with nats_server() as url, started(RECIPIENTS, console, settings={"NATS_URL": url}) as stack:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        announcements = await Announcements.open(url)
        async with grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as channel:
            suite = Suite(connection, SenderServiceStub(channel), mailer(stack))
            await suite.prepare()
            with console.status("one at a time"):
                alone = await _alone(suite, announcements, FULL_ALONE if full else ALONE)
            with console.status(f"{TOGETHER:,} at once"):
                together = await _together(suite, announcements)
        await announcements.close()
        await connection.close()
    return Result(
        SCENARIO,
        "Due → announced, and in every inbox",
        [*alone, *together.rows()],
        [
            Bound("one at a time, announced p99", alone[0].ours.p99, _IDLE_LIMIT_MS),
            Bound("one at a time, in the inbox p99", alone[1].ours.p99, _IDLE_LIMIT_MS),
            *together.bounds(),
        ],
        settings={"recipients": RECIPIENTS, "together": TOGETHER, "full": full},
    )


async def _alone(suite: Suite, announcements: Announcements, count: int) -> list[Row]:
    """At moments of chance, far enough apart for each to be alone."""
    first = time.time() + _LEAD_S + count * 0.02
    gaps = [random.uniform(0.5, 1.5) * _BETWEEN_S for _ in range(count)]
    due = [(PAYMENT.priority, first + moment) for moment in accumulate(gaps)]
    scheduled = await suite.schedule(due)
    async with asyncio.timeout(_PATIENCE_S):
        arrived = await suite.arrivals(scheduled)
    heard = announcements.first
    return [
        Row("one at a time, announced", _late((heard[each.broadcast_id].at, each.due) for each in scheduled)),
        Row(
            "one at a time, in the inbox", _late((arrived[each.broadcast_id], each.due) for each in scheduled)
        ),
    ]


@dataclass(frozen=True, slots=True)
class Together:
    """What became of those that were due at once, and in which order they were announced."""

    scheduled: Sequence[Scheduled]
    ends: Mapping[str, End]
    announced: Mapping[str, Announced]
    times: Mapping[str, int]

    def rows(self) -> list[Row]:
        """One for each priority: from due to its inboxes."""
        return [self._row(priority) for priority in PRIORITIES]

    def _row(self, priority: "Priority.ValueType") -> Row:
        mine = [each for each in self.scheduled if each.priority == priority]
        ends = [self.ends[each.broadcast_id] for each in mine]
        last = max(self.announced[each.broadcast_id].at - each.due for each in mine)
        return Row(
            f"{len(mine):,} {Priority.Name(priority).removeprefix('PRIORITY_').lower()} at once, in the inbox",
            summarize([end.arrived_s * 1e3 for end in ends]),
            facts={
                "last announced": last * 1e3,
                "last sent": max(end.sent_s for end in ends) * 1e3,
                "announced again": sum(self.times[each.broadcast_id] - 1 for each in mine),
            },
        )

    def bounds(self) -> list[Bound]:
        """All are sent, none before its time, and none is announced before one that is more urgent."""
        sent = sum(end.state == "sent" for end in self.ends.values())
        early = sum(self.announced[each.broadcast_id].at < each.due for each in self.scheduled)
        return [
            Bound("at once, sent", sent, TOGETHER, "broadcasts", is_least=True),
            Bound("at once, announced before its time", early, 0, "broadcasts"),
            Bound("at once, announced before a more urgent one", self.overtaken(), 0, "broadcasts"),
            Bound(
                "at once, in an inbox before the last critical one", self.ahead(), _MOST_AHEAD, "broadcasts"
            ),
        ]

    def ahead(self) -> int:
        """How many less urgent ones were in their inboxes before the last critical one was."""
        critical = [end.arrived_s for end in self.ends.values() if end.priority == EMERGENCY.priority]
        return sum(
            end.arrived_s < max(critical) for end in self.ends.values() if end.priority != EMERGENCY.priority
        )

    def overtaken(self) -> int:
        """How many were announced before one of a more urgent priority."""
        order = sorted(self.scheduled, key=lambda each: self.announced[each.broadcast_id].place, reverse=True)
        most_urgent_after, overtaking = max(PRIORITIES), 0
        for each in order:
            overtaking += each.priority > most_urgent_after
            most_urgent_after = min(most_urgent_after, each.priority)
        return overtaking


async def _together(suite: Suite, announcements: Announcements) -> Together:
    began = time.time()
    trial = await suite.schedule((priority, began + 86_400.0) for priority in _mixed(_TRIAL))
    each_s = (time.time() - began) / len(trial)
    moment = time.time() + _LEAD_S + _SLACK * each_s * TOGETHER
    scheduled = await suite.schedule((priority, moment) for priority in _mixed(TOGETHER))
    if time.time() >= moment:
        raise RuntimeError("the broadcasts were due before all of them were accepted")
    async with asyncio.timeout(_PATIENCE_S):
        ends = await suite.ends(scheduled)
    return Together(scheduled, ends, announcements.first, announcements.times)


def _mixed(count: int) -> list["Priority.ValueType"]:
    """As many of each priority, in an order of chance."""
    priorities = [PRIORITIES[place % len(PRIORITIES)] for place in range(count)]
    random.shuffle(priorities)
    return priorities


def _late(moments: Iterable[tuple[float, float]]) -> Summary:
    return summarize([(happened - due) * 1e3 for happened, due in moments])
