"""Every inbox process is killed: how long until thousands of people who come back at once have their streams again."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final
from uuid import UUID

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.admissions import Admissions
from bench.broadcasts import PAYMENT, Broadcasts
from bench.report import Bound, Result, Row, summarize
from bench.returning import Crowd, Return, Returning
from bench.site import mailer, started
from stack.background import BackgroundStack
from stack.tokens import TokenMint

SCENARIO: Final = "reconnect"
PEOPLE, FULL_PEOPLE = 2_000, 10_000
CLIENTS: Final = 2
OWN_CONNECTIONS, SHARED_CONNECTIONS = 32, 2
ROUNDS: Final = 2
TIMEOUT_S: Final = 120.0
_LIMIT_MS: Final = 30_000.0
_UNSTEADY: Final = 3.0


@dataclass(frozen=True, slots=True)
class Storm:
    """Milliseconds from the kill until each was back, how unsteadily each round was admitted, and what was wrong."""

    back_ms: Sequence[float]
    unsteadiness: Sequence[float]
    returns: Sequence[Return]

    def total(self, what: str) -> int:
        """The sum of one of the counts of all returns."""
        return sum(getattr(each, what) for each in self.returns)

    def row(self, case: str) -> Row:
        """As the report has it."""
        return Row(case, summarize(self.back_ms), facts={"refused": self.total("refused")})

    def bounds(self, case: str) -> list[Bound]:
        """What is promised of it."""
        return [
            Bound(f"{case}, the last one back", max(self.back_ms), _LIMIT_MS),
            Bound(f"{case}, the busiest second beside the mean", max(self.unsteadiness), _UNSTEADY, "times"),
            Bound(f"{case}, missed", self.total("missed"), 0, "people"),
            Bound(f"{case}, shown twice", self.total("repeated"), 0, "people"),
            Bound(f"{case}, refused without a hint", self.total("without_hint"), 0, "streams"),
        ]


async def run(full: bool, console: Console) -> Result:
    """Measures streams of people's own, then shared ones."""
    people = FULL_PEOPLE if full else PEOPLE
    cases = {
        f"{people:,} streams of their own": (OWN_CONNECTIONS, False),
        f"{people:,} people on {CLIENTS * SHARED_CONNECTIONS} shared streams": (SHARED_CONNECTIONS, True),
    }
    storms: dict[str, Storm] = {}
    with started(people, console, arguments=("--inbox-processes", "2")) as stack:
        for case, (connections, shared) in cases.items():
            with console.status(case):
                storms[case] = await _storm(stack, people, connections, shared)
    return Result(
        SCENARIO,
        "All inbox processes killed → everybody's stream is back",
        [storm.row(case) for case, storm in storms.items()],
        [bound for case, storm in storms.items() for bound in storm.bounds(case)],
        settings={"people": people, "clients": CLIENTS, "inbox_processes": 2, "rounds": ROUNDS, "full": full},
    )


async def _storm(stack: BackgroundStack, people: int, connections: int, shared: bool) -> Storm:
    connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
    async with grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as channel:
        broadcasts = await Broadcasts.open(connection, SenderServiceStub(channel), mailer(stack))
        crowds = await _gather(stack, await broadcasts.users(1, people), connections, shared)
        back_ms: list[float] = []
        unsteadiness: list[float] = []
        returns: list[Return] = []
        for _ in range(ROUNDS):
            killed_at = monotonic()
            stack.kill("inbox")
            async with Admissions(stack, people).followed() as admissions:
                broadcast_id = await broadcasts.send(PAYMENT, Targeting(everyone=True), people)
                returns += await asyncio.gather(
                    *(crowd.back(str(broadcast_id), TIMEOUT_S) for crowd in crowds)
                )
            unsteadiness.append(admissions.unsteadiness())
            back_ms += [(moment - killed_at) * 1e3 for each in returns[-CLIENTS:] for moment in each.back_at]
        await asyncio.gather(*(crowd.close() for crowd in crowds))
    await connection.close()
    storm = Storm(back_ms, unsteadiness, returns)
    if len(storm.back_ms) < people * ROUNDS:
        raise RuntimeError(f"only {len(storm.back_ms)} of {people * ROUNDS} streams came back")
    return storm


async def _gather(
    stack: BackgroundStack, user_ids: Sequence[UUID], connections: int, shared: bool
) -> list[Returning]:
    """The clients, with everybody connected."""
    mint = TokenMint.existing(stack.state.keys)
    sharing = mint.mint_service_token("bench", ["inbox.connect"]) if shared else ""
    target = stack.environment["INBOX_ADDR"]
    tokens = [mint.mint_user_token(user_id) for user_id in user_ids]
    with tempfile.TemporaryDirectory() as folder:
        crowds = [
            await Returning.start(Crowd(target, tokens[n::CLIENTS], connections, sharing), Path(folder))
            for n in range(CLIENTS)
        ]
        await asyncio.gather(*(crowd.connected() for crowd in crowds))
    return crowds
