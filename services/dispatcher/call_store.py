"""Owns what calls ask of the rows, under the login that sees no broadcast but the one that its transaction names."""

from pathlib import Path
from typing import Final
from uuid import UUID

from services.dispatcher import rows
from services.dispatcher.domain import ChunkState, DispatchState, Priority
from services.dispatcher.work import Dispatch, StopAnswer
from shared.audience import Audience
from shared.database import Database, Row, Transaction
from shared.errors import NotFound
from shared.failpoints import declare, failpoint
from shared.queries import load

BROADCAST_SETTING: Final = "app.broadcast"
"""What the policies of this login compare a chunk's broadcast with."""

_QUERIES: Final = load(Path(__file__).with_name("queries.sql"))

declare("dispatcher.stop.before_commit", "dispatcher.stop.after_commit")


class CallStore:
    """The plan and ledger of one broadcast, and its cancel."""

    def __init__(self, database: Database) -> None:
        """`database` is that of the api login."""
        self._database = database

    async def get(self, broadcast_id: UUID) -> Dispatch:
        """A broadcast's plan and ledger. Raises NotFound while there is neither plan nor tombstone."""
        found = await self._database.fetch(_QUERIES["count_dispatch"], broadcast_id)
        if found:
            return _dispatch(broadcast_id, found)
        if await self._database.fetchrow(_QUERIES["find_tombstone"], broadcast_id) is None:
            raise NotFound("This broadcast has not been dispatched.")
        return Dispatch(broadcast_id, DispatchState.STOPPED)

    async def stop(self, broadcast_id: UUID) -> StopAnswer:
        """Cancel all that waits, and all that may come; what the first cancel answered when this is not the first."""
        settings = {BROADCAST_SETTING: str(broadcast_id)}
        async with self._database.identity_transaction(settings) as transaction:
            await transaction.execute(_QUERIES["take_turn"], broadcast_id)
            earlier = await transaction.fetchrow(_QUERIES["find_tombstone"], broadcast_id)
            if earlier is not None:
                return StopAnswer(
                    earlier["planned"], earlier["stopped"], earlier["in_flight"], earlier["targeted"]
                )
            answer = await self._stop(transaction, broadcast_id)
            await failpoint("dispatcher.stop.before_commit")
        await failpoint("dispatcher.stop.after_commit")
        return answer

    async def _stop(self, transaction: Transaction, broadcast_id: UUID) -> StopAnswer:
        targeted = await transaction.fetchval(_QUERIES["lock_dispatch"], broadcast_id)
        answer = StopAnswer(planned=False, stopped=0, in_flight=0, targeted=0)
        if targeted is not None:
            cancelled = await transaction.fetch(_QUERIES["cancel_waiting"], broadcast_id)
            # An alert waits for someone whose item may wait too: as people they are one.
            people = Audience.union_of(Audience.from_bytes(row["members"]) for row in cancelled)
            in_flight = await transaction.fetchval(_QUERIES["count_in_flight"], broadcast_id)
            await transaction.execute(_QUERIES["mark_stopped"], broadcast_id)
            answer = StopAnswer(True, len(people), in_flight, targeted)
        await transaction.execute(
            _QUERIES["add_tombstone"],
            broadcast_id,
            answer.planned,
            answer.stopped,
            answer.in_flight,
            answer.targeted,
        )
        return answer


def _dispatch(broadcast_id: UUID, found: list[Row]) -> Dispatch:
    first = found[0]
    releases = [row["release_at"] for row in found if row["chunk_state"] == ChunkState.HELD]
    return Dispatch(
        broadcast_id,
        DispatchState(first["state"]),
        Priority(first["priority"]),
        first["targeted"],
        first["directory_version"],
        first["plan_time"],
        first["close_time"],
        min(releases, default=None),
        rows.chunk_counts(found),
    )
