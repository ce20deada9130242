"""What it takes to decide again about a million people in the middle of a fan-out: what changed, not who is meant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

import asyncpg
from wedsync.broadcast.v1.audience_pb2 import (
    DeliveryRules,
    ReevaluateAudienceRequest,
    ResolveAudienceRequest,
    ResolveAudienceResponse,
)
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub
from wedsync.broadcast.v1.common_pb2 import Channel, Targeting

from bench.report import Bound, Row, summarize
from bench.site import Metadata
from shared.audience import Audience
from shared.queries import load

MANY, FEW = 10_000, 100
ASKED, EDITS = 60, 200
TIMEOUT_S: Final = 60.0
ALL_CASE: Final = f"again about {{:,}}, {MANY:,} changed"
CHANGED_CASE: Final = f"again about these {MANY:,} alone"
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))


@dataclass(slots=True)
class Fanout:
    """A broadcast to everyone, of which parts are yet to leave: decided at a version of the directory and a time."""

    audience: AudienceServiceStub
    metadata: Metadata
    connection: asyncpg.Connection
    rules: DeliveryRules
    decided: ResolveAudienceResponse = field(default_factory=ResolveAudienceResponse)

    async def begin(self) -> None:
        """Decides about everybody, as of now."""
        request = ResolveAudienceRequest(
            targeting=Targeting(everyone=True), rules=self.rules, counts_only=True
        )
        answers = self.audience.ResolveAudience(request, metadata=self.metadata, timeout=TIMEOUT_S)
        async for answer in answers:
            self.decided = answer

    async def decide_again(self, members: Audience) -> int:
        """How many of `members` are decided again."""
        request = ReevaluateAudienceRequest(
            members=members.to_bytes(),
            rules=self.rules,
            since_version=self.decided.directory_version,
            since_time=self.decided.decide_time,
        )
        answers = self.audience.ReevaluateAudience(request, metadata=self.metadata, timeout=TIMEOUT_S)
        in_app = Channel.CHANNEL_IN_APP
        return sum(
            [part.count async for answer in answers for part in answer.slices if part.channel == in_app]
        )

    async def change(self, numbers: Sequence[int]) -> float:
        """These people change, each by an edit of their own; milliseconds until an answer has them all."""
        entries = [Audience.of([number]).to_bytes() for number in numbers]
        query = _QUERIES["change_people"]
        await self.connection.fetchval(query, list(numbers), entries, timeout=TIMEOUT_S)
        started_at = perf_counter()
        await self.decide_again(Audience())
        return (perf_counter() - started_at) * 1e3

    async def measure(self, case: str, members: Audience, expected: int) -> Row:
        """The time to decide again about `members`, of whom so many have changed."""
        samples = []
        for _ in range(ASKED):
            # Whose quiet hours begin or end in between is decided again too, so the decision is as old as can be.
            self.decided.decide_time.GetCurrentTime()
            started_at = perf_counter()
            decided = await self.decide_again(members)
            samples.append((perf_counter() - started_at) * 1e3)
            if decided < expected:
                raise RuntimeError(f"{decided} people are decided again, and {expected} have changed")
        return Row(case, summarize(samples), facts={"changed": expected})

    async def measure_edits(self, members: Audience, numbers: Sequence[int]) -> Row:
        """The time to decide again right after each of many who change one by one."""
        samples = []
        for place, number in enumerate(numbers, start=1):
            learned = await self.change([number])
            self.decided.decide_time.GetCurrentTime()
            started_at = perf_counter()
            if await self.decide_again(members) < place:
                raise RuntimeError(f"fewer than {place} people are decided again")
            samples.append(learned + (perf_counter() - started_at) * 1e3)
        return Row(f"again after each of {len(numbers)} edits", summarize(samples), facts={"changed": 1})


async def measured(
    audience: AudienceServiceStub,
    metadata: Metadata,
    connection: asyncpg.Connection,
    rules: DeliveryRules,
    people: int,
) -> list[Row]:
    """Rows for nobody, a hundred and ten thousand who have changed among `people`; and among themselves."""
    everybody = Audience.of(range(1, people + 1))
    rows = await connection.fetch(_QUERIES["list_edited"], MANY + EDITS)
    numbers = [row["recipient_number"] for row in rows]
    many, edits = numbers[:MANY], numbers[MANY:]
    fanout = Fanout(audience, metadata, connection, rules)
    await fanout.begin()
    found = [await fanout.measure(f"again about {people:,}, nobody changed", everybody, 0)]
    await fanout.change(many[:FEW])
    found.append(await fanout.measure(f"again about {people:,}, {FEW} changed", everybody, FEW))
    learned = summarize([await fanout.change(many[FEW:])])
    found.append(Row(f"until {MANY - FEW:,} changes at once are known", learned))
    found.append(await fanout.measure(ALL_CASE.format(people), everybody, MANY))
    found.append(await fanout.measure(CHANGED_CASE, Audience.of(many), MANY))
    await fanout.begin()
    found.append(await fanout.measure_edits(everybody, edits))
    return found


def bounds(rows: Mapping[str, Row], people: int) -> list[Bound]:
    """That it costs what has changed: ten thousand among all as much as among themselves, but for a little."""
    among_all, among_themselves = rows[ALL_CASE.format(people)].ours, rows[CHANGED_CASE].ours
    return [
        Bound(f"again about {people:,}, {MANY:,} changed p99", among_all.p99, 100.0),
        Bound(
            f"again about {people:,} of whom {MANY:,} changed, as many times what these take",
            round(among_all.median / among_themselves.median, 2),
            2.0,
            "",
        ),
    ]
