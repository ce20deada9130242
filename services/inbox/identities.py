"""Owns who a caller is: the recipient number of a user id, asked of the directory once, good till they are erased."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from wedsync.broadcast.v1.audience_pb2 import LookupRecipientsRequest
from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub

from services.inbox.groups import Group
from services.inbox.work_store import WorkStore
from shared.audience import Audience
from shared.errors import PermissionDenied

_KEPT: Final = 200_000
_LARGEST_LOOKUP: Final = 1_000
_UNKNOWN_FOR_S: Final = 2.0


def no_inbox() -> PermissionDenied:
    """What somebody is told whom the directory does not know, or not any more."""
    return PermissionDenied("This person has no inbox.")


class Identities:
    """The numbers of users: from memory, else from our table, else from the directory."""

    def __init__(self, store: WorkStore, audience: AudienceServiceStub) -> None:
        self._store = store
        self._audience = audience
        self._numbers: OrderedDict[UUID, int] = OrderedDict()
        self._unknown_until: dict[UUID, float] = {}
        self._lookups: Group[UUID, int | None] = Group(self._look_up, _LARGEST_LOOKUP)

    async def number_of(self, user_id: UUID) -> int:
        """The user's number. Raises PermissionDenied for one whom the directory does not know: they have no inbox."""
        number = self._numbers.get(user_id)
        if number is None and self._unknown_until.get(user_id, 0.0) < time.monotonic():
            number = await self._lookups.ask(user_id)
        if number is None:
            raise no_inbox()
        return number

    def forget(self, erased: Audience) -> None:
        """Nobody has these numbers any more; who asks for their user ids is sent to the directory."""
        for user_id in [each for each, number in self._numbers.items() if number in erased]:
            del self._numbers[user_id]

    async def role_of(self, user_id: UUID) -> str | None:
        """The role that the directory gives a person now; None for somebody it does not know."""
        response = await self._audience.LookupRecipients(LookupRecipientsRequest(user_ids=[str(user_id)]))
        return response.recipients[0].role if response.recipients else None

    async def _look_up(self, user_ids: Sequence[UUID]) -> list[int | None]:
        found = await self._store.find_numbers(user_ids)
        missing = [user_id for user_id in user_ids if user_id not in found]
        if missing:
            found |= await self._ask_directory(missing)
        self._remember(user_ids, found)
        return [found.get(user_id) for user_id in user_ids]

    async def _ask_directory(self, user_ids: Sequence[UUID]) -> dict[UUID, int]:
        request = LookupRecipientsRequest(user_ids=map(str, user_ids))
        response = await self._audience.LookupRecipients(request)
        learnt = {UUID(recipient.user_id): recipient.number for recipient in response.recipients}
        if learnt:
            await self._store.keep_numbers(learnt)
        return learnt

    def _remember(self, user_ids: Sequence[UUID], found: dict[UUID, int]) -> None:
        self._numbers.update(found)
        while len(self._numbers) > _KEPT:
            self._numbers.popitem(last=False)
        # Somebody without a number may be given one at any moment, so that is remembered just long enough to spare
        # the directory a client that does not give up.
        now = time.monotonic()
        self._unknown_until = {each: until for each, until in self._unknown_until.items() if until > now}
        self._unknown_until |= {each: now + _UNKNOWN_FOR_S for each in user_ids if each not in found}
