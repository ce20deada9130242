"""Many people who acknowledge one broadcast in the same moment, from a process of their own: what they need of it they
read from standard input, what became of them they write to standard output.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

import grpc
from wedsync.broadcast.v1 import common_pb2, inbox_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from tests.integration.inbox.site import bearer, error_of

_ROOT: Final = Path(__file__).parents[3]
_SOCKETS: Final = 16
# A call that is lost would end the run.
_CALL_S: Final = 60.0
# So many come again that each is to leave room for the others.
_MOST_PATIENCE: Final = 8.0
_COME_AGAIN: Final = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who was told that they have acknowledged, by their place, how often they were refused for which reason, and when
    the last was told.
    """

    acknowledged: Sequence[int]
    refused: dict[str, int]
    seconds: float


async def acknowledging(address: str, broadcast_id: str, tokens: Sequence[str]) -> Outcome:
    """Everybody who has one of these tokens acknowledges, all at once; returns when each was told that they have."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.inbox.crowd"),
        cwd=_ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    asked = {"address": address, "broadcast_id": broadcast_id, "tokens": tokens}
    told, _ = await process.communicate(json.dumps(asked).encode())
    assert process.returncode == 0
    return Outcome(**json.loads(told))


async def answered(
    call: Callable[[], Awaitable[_Answer]], refused: Counter[str] | None = None, most_patience: float = 1.0
) -> _Answer:
    """What a call is answered, made again, as is asked of every client, for as long as there is no room for it.

    It comes again after what it was told, and each time after longer, up to `most_patience` times as long.
    """
    refused, patience = Counter() if refused is None else refused, 1.0
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _COME_AGAIN:
                raise
            refusal = error_of(error)
            refused[refusal.reason_name] += 1
        await asyncio.sleep((refusal.retry_after_s or 1.0) * random.uniform(1.0, patience))
        patience = min(2 * patience, most_patience)


async def _acknowledge_all(address: str, broadcast_id: str, tokens: Sequence[str]) -> Outcome:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(_SOCKETS)]
    stubs = [InboxServiceStub(channel) for channel in channels]
    request = inbox_pb2.RecordReceiptsRequest(
        broadcast_ids=[broadcast_id], action=common_pb2.RECEIPT_ACTION_ACKNOWLEDGED
    )
    refused: Counter[str] = Counter()

    async def acknowledge(place: int, token: str) -> int:
        stub, metadata = stubs[place % _SOCKETS], bearer(token)
        answer = await answered(
            lambda: stub.RecordReceipts(request, metadata=metadata, timeout=_CALL_S), refused, _MOST_PATIENCE
        )
        assert [each.HasField("acknowledged_at") for each in answer.receipts] == [True]
        return place

    began = time.monotonic()
    places = await asyncio.gather(*(acknowledge(place, token) for place, token in enumerate(tokens)))
    seconds = time.monotonic() - began
    for channel in channels:
        await channel.close()
    return Outcome(places, dict(refused), seconds)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_acknowledge_all(**json.load(sys.stdin))))))
