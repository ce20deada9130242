"""Owns recording what recipients do: in groups, answered once they are committed."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import structlog
from google.protobuf.message import Message

from services.inbox.domain import ReceiptAction
from services.inbox.groups import Group, apart
from services.inbox.waking import Waking
from services.inbox.work_store import ReceiptCall, Recorded, Repeated, WorkStore
from shared.errors import IllegalState
from shared.failpoints import declare, failpoint
from shared.replays import KeptAnswers, Request

log = structlog.get_logger(__name__)

_LARGEST_GROUP: Final = 64
# Of one transaction, but for a call that has as many by itself.
_MOST_ITEMS: Final = 128
BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER, AFTER_ANSWER = declare(
    "inbox.receipts.before_commit",
    "inbox.receipts.after_commit",
    "inbox.answer.before_commit",
    "inbox.answer.after_commit",
)
BEFORE_ALL_READ, AFTER_ALL_READ = declare("inbox.all_read.before_commit", "inbox.all_read.after_commit")
_Response = TypeVar("_Response", bound=Message)


class Receipts:
    """Everybody's receipts.

    A call's request_id is taken where its receipts are recorded. Its answer has the badge in it, which is counted
    afterwards, so it is kept in a second step; until then a repetition records nothing and finds an answer of its own.
    """

    def __init__(self, store: WorkStore, answers: KeptAnswers, waking: Waking) -> None:
        self._store = store
        self._answers = answers
        self._waking = waking
        self._group: Group[ReceiptCall, list[Recorded] | Repeated] = Group(self._commit, _LARGEST_GROUP)
        self._keeping: Group[tuple[Request, bytes], bytes] = Group(self._keep, _LARGEST_GROUP)

    async def record(
        self,
        recipient_number: int,
        broadcast_ids: tuple[UUID, ...],
        action: ReceiptAction,
        url: str | None,
        request: Request | None,
    ) -> list[Recorded] | bytes:
        """What became of each item, each named once; or what a call with this request_id was answered.

        Raises IllegalState when one must be acknowledged first, and RequestIdReused.
        """
        call = ReceiptCall(recipient_number, broadcast_ids, action, url, request)
        result = await self._group.ask(call)
        if isinstance(result, Repeated):
            return result.answer()
        causes = [each for each in result if each.is_cause]
        if causes:
            raise IllegalState(
                "Nothing was recorded: a critical broadcast must be acknowledged before it is dismissed.",
                metadata={"broadcast_id": str(causes[0].receipt.broadcast_id)},
            )
        return result

    async def mark_all_read(self, recipient_number: int, request: Request | None) -> datetime | bytes:
        """Since when everything that has arrived counts as read; or what a call with this request_id was answered.

        Raises RequestIdReused.
        """
        await failpoint(BEFORE_ALL_READ)
        result, position = await self._store.mark_all_read(recipient_number, request)
        await failpoint(AFTER_ALL_READ)
        if position is not None:
            await self._waking.announce(position)
        return result.answer() if isinstance(result, Repeated) else result

    async def answer(self, request: Request | None, response: _Response) -> _Response:
        """Keep what a call is answered; what to answer, which is a simultaneous repetition's if that was first."""
        if request is None:
            return response
        given = response.SerializeToString()
        standing = await self._keeping.ask((request, given))
        return response if standing == given else type(response).FromString(standing)

    async def _keep(self, answers: Sequence[tuple[Request, bytes]]) -> list[bytes]:
        await failpoint(BEFORE_ANSWER)
        standing = await self._answers.complete(answers)
        await failpoint(AFTER_ANSWER)
        return standing

    async def _commit(self, calls: Sequence[ReceiptCall]) -> list[list[Recorded] | Repeated]:
        results: dict[int, list[Recorded] | Repeated] = {}
        # What one person does in two calls at once happens one after the other.
        for round_ in _portions(apart(calls, _is_same_person)):
            await failpoint(BEFORE_COMMIT)
            recorded, position = await self._store.record_receipts([call for _, call in round_])
            await failpoint(AFTER_COMMIT)
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


def _tell_acknowledged(call: ReceiptCall, result: list[Recorded] | Repeated) -> None:
    for each in result if isinstance(result, list) else ():
        if each.is_critical and each.newly_acknowledged:
            log.info(
                "critical_broadcast_acknowledged",
                broadcast_id=str(each.receipt.broadcast_id),
                recipient_number=call.recipient_number,
            )
