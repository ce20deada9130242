"""Owns forgetting: what the sender keeps and for how long, and having every service clean up at once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, Self

from wedsync.broadcast.v1 import common_pb2, directory_pb2, dispatcher_pb2, inbox_pb2, sender_pb2
from wedsync.broadcast.v1.directory_pb2_grpc import DirectoryServiceStub
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.retention_store import Over, RetentionStore
from services.sender.store import SCHEMA
from shared import cleaning, replays
from shared.cleaning import Batch, Cleaner, Hasty
from shared.clock import Clock
from shared.database import Database
from shared.errors import ServiceError
from shared.outbox import Outbox
from shared.replays import Replays
from shared.settings import Environment

CLEAN_UP: Final = "CleanUp"
# As many as an inbox is asked about at once.
_PAGE: Final = 100
# Less than the caller of CleanUp waits, so that they are told what came of it.
_PATIENCE_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How long a broadcast is kept after its end, by whether it has expired, and how often to look for old ones."""

    expired: timedelta
    others: timedelta
    interval_s: float

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Reads the SENDER_RETENTION_ settings."""
        return cls(
            expired=cleaning.days(env, "SENDER_RETENTION_EXPIRED_DAYS", 30),
            # As long as the dispatcher answers for deliveries; what an inbox shows for longer is kept for longer.
            others=cleaning.days(env, "SENDER_RETENTION_BROADCAST_DAYS", 90),
            interval_s=cleaning.interval_s(env, "SENDER"),
        )


class OldBroadcasts:
    """Broadcasts that nothing shows any more.

    An expired one is shown by nobody. Of any other the inbox is asked, and its word holds: what is over gets into no
    inbox any more. So none goes before what shows it, whatever the services' clocks and settings are. Critical ones
    stay for good, as their receipts do.
    """

    what = "broadcasts"

    def __init__(self, store: RetentionStore, inbox: InboxServiceStub, terms: RetentionTerms) -> None:
        self.kept_for = terms.expired
        self._store = store
        self._inbox = inbox
        self._place: Over | None = None

    async def count(self) -> int:
        """How many there are once the inbox has cleaned up as well."""
        count = 0
        place: Over | None = None
        while page := await self._store.find_over(place, _PAGE):
            place = page[-1]
            count += len(page) - len(await self._shown(page, after_clean_up=True))
        return count

    async def remove(self, hasty: Hasty, size: int) -> Batch:
        """Remove those of the next page that nobody is shown."""
        try:
            page = await self._store.find_over(self._place, min(size, _PAGE))
            shown = await self._shown(page)
        except ServiceError:
            # This run ends here, and the next one is to look at all of them.
            self._place = None
            raise
        unseen = [each.broadcast_id for each in page if each.broadcast_id not in shown]
        removed = (await self._store.remove_over(hasty, unseen)).removed if unseen else 0
        self._place = page[-1] if page else None
        return Batch(removed, is_last=not page)

    async def _shown(self, page: Sequence[Over], *, after_clean_up: bool = False) -> Collection[str]:
        asked = [each.broadcast_id for each in page if each.may_be_shown]
        if not asked:
            return ()
        request = inbox_pb2.ListShownBroadcastsRequest(broadcast_ids=asked, after_clean_up=after_clean_up)
        return frozenset((await self._inbox.ListShownBroadcasts(request)).broadcast_ids)


def own_cleaner(
    worked: Database, worker_url: str, inbox: InboxServiceStub, terms: RetentionTerms, clock: Clock
) -> Cleaner:
    """What removes, in this order, what the sender keeps; `worker_url` is where `worked` leads."""
    store = RetentionStore(worked, terms.expired, terms.others)
    chores = (
        OldBroadcasts(store, inbox, terms),
        replays.retention(worked, SCHEMA),
        store.past_sends(),
        Outbox(worked, SCHEMA).retention(),
    )
    return Cleaner(chores, cleaning.opening(worker_url, SCHEMA), clock, terms.interval_s)


class _Answer(Protocol):
    """What a service answers that was asked to clean up."""

    @property
    def cleaned(self) -> Collection[common_pb2.CleanedUp]: ...


class CleaningUp:
    """What CleanUp does: the others first, so that what they have shown can go here."""

    def __init__(
        self,
        cleaner: Cleaner,
        inbox: InboxServiceStub,
        dispatcher: DispatcherServiceStub,
        directory: DirectoryServiceStub,
        answers: Replays,
    ) -> None:
        self._cleaner = cleaner
        self._inbox = inbox
        self._dispatcher = dispatcher
        self._directory = directory
        self._answers = answers

    async def replay(self, request: sender_pb2.CleanUpRequest) -> sender_pb2.CleanUpResponse | None:
        """The first answer to a repeated request."""
        return await self._answers.find(CLEAN_UP, request, sender_pb2.CleanUpResponse)

    async def clean_up(self, request: sender_pb2.CleanUpRequest) -> sender_pb2.CleanUpResponse:
        """Remove what is too old everywhere, or count it; who cannot be reached keeps no other back."""
        dry_run = request.dry_run
        inbox = inbox_pb2.CleanUpInboxesRequest(dry_run=dry_run)
        dispatcher = dispatcher_pb2.CleanUpDispatchesRequest(dry_run=dry_run)
        directory = directory_pb2.CleanUpDirectoryRequest(dry_run=dry_run)
        others = await asyncio.gather(
            _ask("inbox", lambda: self._inbox.CleanUpInboxes(inbox, timeout=_PATIENCE_S)),
            _ask("dispatcher", lambda: self._dispatcher.CleanUpDispatches(dispatcher, timeout=_PATIENCE_S)),
            _ask("preferences", lambda: self._directory.CleanUpDirectory(directory, timeout=_PATIENCE_S)),
        )
        cleaned = await self._cleaner.clean_up(dry_run=dry_run)
        own = sender_pb2.ServiceCleanUp(service=SCHEMA, cleaned=[each.message() for each in cleaned])
        response = sender_pb2.CleanUpResponse(services=[own, *others])
        return await self._answers.remember(CLEAN_UP, request, response)


async def _ask(service: str, call: Callable[[], Awaitable[_Answer]]) -> sender_pb2.ServiceCleanUp:
    try:
        return sender_pb2.ServiceCleanUp(service=service, cleaned=(await call()).cleaned)
    except ServiceError as error:
        return sender_pb2.ServiceCleanUp(service=service, error=error.reason_name)
