"""Owns erasing a person: from what broadcasts say, and to whom; from what others were answered; and what is theirs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from google.protobuf.message import Message
from wedsync.broadcast.v1 import inbox_pb2, sender_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.approval import APPROVE, REJECT
from services.sender.cancelling import CANCEL
from services.sender.domain import ERASED_MESSAGE, ERASED_TITLE
from services.sender.privacy_store import ErasureStore, KeptAnswer
from services.sender.refusals import Refusals
from services.sender.sending import SEND

_AT_ONCE: Final = 100
_NOBODY: Final = str(UUID(int=0))
_REFRESH_WAITS_S: Final = 20.0


_ANSWERS: Final[Mapping[str, type[Message]]] = {
    SEND: sender_pb2.SendBroadcastResponse,
    CANCEL: sender_pb2.CancelBroadcastResponse,
    APPROVE: sender_pb2.ApproveBroadcastResponse,
    REJECT: sender_pb2.RejectBroadcastResponse,
}
"""The calls whose answers have a broadcast in them."""


class Erasing:
    """What ErasePerson does once the edge has let a call in."""

    def __init__(self, store: ErasureStore, inbox: InboxServiceStub, refusals: Refusals) -> None:
        self._store = store
        self._inbox = inbox
        self._refusals = refusals

    async def erase(self, user_id: UUID) -> None:
        """Return when nothing leads to a person any more but what they did. Raises DependencyUnavailable for the inbox.

        A broadcast names them until inboxes say what it says by now, so what was interrupted is found again.
        """
        while broadcast_ids := await self._store.replace_words(user_id, _AT_ONCE):
            request = inbox_pb2.RefreshContentsRequest(broadcast_ids=broadcast_ids)
            await self._inbox.RefreshContents(request, timeout=_REFRESH_WAITS_S)
            await self._store.take_out(user_id, broadcast_ids)
        await self._store.take_out(user_id)
        answers = await self._store.find_answers_naming(user_id)
        await self._store.change_answers(user_id, _without(answers, str(user_id)))
        await self._refusals.forget(await self._store.remove_own(user_id))


def _without(answers: Sequence[KeptAnswer], user_id: str) -> Iterator[KeptAnswer]:
    """These answers as they are once their broadcasts do not name somebody any more."""
    for answer in answers:
        if answer.method in _ANSWERS:
            message = _ANSWERS[answer.method].FromString(answer.response)
            _take_out(message.broadcast, user_id)  # type: ignore[attr-defined]  # each of them has one
            yield replace(answer, response=message.SerializeToString())


def _take_out(broadcast: sender_pb2.Broadcast, user_id: str) -> None:
    targeting = broadcast.targeting
    named = [_NOBODY if each == user_id else each for each in targeting.user_ids]
    if set(named) == {_NOBODY} and not (targeting.roles or targeting.tiers or targeting.segment_ids):
        broadcast.title, broadcast.message = ERASED_TITLE, ERASED_MESSAGE
        broadcast.ClearField("action")
        broadcast.ClearField("cancel_reason")
        broadcast.ClearField("decision_reason")
    targeting.user_ids[:] = named
