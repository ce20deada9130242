"""Owns the other admin of a run, who approves most of what waits, rejects some, and lets some expire."""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from typing import Final
from uuid import UUID

import grpc
from wedsync.broadcast.v1.sender_pb2 import ApproveBroadcastRequest, RejectBroadcastRequest

from tests.chaos.callers import Callers
from tests.chaos.reading import Record, Waiting
from tests.chaos.terms import CALL_S

_EVERY_S: Final = 0.1
_REJECTED: Final = 0.25
_IGNORED: Final = 0.35
"""The share of those with a time limit that nobody gets round to."""


@dataclass(slots=True)
class Decisions:
    """What was decided, by broadcast; `refused` is what should not have been."""

    approved: dict[str, float] = field(default_factory=dict)
    """When it was confirmed."""
    rejecting: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    """Asked for, and confirmed."""
    refused: list[str] = field(default_factory=list)

    def has_rejected(self, broadcast_id: str, state: str) -> bool:
        """Whether one that is in this state must be, or may be, because it was rejected."""
        return broadcast_id in self.rejected or (state == "rejected" and broadcast_id in self.rejecting)


class Desk:
    """Looks at what waits, whoever has sent it and whether or not its sender was told that it does."""

    def __init__(self, callers: Callers, record: Record, random: Random) -> None:
        self._callers = callers
        self._record = record
        self._random = random
        self._ignored: set[str] = set()
        self.decisions = Decisions()

    def missing(self) -> list[str]:
        """Decisions that nobody has made yet."""
        made = {"approved": self.decisions.approved, "rejected": self.decisions.rejected}
        return [f"a broadcast {word}" for word, broadcasts in made.items() if not broadcasts]

    async def run(self) -> None:
        """Decide until cancelled; each broadcast once, however often it has to be asked for."""
        while True:
            for waiting in await self._record.waiting():
                if waiting.broadcast_id not in self._ignored:
                    await self._look_at(waiting)
            await asyncio.sleep(_EVERY_S)

    async def _look_at(self, waiting: Waiting) -> None:
        if waiting.expires and self._random.random() < _IGNORED:
            self._ignored.add(waiting.broadcast_id)
            return
        try:
            await self._decide(waiting.broadcast_id)
        except grpc.aio.AioRpcError as error:
            # It was cancelled, or has expired, since it was seen.
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                self.decisions.refused.append(f"{error.code().name}: {error.details()}")

    async def _decide(self, broadcast_id: str) -> None:
        request_id = str(UUID(int=self._random.getrandbits(128), version=4))
        if self._random.random() < _REJECTED:
            self.decisions.rejecting.add(broadcast_id)
            rejection = RejectBroadcastRequest(broadcast_id=broadcast_id, request_id=request_id)
            await self._callers.until_answered(
                "RejectBroadcast",
                lambda: self._callers.sender.RejectBroadcast(
                    rejection, metadata=self._callers.approver, timeout=CALL_S
                ),
            )
            self.decisions.rejected.add(broadcast_id)
            return
        approval = ApproveBroadcastRequest(broadcast_id=broadcast_id, request_id=request_id)
        await self._callers.until_answered(
            "ApproveBroadcast",
            lambda: self._callers.sender.ApproveBroadcast(
                approval, metadata=self._callers.approver, timeout=CALL_S
            ),
        )
        self.decisions.approved[broadcast_id] = time.time()
