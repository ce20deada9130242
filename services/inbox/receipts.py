"""Owns recording what recipients do: in groups, answered once they are committed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from services.inbox.domain import ReceiptAction
from services.inbox.groups import Group, apart
from services.inbox.waking import Waking
from services.inbox.work_store import ReceiptCall, Recorded, WorkStore
from shared.errors import IllegalState

log = structlog.get_logger(__name__)

_LARGEST_GROUP: Final = 64
# Of one transaction, but for a call that has as many by itself.
_MOST_ITEMS: Final = 128


class Receipts:
    """Everybody's receipts."""

    def __init__(self, store: WorkStore, waking: Waking) -> None:
        self._store = store
        self._waking = waking
        self._group: Group[ReceiptCall, list[Recorded]] = Group(self._commit, _LARGEST_GROUP)

    async def record(
        self, recipient_number: int, broadcast_ids: tuple[UUID, ...], action: ReceiptAction, url: str | None
    ) -> list[Recorded]:
        """What became of each item, each named once. Raises IllegalState when one must be acknowledged first."""
        call = ReceiptCall(recipient_number, broadcast_ids, action, url)
        results = await self._group.ask(call)
        causes = [each for each in results if each.is_cause]
        if causes:
            raise IllegalState(
                "Nothing was recorded: a critical broadcast must be acknowledged before it is dismissed.",
                metadata={"broadcast_id": str(causes[0].receipt.broadcast_id)},
            )
        return results

    async def mark_all_read(self, recipient_number: int) -> datetime:
        """Since when everything that has arrived counts as read."""
        read_at, position = await self._store.mark_all_read(recipient_number)
        if position is not None:
            await self._waking.announce(position)
        return read_at

    async def _commit(self, calls: Sequence[ReceiptCall]) -> list[list[Recorded]]:
        results: dict[int, list[Recorded]] = {}
        # What one person does in two calls at once happens one after the other.
        for round_ in _portions(apart(calls, _is_same_person)):
            recorded, position = await self._store.record_receipts([call for _, call in round_])
            results |= {place: result for (place, _), result in zip(round_, recorded, strict=True)}
            for (_, call), result in zip(round_, recorded, strict=True):
                _tell_acknowledged(call, result)
            if position is not None:
                await self._waking.announce(position)
        return [results[place] for place in range(len(calls))]


def _is_same_person(one: ReceiptCall, other: ReceiptCall) -> bool:
    return one.recipient_number == other.recipient_number


def _portions(rounds: Iterable[list[tuple[int, ReceiptCall]]]) -> Iterator[list[tuple[int, ReceiptCall]]]:
    """Rounds cut into what one transaction should take."""
    for round_ in rounds:
        portion: list[tuple[int, ReceiptCall]] = []
        items = 0
        for place, call in round_:
            if portion and items + len(call.broadcast_ids) > _MOST_ITEMS:
                yield portion
                portion, items = [], 0
            portion.append((place, call))
            items += len(call.broadcast_ids)
        yield portion


def _tell_acknowledged(call: ReceiptCall, result: Sequence[Recorded]) -> None:
    for each in result:
        if each.is_critical and each.newly_acknowledged:
            log.info(
                "critical_broadcast_acknowledged",
                broadcast_id=str(each.receipt.broadcast_id),
                recipient_number=call.recipient_number,
            )
