"""Owns erasing a person: here in one transaction, and by the other services until each has confirmed it.

Each is told twice. What had found the person before they were erased may write for as long as a call lasts, and the
second time removes that too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final
from uuid import UUID

import structlog
from typing_extensions import override
from wedsync.broadcast.v1 import directory_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub
from wedsync.broadcast.v1.sender_pb2_grpc import SenderServiceStub

from services.preferences.directory import Reach
from services.preferences.messages import timestamp
from services.preferences.privacy_store import Erasure, ErasureStore
from shared.auth import current_identity
from shared.database import Transaction
from shared.errors import NotFound, ServiceError
from shared.methods import Replay
from shared.replays import OnceOnly
from shared.rounds import Rounds

log = structlog.get_logger(__name__)

ERASE: Final = "EraseRecipient"
_CALLER_WAITS_S: Final = 2.0
"""How long a caller waits for the other services; what has not confirmed by then is told again."""
_FOLLOWER_WAITS_S: Final = 30.0


class Removals:
    """What each service is asked to do about somebody who was erased. Asked again, it does so again."""

    def __init__(self, store: ErasureStore, inbox: InboxServiceStub, sender: SenderServiceStub) -> None:
        self._inbox = inbox
        self._sender = sender
        self._by_service: Mapping[str, Callable[[Erasure, float], Awaitable[object]]] = {
            "preferences": lambda erasure, _: store.forget_answers(erasure.user_id),
            "inbox": self._tell_inbox,
            "sender": self._tell_sender,
        }

    @property
    def services(self) -> list[str]:
        """All that keep anything that leads to a person."""
        return list(self._by_service)

    async def remove(self, erasure: Erasure, timeout_s: float) -> None:
        """Return once the service has confirmed. Raises ServiceError when it cannot be reached in time."""
        await self._by_service[erasure.service](erasure, timeout_s)

    async def _tell_inbox(self, erasure: Erasure, timeout_s: float) -> None:
        request = inbox_pb2.EraseInboxRequest(user_id=str(erasure.user_id), recipient_number=erasure.number)
        await self._inbox.EraseInbox(request, timeout=timeout_s)

    async def _tell_sender(self, erasure: Erasure, timeout_s: float) -> None:
        request = sender_pb2.ErasePersonRequest(user_id=str(erasure.user_id))
        await self._sender.ErasePerson(request, timeout=timeout_s)


class ErasureFollower(Rounds):
    """Tells the services of each erasure until they have confirmed it, and once more after a while."""

    def __init__(self, store: ErasureStore, removals: Removals, retry_s: float, repeat_s: float) -> None:
        """`retry_s` is how often it looks, `repeat_s` how long a call that had found somebody may still write."""
        super().__init__(retry_s)
        self._store = store
        self._removals = removals
        self._retry_s = retry_s
        self._repeat_s = repeat_s

    @override
    async def look(self) -> None:
        """Tell each service of all that is due, beside the others: none waits for one that is away or slow."""
        told = (self._tell_of_all_due(service) for service in self._removals.services)
        for outcome in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def tell_of(self, user_id: UUID) -> list[str]:
        """Tell all that have not confirmed yet that somebody is gone; those that still have not."""
        unconfirmed = await self._store.unconfirmed(user_id)
        confirmed = await asyncio.gather(*(self._tell(each, _CALLER_WAITS_S) for each in unconfirmed))
        return [each.service for each, done in zip(unconfirmed, confirmed, strict=True) if not done]

    async def _tell_of_all_due(self, service: str) -> None:
        """A service that cannot be reached is left alone until the next round."""
        while (due := await self._store.due(service)) and not self._ended.is_set():
            for erasure in due:
                if not await self._tell(erasure, _FOLLOWER_WAITS_S):
                    return

    async def _tell(self, erasure: Erasure, timeout_s: float) -> bool:
        try:
            await self._removals.remove(erasure, timeout_s)
        except ServiceError as error:
            log.warning(
                "erasure_pending",
                recipient_number=erasure.number,
                service=erasure.service,
                reason=error.reason_name,
            )
            # Behind all others, so that one which always fails is in nobody's way.
            await self._store.postpone(erasure, self._retry_s)
            return False
        await self._store.confirm(erasure, self._repeat_s)
        return True


class Erasing:
    """What EraseRecipient does once the edge has let a call in."""

    def __init__(
        self,
        store: ErasureStore,
        once: OnceOnly,
        removals: Removals,
        follower: ErasureFollower,
        wakes: Iterable[Callable[[], None]],
    ) -> None:
        """`wakes` have those look who tell of changed teams and of what is for the audit log."""
        self._store = store
        self._once = once
        self._removals = removals
        self._follower = follower
        self._wakes = tuple(wakes)

    def replays(self) -> dict[str, Replay | None]:
        """What answers a repeated request before anything about it is judged anew."""
        return {ERASE: self._once.replay(ERASE, directory_pb2.EraseRecipientResponse)}

    async def erase(
        self, request: directory_pb2.EraseRecipientRequest, reach: Reach
    ) -> directory_pb2.EraseRecipientResponse:
        """Remove a person for good, as far as the caller's reach goes. Raises NotFound."""
        user_id = UUID(request.user_id)
        require_reach(user_id, reach)

        async def write(transaction: Transaction) -> directory_pb2.EraseRecipientResponse:
            since = await self._store.erase(
                transaction, current_identity().name, user_id, self._removals.services
            )
            return directory_pb2.EraseRecipientResponse(erase_time=timestamp(since))

        done = await self._once.begin(ERASE, request, directory_pb2.EraseRecipientResponse, write)
        if done.is_whole:
            return done.response
        for wake in self._wakes:
            wake()
        pending = await self._follower.tell_of(user_id)
        log.info("recipient_erased", pending_services=pending)
        done.response.pending_services.extend(pending)
        return await self._once.finish(ERASE, request, done.response)


def require_reach(user_id: UUID, reach: Reach) -> None:
    """Raise NotFound for anybody but the caller, unless they may look after everybody."""
    if reach is not Reach.EVERYONE and user_id != current_identity().user_id:
        raise NotFound.or_not_yours("There is no such recipient, or it is not yours to see.")
