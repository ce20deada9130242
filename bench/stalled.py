"""People who stop reading with their streams open: whether those beside them notice, and what it costs the server."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import grpc
from rich.console import Console
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from bench.broadcasts import PAYMENT, Broadcasts
from bench.peak_memory import forget_peak, peak_mib, resident_mib
from bench.report import Bound, Result, Row, summarize
from bench.returning import Crowd, Return, Returning
from bench.screens import Plan, Screens
from bench.site import Metadata, mailer, started
from stack.background import BackgroundStack
from stack.tokens import TokenMint

SCENARIO: Final = "stalled"
PROMPT, STALLED = 200, 200
CONNECTIONS: Final = 16
BEFORE, MEANWHILE, FULL_FACTOR = 80, 400, 3
_WARM_UP: Final = 10
_TIMEOUT_S: Final = 120.0
_MOST_TIMES: Final = 2.0
# An event is one object however many streams it waits for; what gRPC keeps of it is each stream's own.
_MOST_GROWTH_MIB: Final = 50.0
# The longest that the contract takes, in characters of four bytes: 4 kB for each stream at each broadcast.
_MESSAGE: Final = "\N{WEDDING}" * 1_000


@dataclass(slots=True)
class Stay:
    """Milliseconds from Send until each of the prompt ones was shown a broadcast, in both parts, and the rest."""

    before_ms: list[float] = field(default_factory=list)
    meanwhile_ms: list[float] = field(default_factory=list)
    growth_mib: float = 0.0
    returned: Return | None = None


async def run(full: bool, console: Console) -> Result:
    """Broadcasts to all, first while everybody reads, then while half of them do not."""
    factor = FULL_FACTOR if full else 1
    with (
        started(PROMPT + STALLED, console) as stack,
        tempfile.TemporaryDirectory() as folder,
        console.status("measuring"),
    ):
        stay = await _stay(stack, Path(folder), BEFORE * factor, MEANWHILE * factor)
    before, meanwhile = summarize(stay.before_ms), summarize(stay.meanwhile_ms)
    returned = stay.returned
    if returned is None:
        raise RuntimeError("nobody came back")
    return Result(
        SCENARIO,
        f"Send → {PROMPT} prompt screens",
        [
            Row("while all read", before),
            Row(
                f"while {STALLED} others do not",
                meanwhile,
                facts={"cut off": returned.cut_off, "growth MiB": round(stay.growth_mib)},
            ),
        ],
        [
            Bound("p99 beside stalled readers", meanwhile.p99 / before.p99, _MOST_TIMES, "times"),
            Bound("stalled readers that missed the last one", returned.missed, 0, "people"),
            Bound("stalled readers that were shown one twice", returned.repeated, 0, "people"),
            Bound("stalled readers that were let go", returned.cut_off, STALLED, "people", is_least=True),
            Bound("growth of the inbox", stay.growth_mib, _MOST_GROWTH_MIB, "MiB"),
        ],
        settings={"prompt": PROMPT, "stalled": STALLED, "broadcasts": MEANWHILE * factor, "full": full},
    )


async def _stay(stack: BackgroundStack, folder: Path, before: int, meanwhile: int) -> Stay:
    connection = await asyncpg.connect(stack.environment["DATABASE_URL"])
    (inbox,) = stack.services("inbox")
    stay = Stay()
    async with grpc.aio.insecure_channel(stack.environment["SENDER_ADDR"]) as channel:
        sender = SenderServiceStub(channel)
        broadcasts = await Broadcasts.open(connection, sender, mailer(stack))
        tokens = _tokens(stack, await broadcasts.users(1, PROMPT + STALLED))
        target = stack.environment["INBOX_ADDR"]
        screens = await Screens.open(Plan(target, tokens[:PROMPT], CONNECTIONS), folder, _TIMEOUT_S)
        crowd = await Returning.start(Crowd(target, tokens[PROMPT:], CONNECTIONS), folder)
        await crowd.connected()
        for _ in range(_WARM_UP):
            await _show(sender, mailer(stack), screens)
        for _ in range(before):
            stay.before_ms += (await _show(sender, mailer(stack), screens))[1]
        forget_peak(inbox.pid)
        resident = resident_mib(inbox.pid)
        crowd.stall()
        last = ""
        for _ in range(meanwhile):
            last, latencies = await _show(sender, mailer(stack), screens)
            stay.meanwhile_ms += latencies
        stay.growth_mib = peak_mib(inbox.pid) - resident
        crowd.wake()
        stay.returned = await crowd.back(last, _TIMEOUT_S)
        await crowd.close()
        await screens.close()
    await connection.close()
    return stay


async def _show(sender: SenderServiceStub, metadata: Metadata, screens: Screens) -> tuple[str, list[float]]:
    """One broadcast to everybody: its id, and when each prompt screen showed it."""
    called = monotonic()
    request = SendBroadcastRequest(
        request_id=str(uuid4()),
        type=PAYMENT.type,
        priority=PAYMENT.priority,
        title="Stay seated",
        message=_MESSAGE,
        targeting=Targeting(everyone=True),
    )
    answer = await sender.SendBroadcast(request, metadata=metadata, timeout=_TIMEOUT_S)
    moments = await screens.shown(answer.broadcast.broadcast_id)
    return answer.broadcast.broadcast_id, [
        (moment - called) * 1e3 for moment, together in moments for _ in range(together)
    ]


def _tokens(stack: BackgroundStack, users: list[UUID]) -> list[str]:
    mint = TokenMint.existing(stack.state.keys)
    return [mint.mint_user_token(each) for each in users]
