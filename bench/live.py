"""Send → screen: ten thousand people on four shared streams, and streams of their own on two inbox processes."""

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

from bench.broadcasts import PAYMENT, Broadcasts
from bench.report import Bound, Result, Row, summarize
from bench.screens import Plan, Screens
from bench.site import mailer, started
from stack.background import BackgroundStack
from stack.tokens import TokenMint

SCENARIO: Final = "live"
PEOPLE: Final = 10_000
OWN_PEOPLE: Final = 1_000
SHARED_STREAMS: Final = 4
# Enough for the kernel to spread them over the processes.
OWN_CONNECTIONS: Final = 64
BROADCASTS: Final = 20
FULL_BROADCASTS: Final = 100
_WARM_UP: Final = 3
_BETWEEN_S: Final = 0.2
_CONNECT_TIMEOUT_S: Final = 180.0
_LIMIT_MS: Final = 100.0
_OWN_LIMIT_MS: Final = 150.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Milliseconds from the call of Send until a person's screen showed it, of each broadcast, sorted."""

    connected_s: float
    people: int
    latencies_ms: list[list[float]]

    @property
    def least_reached(self) -> int:
        """To how many people the broadcast went that reached the fewest."""
        return min(map(len, self.latencies_ms))

    def row(self, case: str) -> Row:
        """All people of all broadcasts together; the first and the last person of the median broadcast."""
        return Row(
            case,
            summarize([each for latencies in self.latencies_ms for each in latencies]),
            facts={
                "first": statistics.median(latencies[0] for latencies in self.latencies_ms),
                "last": statistics.median(latencies[-1] for latencies in self.latencies_ms),
                "connected in s": self.connected_s,
            },
        )


async def run(full: bool, console: Console) -> Result:
    """Measures on a stack with one inbox process, and on one with two."""
    broadcasts = FULL_BROADCASTS if full else BROADCASTS
    with started(PEOPLE, console) as stack:
        shared = await _measure(stack, PEOPLE, SHARED_STREAMS, True, broadcasts, console)
    with started(PEOPLE, console, arguments=("--inbox-processes", "2")) as stack:
        own = await _measure(stack, OWN_PEOPLE, OWN_CONNECTIONS, False, broadcasts, console)
        many = None
        if full:
            many = await _measure(stack, PEOPLE, OWN_CONNECTIONS, False, BROADCASTS, console)
    rows = [
        shared.row(f"{PEOPLE:,} people on {SHARED_STREAMS} shared streams"),
        own.row(f"{OWN_PEOPLE:,} streams of their own"),
    ]
    if many is not None:
        rows.append(many.row(f"{PEOPLE:,} streams of their own"))
    return Result(
        SCENARIO,
        "Send → screen",
        rows,
        [
            Bound("shared streams, p99", rows[0].ours.p99, _LIMIT_MS),
            Bound("shared streams, people reached", shared.least_reached, PEOPLE, "people", is_least=True),
            Bound("own streams, p99", rows[1].ours.p99, _OWN_LIMIT_MS),
            Bound("own streams, people reached", own.least_reached, OWN_PEOPLE, "people", is_least=True),
        ],
        settings={"people": PEOPLE, "broadcasts": broadcasts, "priority": "high", "full": full},
    )


async def _measure(
    stack: BackgroundStack, people: int, connections: int, shared: bool, broadcasts: int, console: Console
) -> Shown:
    """Broadcasts to these people, one after the other, once all of them are connected."""
    connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
    async with grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as channel:
        sender = await Broadcasts.open(connection, SenderServiceStub(channel), mailer(stack))
        users = [str(each) for each in await sender.users(1, people)]
        targeting = Targeting(everyone=True) if people == PEOPLE else Targeting(user_ids=users)
        with console.status(f"connecting {people:,} people"):
            tokens = _tokens(stack, users)
            plan = Plan(stack.environment["INBOX_ADDR"], tokens, connections, _bff(stack) if shared else "")
            opened = _screens(plan)
        async with opened as screens:
            latencies = []
            with console.status("measuring"):
                for turn in range(_WARM_UP + broadcasts):
                    await sender.settle()
                    await asyncio.sleep(_BETWEEN_S)
                    shown = await _send(sender, screens, targeting, people)
                    latencies += [shown] if turn >= _WARM_UP else []
    await connection.close()
    return Shown(screens.connected_s, people, latencies)


async def _send(sender: Broadcasts, screens: Screens, targeting: Targeting, people: int) -> list[float]:
    called = monotonic()
    broadcast_id = await sender.send(PAYMENT, targeting, people)
    moments = await screens.shown(str(broadcast_id))
    return sorted((moment - called) * 1e3 for moment, together in moments for _ in range(together))


@asynccontextmanager
async def _screens(plan: Plan) -> AsyncIterator[Screens]:
    with tempfile.TemporaryDirectory(prefix="wedsync-bench-") as folder:
        screens = await Screens.open(plan, Path(folder), _CONNECT_TIMEOUT_S)
        try:
            yield screens
        finally:
            await screens.close()


def _tokens(stack: BackgroundStack, users: list[str]) -> list[str]:
    mint = TokenMint.existing(stack.state.keys)
    return [mint.mint_user_token(UUID(each)) for each in users]


def _bff(stack: BackgroundStack) -> str:
    return TokenMint.existing(stack.state.keys).mint_service_token("bff", ["inbox.connect"])
