"""Owns the badge that is asked for alone: from memory, where the log shows that nothing has happened to it since."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from services.inbox.checkpoints import Checkpoints
from services.inbox.groups import Group
from services.inbox.inboxes import Inboxes
from services.inbox.live import Tail
from shared.clock import Clock
from shared.ordered_log import OrderedLog

_LARGEST_GROUP: Final = 1_024
# Only the database's clock says when something expires; ours will not be wrong by more than this.
_DOUBT: Final = timedelta(minutes=1)


class Badges:
    """Everybody's badge. Whoever asks while the end of the log is being looked up waits for the next look-up."""

    def __init__(
        self, inboxes: Inboxes, checkpoints: Checkpoints, tail: Tail, ordered_log: OrderedLog, clock: Clock
    ) -> None:
        self._inboxes = inboxes
        self._checkpoints = checkpoints
        self._tail = tail
        self._log = ordered_log
        self._clock = clock
        self._heads: Group[None, int] = Group(self._find_head, _LARGEST_GROUP)

    async def count_unread(self, recipient_number: int) -> int:
        """How much is unread, everything considered that was committed when this was asked."""
        known = self._checkpoints.here(recipient_number)
        if known is not None and self._holds(known.valid_until):
            head = await self._heads.ask(None)
            if self._tail.was_quiet_for(recipient_number, known.position, head):
                if head > known.position:
                    self._checkpoints.note(recipient_number, replace(known, position=head), known)
                return known.unread_count
        return (await self._inboxes.count_unread(recipient_number)).unread_count

    def _holds(self, valid_until: datetime | None) -> bool:
        return valid_until is None or self._clock.now() + _DOUBT < valid_until

    async def _find_head(self, asked: Sequence[None]) -> list[int]:
        return [await self._log.head()] * len(asked)
