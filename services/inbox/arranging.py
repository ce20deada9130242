"""Owns where people keep their items: out of sight until a time, or on top."""

from datetime import datetime
from typing import Final
from uuid import UUID

from services.inbox.domain import MOST_PINNED, Arrangement, Receipt
from services.inbox.inboxes import Inboxes
from services.inbox.rows import receipt_of
from services.inbox.store import QUERIES
from services.inbox.waking import Waking
from services.inbox.work_store import Repeated
from shared.database import Database
from shared.errors import IllegalState
from shared.failpoints import declare, failpoint
from shared.replays import Request

BEFORE_COMMIT, AFTER_COMMIT = declare("inbox.arrange.before_commit", "inbox.arrange.after_commit")

_REFUSALS: Final = {
    "dismissed": "The item is dismissed: restore it first.",
    "full": f"{MOST_PINNED} items are pinned already: unpin one first.",
}


class Arranging:
    """Snoozes, pins, and their ends by hand. A call's request_id is taken where its work is done, as with receipts."""

    def __init__(self, worked: Database, inboxes: Inboxes, waking: Waking) -> None:
        self._worked = worked
        self._inboxes = inboxes
        self._waking = waking

    async def arrange(
        self,
        recipient_number: int,
        broadcast_id: UUID,
        arrangement: Arrangement,
        until: datetime | None,
        request: Request | None,
    ) -> Receipt | bytes:
        """The item now, or what a call with this request_id was answered; `until` belongs to SNOOZED.

        Raises NotFound, IllegalState and RequestIdReused.
        """
        await failpoint(BEFORE_COMMIT)
        row = await self._worked.fetchrow(
            QUERIES["arrange_item"],
            request and request.caller,
            request and request.method,
            request and request.request_id,
            request and request.body_hash,
            recipient_number,
            broadcast_id,
            arrangement.value,
            until,
            MOST_PINNED,
        )
        if row is None:
            raise LookupError("arrange_item answers exactly one row")
        await failpoint(AFTER_COMMIT)
        if row["log_position"] is not None:
            await self._waking.announce(row["log_position"])
        match row["outcome"]:
            case "repeated":
                return Repeated(row["response"]).answer()
            case "unknown":
                raise await self._inboxes.not_found(recipient_number, broadcast_id)
            case "dismissed" | "full" as refusal:
                raise IllegalState(_REFUSALS[refusal], metadata={"broadcast_id": str(broadcast_id)})
            case _:
                return receipt_of(broadcast_id, row)
