"""How many broadcasts for later a second are accepted from many senders, beside a bare echo in the same run.

Each goes all the way: its sender's role and team, the wall, the audience, the limit, and the commit.
"""

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Priority
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest

from bench import site
from bench.generator import Generator, Load, Probe
from bench.rates import ECHO, TRIES, climb, generator_beside_echo, hold
from bench.report import Bound, Result, Row, summarize
from shared.queries import load
from stack.background import BackgroundStack
from stack.tokens import TokenMint

SCENARIO: Final = "create"
SENDERS: Final = 500
RATE: Final = 300.0
LIMIT_MS: Final = 50.0
# At more than that calls wait for each other, longer and longer: nobody would call it carried.
CARRIED_MS: Final = 250.0
# Enough weddings for so many coordinators, each on a team.
RECIPIENTS: Final = 40_000
SEND: Final = "SendBroadcast"
_FIRST_RATES: Final = {ECHO: 1_500.0, SEND: 150.0}
_LATER: Final = timedelta(days=30)
_TYPES: Final = (
    "form.locked",
    "journey.updated",
    "supplier.joined",
    "couple.connected",
    "timeline.changed",
    "wedding.cancelled",
    "wedding.emergency",
    "coordinator.handoff",
)
_PRIORITIES: Final = (Priority.PRIORITY_NORMAL, Priority.PRIORITY_LOW)
_SECONDS, _FULL_SECONDS = 4.0, 8.0
_ROUNDS, _FULL_ROUNDS = 1, 3
_QUERIES: Final = load(Path(__file__).with_suffix(".sql"))


async def run(full: bool, console: Console) -> Result:
    """Starts a stack, and sends for its coordinators until more is not carried."""
    rounds, seconds = (_FULL_ROUNDS, _FULL_SECONDS) if full else (_ROUNDS, _SECONDS)
    with site.started(RECIPIENTS, console) as stack:
        connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
        loads = {SEND: await _load(stack, connection)}
        async with generator_beside_echo(loads) as generator:
            with console.status("warming up"):
                await generator.probe(SEND, _FIRST_RATES[SEND] / 2, seconds)
            highest, halfway = await _measure(generator, rounds, seconds, console)
        accepted = await connection.fetchrow(_QUERIES["count_accepted"])
        await connection.close()
    return _result(highest, halfway, {"full": full, "accepted": dict(accepted or {})})


async def _load(stack: BackgroundStack, connection: asyncpg.Connection) -> Load:
    """Everybody in turn with one type and priority, then with the next: each stays far below every limit."""
    rows = await connection.fetch(_QUERIES["list_coordinators"], SENDERS)
    if len(rows) < SENDERS:
        raise RuntimeError(f"there are {len(rows)} coordinators on a team, not {SENDERS}")
    mint = TokenMint.existing(stack.state.keys)
    people = [(mint.mint_user_token(row["user_id"]), UUID(row["wedding_id"])) for row in rows]
    due = datetime.now(UTC) + _LATER
    calls = [
        (token, _send(broadcast_type, priority, wedding_id, due))
        for priority in _PRIORITIES
        for broadcast_type in _TYPES
        for token, wedding_id in people
    ]
    target = stack.environment["SENDER_ADDR"]
    return Load(target, "/wedsync.broadcast.v1.SenderService/SendBroadcast", calls, is_new=True)


def _send(
    broadcast_type: str, priority: "Priority.ValueType", wedding_id: UUID, scheduled_for: datetime
) -> bytes:
    request = SendBroadcastRequest(
        type=broadcast_type,
        priority=priority,
        title="The plan of the day has changed",
        message="The registrar is late, so the ceremony begins at half past three. Photos start at a quarter to.",
        wedding_id=str(wedding_id),
    )
    request.scheduled_for.FromDatetime(scheduled_for)
    return request.SerializeToString()


async def _measure(
    generator: Generator, rounds: int, seconds: float, console: Console
) -> tuple[dict[str, list[Probe]], dict[str, list[Probe]]]:
    """The highest rates of both, and both at half of what is promised, in turn."""
    highest: dict[str, list[Probe]] = {name: [] for name in _FIRST_RATES}
    halfway: dict[str, list[Probe]] = {name: [] for name in _FIRST_RATES}
    for turn in range(rounds):
        for name, first in _FIRST_RATES.items():
            with console.status(f"round {turn + 1} of {rounds}: {name}"):
                halfway[name].append(await hold(generator, name, RATE / 2, seconds, LIMIT_MS))
                highest[name].append(await climb(generator, name, first, seconds, CARRIED_MS))
    return highest, halfway


def _result(
    highest: Mapping[str, Sequence[Probe]],
    halfway: Mapping[str, Sequence[Probe]],
    settings: Mapping[str, object],
) -> Result:
    rates = {name: statistics.median(probe.rate for probe in probes) for name, probes in highest.items()}
    shares = {name: 100 * rate / rates[ECHO] for name, rate in rates.items()}
    rows = [
        *(_row(f"{name}, at most", probes, rates[name], shares[name]) for name, probes in highest.items()),
        *(_row(f"{name}, at {RATE / 2:g}/s", probes, RATE / 2) for name, probes in halfway.items()),
    ]
    halfway_ms = statistics.median(probe.p99_ms for probe in halfway[SEND])
    return Result(
        SCENARIO,
        f"Broadcasts for later from {SENDERS} coordinators, from when each was due to its commit",
        rows,
        [
            Bound(
                f"{SEND}, carried with p99 ≤ {CARRIED_MS:g} ms", rates[SEND], RATE, "a second", is_least=True
            ),
            Bound(f"{SEND}, p99 at {RATE / 2:g} a second", halfway_ms, LIMIT_MS),
        ],
        settings={"recipients": RECIPIENTS, "senders": SENDERS, "tries_of_a_rate": TRIES, **settings},
    )


def _row(case: str, probes: Sequence[Probe], rate: float, share: float | None = None) -> Row:
    latencies = [each for probe in probes for each in probe.latencies_ms]
    facts = {"calls/s": round(rate)} | ({} if share is None else {"% of echo": round(share, 1)})
    return Row(case, summarize(latencies), facts=facts)
