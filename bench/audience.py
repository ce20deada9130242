"""Who is meant by a broadcast: asked through gRPC over a million people, beside the SQL that answers the same."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final
from uuid import uuid4

import asyncpg
import grpc
from google.type.date_pb2 import Date
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from wedsync.broadcast.v1.audience_pb2 import CountAudienceRequest, DeliveryRules, ResolveAudienceRequest
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.common_pb2 import Category, Priority, Targeting
from wedsync.broadcast.v1.directory_pb2 import (
    CreateSegmentRequest,
    Recipient,
    Segment,
    SegmentCriteria,
    UpsertRecipientsRequest,
    UpsertWeddingsRequest,
    UserType,
    WeddingEntry,
    WeddingStatus,
)
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.sender_pb2 import PreviewAudienceRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench import reevaluation
from bench.everything_set import set_everything
from bench.peak_memory import peak_mib
from bench.report import Bound, Result, Row, summarize
from bench.site import Metadata, administrator, service, started
from shared.queries import load
from stack.background import BackgroundStack

SCENARIO: Final = "audience"
RECIPIENTS: Final = 1_000_000
WEDDINGS: Final = 100
ROLES, TIERS = ["photographer", "florist"], ["professional"]
STATUSES, WITHIN_DAYS = ["planning", "confirmed"], 180
TYPE: Final = "feature.released"
RULES: Final = DeliveryRules(type=TYPE, category=Category.CATEGORY_SYSTEM, priority=Priority.PRIORITY_NORMAL)
EVERYTHING_SET: Final = ", everything set"
COUNTS, PREVIEWS, RESOLVES, CHANGES, SQL_RUNS, STARTS = 400, 200, 40, 40, 10, 2
FULL_FACTOR: Final = 5
WARM_UP: Final = 20
FIRST_CHANGED: Final = 700_001
CHANGED_TIER: Final = "bench-changed"
TIMEOUT_S: Final = 120.0
# All bitmaps of a million people in one message are more than a channel takes unless it is told.
_LARGE: Final = [("grpc.max_receive_message_length", 16 << 20)]
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))

Ask = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Samples:
    """Milliseconds of one question, ours and in SQL."""

    ours: list[float] = field(default_factory=list)
    sql: list[float] = field(default_factory=list)

    async def take(self, ask: Ask, into: list[float]) -> None:
        """Asks once."""
        started_at = perf_counter()
        await ask()
        into.append((perf_counter() - started_at) * 1e3)


class Questions:
    """What is asked, by gRPC and by SQL."""

    def __init__(
        self, stack: BackgroundStack, connection: asyncpg.Connection, channels: tuple[grpc.aio.Channel, ...]
    ) -> None:
        """`channels` are those to preferences and sender."""
        preferences, sender = channels
        self.connection = connection
        self._audience = AudienceServiceStub(preferences)
        self._directory = DirectoryServiceStub(preferences)
        self._sender = SenderServiceStub(sender)
        self._internal = service(stack, ["internal"])
        self._writer = service(stack, ["directory.write", "directory.admin"])
        self._admin: Metadata = administrator(stack)
        self.weddings: list[str] = []
        self.segment_id = ""

    async def prepare(self) -> None:
        """Chooses the weddings that bound an audience with three criteria, and makes a segment."""
        rows = await self.connection.fetch(_QUERIES["find_weddings"], WEDDINGS)
        self.weddings = [str(row["wedding_id"]) for row in rows]
        criteria = SegmentCriteria(
            wedding_statuses=[WeddingStatus.Value(f"WEDDING_STATUS_{each.upper()}") for each in STATUSES],
            wedding_within_days=WITHIN_DAYS,
        )
        request = CreateSegmentRequest(segment=Segment(name="Soon married", criteria=criteria))
        answer = await self._directory.CreateSegment(request, metadata=self._writer, timeout=TIMEOUT_S)
        self.segment_id = answer.segment.segment_id

    @property
    def _targeting(self) -> Targeting:
        return Targeting(roles=ROLES, tiers=TIERS, wedding_ids=self.weddings)

    async def count(self) -> int:
        """How many people three criteria mean."""
        return await self._count(self._targeting)

    async def count_in_sql(self) -> int:
        """The same."""
        return int(await self._sql("fetchval", "count_three_criteria"))

    async def preview(self) -> None:
        """What each of them would get, as a person who sends sees it."""
        request = PreviewAudienceRequest(targeting=self._targeting, type=TYPE)
        await self._sender.PreviewAudience(request, metadata=self._admin, timeout=TIMEOUT_S)

    async def preview_in_sql(self) -> None:
        """The same, without what presets say."""
        await self._sql("fetch", "preview_three_criteria")

    async def resolve(self) -> int:
        """Everybody, by what they would get, as a dispatcher is told."""
        return await self._resolve(Targeting(everyone=True))

    async def count_segment(self) -> int:
        """How many people are on a wedding of some statuses in the next half year."""
        return await self._count(Targeting(segment_ids=[self.segment_id]))

    async def count_segment_in_sql(self) -> int:
        """The same."""
        found: int = await self.connection.fetchval(
            _QUERIES["count_segment"], STATUSES, WITHIN_DAYS, timeout=TIMEOUT_S
        )
        return found

    async def resolve_segment(self) -> int:
        """The same people, by what they would get."""
        return await self._resolve(Targeting(segment_ids=[self.segment_id]))

    async def resolve_segment_in_sql(self) -> None:
        """The same as rows, without what presets say."""
        await self.connection.fetch(_QUERIES["resolve_segment"], STATUSES, WITHIN_DAYS, timeout=TIMEOUT_S)

    async def change_wedding(self) -> int:
        """Gives a wedding another name, so that no set of weddings is as it was, and counts by the segment."""
        (row,) = await self.connection.fetch(_QUERIES["find_wedding"], self.weddings[0])
        entry = WeddingEntry(
            wedding_id=self.weddings[0],
            couple_name=str(uuid4()),
            wedding_date=Date(
                year=row["wedding_date"].year, month=row["wedding_date"].month, day=row["wedding_date"].day
            ),
            status=WeddingStatus.Value(f"WEDDING_STATUS_{row['status'].upper()}"),
            time_zone=row["time_zone"],
        )
        request = UpsertWeddingsRequest(request_id=str(uuid4()), weddings=[entry])
        await self._directory.UpsertWeddings(request, metadata=self._writer, timeout=TIMEOUT_S)
        return await self.count_segment()

    async def _resolve(self, targeting: Targeting) -> int:
        request = ResolveAudienceRequest(targeting=targeting, rules=RULES)
        targeted = 0
        async for answer in self._audience.ResolveAudience(
            request, metadata=self._internal, timeout=TIMEOUT_S
        ):
            targeted = answer.targeted
        return targeted

    async def resolve_in_sql(self) -> None:
        """The same as rows, without what presets say."""
        await self.connection.fetch(_QUERIES["resolve_everyone"], timeout=TIMEOUT_S)

    async def decide_again(self) -> list[Row]:
        """What it takes while people change."""
        return await reevaluation.measured(self._audience, self._internal, self.connection, RULES, RECIPIENTS)

    async def change(self, turn: int) -> int:
        """Gives somebody a tier and asks at once who has it: how many it was answered."""
        (person,) = await self.connection.fetch(_QUERIES["find_people"], FIRST_CHANGED + turn, 1)
        entry = Recipient(
            user_id=str(person["user_id"]),
            display_name=person["display_name"],
            role=person["role"],
            user_type=UserType.Value(f"USER_TYPE_{person['user_type'].upper()}"),
            tier=CHANGED_TIER,
            email=person["email"] or "",
            phone=person["phone"] or "",
            time_zone=person["time_zone"],
        )
        request = UpsertRecipientsRequest(request_id=str(uuid4()), recipients=[entry])
        await self._directory.UpsertRecipients(request, metadata=self._writer, timeout=TIMEOUT_S)
        return await self._count(Targeting(tiers=[CHANGED_TIER]))

    async def change_in_sql(self) -> None:
        """Who has it, in SQL."""
        await self.connection.fetchval(_QUERIES["count_tier"], CHANGED_TIER)

    async def _count(self, targeting: Targeting) -> int:
        answer = await self._audience.CountAudience(
            CountAudienceRequest(targeting=targeting), metadata=self._internal, timeout=TIMEOUT_S
        )
        return int(answer.targeted)

    async def _sql(self, how: str, query: str) -> int:
        ask = getattr(self.connection, how)
        answer: int = await ask(_QUERIES[query], ROLES, TIERS, self.weddings, timeout=TIMEOUT_S)
        return answer


async def run(full: bool, console: Console) -> Result:
    """Starts a stack with a million recipients and asks."""
    factor = FULL_FACTOR if full else 1
    with started(RECIPIENTS, console) as stack:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        async with (
            grpc.aio.insecure_channel(stack.environment["PREFERENCES_ADDR"], _LARGE) as preferences,
            grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as sender,
        ):
            questions = Questions(stack, connection, (preferences, sender))
            await questions.prepare()
            with console.status("measuring"):
                asked = await _ask(questions, factor)
                changed, stale = await _change(questions, factor)
            with console.status("starting preferences anew"):
                peaks_mib = [_peak_mib(stack)]
                starts = [await _start_anew(stack, preferences) for _ in range(STARTS)]
                peaks_mib.append(_peak_mib(stack))
            with console.status("measuring with everything set"):
                settings = await set_everything(connection, TYPE)
                asked |= await _ask(questions, factor, EVERYTHING_SET)
                again = await questions.decide_again()
                full_starts = [await _start_anew(stack, preferences)]
                peaks_mib.append(_peak_mib(stack))
        weddings = await connection.fetchval(_QUERIES["count_weddings"])
        await connection.close()
    rows = [Row(name, summarize(each.ours), summarize(each.sql)) for name, each in asked.items()]
    rows.append(Row("a change, then a count that has it", summarize(changed.ours), summarize(changed.sql)))
    rows.append(Row("start, until it serves", summarize(starts)))
    rows.append(Row(f"start, until it serves{EVERYTHING_SET}", summarize(full_starts)))
    rows += again
    return Result(
        scenario=SCENARIO,
        title=f"Who is meant, of {RECIPIENTS:,} people in {weddings:,} weddings",
        rows=rows,
        bounds=[
            *_bounds({row.case: row for row in rows}),
            *reevaluation.bounds({row.case: row for row in again}, RECIPIENTS),
            Bound("answers that did not know of the change before", stale, 0, ""),
            Bound("preferences, peak memory", max(peaks_mib), 400, "MiB"),
        ],
        baseline="SQL",
        settings={"recipients": RECIPIENTS, "weddings": weddings, "full": full, **settings},
    )


def _bounds(rows: dict[str, Row]) -> Iterator[Bound]:
    for world in ("", EVERYTHING_SET):
        for question, limit in (
            ("count by three criteria", 20.0),
            ("preview by three criteria", 20.0),
            ("resolve everyone", 100.0),
            ("count by a segment", 20.0),
            ("resolve a segment", 100.0),
        ):
            yield Bound(f"{question} p99{world}", rows[question + world].ours.p99, limit)
        yield Bound(
            f"start, until it serves{world}", rows[f"start, until it serves{world}"].ours.max, 15_000.0
        )


async def _ask(questions: Questions, factor: int, world: str = "") -> dict[str, Samples]:
    """Each question in turn, and now and then its SQL between two of them; `world` is added to their names."""
    if (ours := await questions.count()) != (theirs := await questions.count_in_sql()):
        raise RuntimeError(f"SQL counts {theirs} people, and we {ours}")
    if (resolved := await questions.resolve()) != RECIPIENTS:
        raise RuntimeError(f"{resolved} people are everyone")
    in_segment = await questions.count_segment_in_sql()
    if not in_segment or {await questions.count_segment(), await questions.resolve_segment()} != {in_segment}:
        raise RuntimeError(f"SQL counts {in_segment} people in a segment, and we do not")
    kinds = (
        ("count by three criteria", COUNTS, questions.count, questions.count_in_sql),
        ("preview by three criteria", PREVIEWS, questions.preview, questions.preview_in_sql),
        ("resolve everyone", RESOLVES, questions.resolve, questions.resolve_in_sql),
        ("count by a segment", COUNTS, questions.count_segment, questions.count_segment_in_sql),
        ("resolve a segment", RESOLVES, questions.resolve_segment, questions.resolve_segment_in_sql),
        (
            "a wedding changed, then a count by a segment",
            CHANGES,
            questions.change_wedding,
            questions.count_segment_in_sql,
        ),
    )
    samples = {name + world: Samples() for name, *_ in kinds}
    for name, runs, ours_asks, sql_asks in kinds:
        mine = samples[name + world]
        for _ in range(WARM_UP if runs > WARM_UP * 2 else 3):
            await ours_asks()
        await sql_asks()
        between = max(1, runs * factor // SQL_RUNS)
        for turn in range(runs * factor):
            await mine.take(ours_asks, mine.ours)
            if turn % between == 0:
                await mine.take(sql_asks, mine.sql)
    return samples


async def _change(questions: Questions, factor: int) -> tuple[Samples, int]:
    """Changes people one after the other; how many counts after a change did not have it."""
    samples, stale = Samples(), 0
    for turn in range(CHANGES * factor):
        started_at = perf_counter()
        counted = await questions.change(turn)
        samples.ours.append((perf_counter() - started_at) * 1e3)
        stale += counted != turn + 1
        if turn % factor == 0 and len(samples.sql) < SQL_RUNS:
            await samples.take(questions.change_in_sql, samples.sql)
    return samples, stale


async def _start_anew(stack: BackgroundStack, channel: grpc.aio.Channel) -> float:
    """Milliseconds from the end of the process until another, started by the supervisor, says that it serves."""
    old = {process.pid for process in stack.services("preferences")}
    stack.kill("preferences")
    started_at = perf_counter()
    health = health_pb2_grpc.HealthStub(channel)
    while perf_counter() - started_at < TIMEOUT_S:
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.aio.AioRpcError:
            answer = None
        is_new = old.isdisjoint(process.pid for process in stack.services("preferences"))
        if is_new and answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING:
            return (perf_counter() - started_at) * 1e3
        await asyncio.sleep(0.05)
    raise RuntimeError(f"preferences does not serve after {TIMEOUT_S:g} s")


def _peak_mib(stack: BackgroundStack) -> float:
    (process,) = stack.services("preferences")
    return round(peak_mib(process.pid), 1)
