"""Owns what adds to the audit log by itself: attempts that were refused here, and what the log's end was."""

import asyncio
from collections.abc import Sequence

import structlog

from services.sender.audit import AuditAction, AuditEvent
from services.sender.audit_store import AuditChain
from services.sender.store import SCHEMA
from shared.errors import DependencyUnavailable
from shared.wake import wait_for_hint
from shared.wall_refusals import RefusedAttempts, Write

log = structlog.get_logger(__name__)


class CheckpointKeeper:
    """Looks again and again whether the log has grown. Any number may run, in any number of processes."""

    def __init__(self, chain: AuditChain, every_s: float) -> None:
        self._chain = chain
        self._every_s = every_s
        self._ended = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return after a last look."""
        self._ended.set()

    async def run(self) -> None:
        """Look until `stop`."""
        while True:
            is_last = self._ended.is_set()
            try:
                await self.keep()
            except DependencyUnavailable as error:
                log.warning("audit_checkpoint_interrupted", error=str(error))
            if is_last:
                return
            await wait_for_hint(self._ended, self._every_s)

    async def keep(self) -> bool:
        """Keep where the log ends now; whether that is new. The line leaves the database, out of reach of its owner."""
        checkpoint = await self._chain.add_checkpoint()
        if checkpoint is not None:
            log.info("audit_checkpoint", position=checkpoint.position, hash=checkpoint.hash.hex())
        return checkpoint is not None


def record_refusals(chain: AuditChain) -> Write:
    """Puts what was refused by this process at the end of the chain."""

    async def write(attempts: Sequence[RefusedAttempts]) -> None:
        await chain.record(SCHEMA, [_refused(each) for each in attempts])

    return write


def _refused(attempts: RefusedAttempts) -> AuditEvent:
    return AuditEvent(
        event_id=attempts.event_id,
        at=attempts.minute,
        source=SCHEMA,
        actor=attempts.caller,
        action=AuditAction.WALL_REFUSED,
        method=attempts.method,
        attempts=attempts.attempts,
    )
