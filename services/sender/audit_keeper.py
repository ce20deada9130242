"""Owns what adds to the audit log by itself: attempts that were refused here, and what the log's end was."""

from collections.abc import Sequence

import structlog
from typing_extensions import override

from services.sender.audit import AuditAction, AuditEvent
from services.sender.audit_store import AuditChain
from services.sender.store import SCHEMA
from shared.rounds import Rounds
from shared.wall_refusals import RefusedAttempts, Write

log = structlog.get_logger(__name__)


class CheckpointKeeper(Rounds):
    """Looks again and again whether the log has grown. Any number may run, in any number of processes."""

    def __init__(self, chain: AuditChain, every_s: float) -> None:
        super().__init__(every_s)
        self._chain = chain

    @override
    async def look(self) -> None:
        await self.keep()

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
