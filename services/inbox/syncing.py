"""Owns bringing a stream to the end of the log: at its start, and when it needs to be told more than a change says."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Self
from uuid import UUID

import structlog
from wedsync.broadcast.v1 import inbox_pb2

from services.inbox.changes import Change, Changes, Event, Need
from services.inbox.domain import read_cursor
from services.inbox.fanout import Fanout, Subscription
from services.inbox.groups import Group
from services.inbox.identities import no_inbox
from services.inbox.inboxes import FirstPage, Inboxes
from services.inbox.live import Tail
from shared.errors import Internal
from shared.ordered_log import LogTruncated
from shared.translations import to_service_error

log = structlog.get_logger(__name__)

_COUNTS_AT_ONCE = 8
# Of those who are told their badge because something has left everybody's inbox, who may be everybody.
_BADGES_TOGETHER = 8
# So long the others wait for those of them who do not read what they are sent.
_LONGEST_TURN_S = 1.0
_PAGES_TOGETHER = 32
# So many changes may be shown without looking whether there is room for them.
_FEW = 16
# Long before anybody who waits for a sign of life gives up.
_PROGRESS_S = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """How a stream begins: with what follows a position, or else where the log ends, with what is needed there."""

    after: int | None
    need: Need

    @classmethod
    def of(cls, cursor: str, log_identity: UUID, *, skip_snapshot: bool = False) -> Self:
        """What a client asks for; a cursor of a log that is no more begins anew. Raises InvalidCursor."""
        if cursor:
            after = read_cursor(cursor, log_identity)
            return cls(after, Need.SNAPSHOT if after is None else Need.COUNT)
        return cls(None, Need.COUNT if skip_snapshot else Need.SNAPSHOT)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the database says of one inbox as of a position."""

    position: int
    event: Event


class Syncing:
    """Gives each subscription what it lacks and lets it join in the same breath: nothing is missed or comes twice."""

    def __init__(self, tail: Tail, changes: Changes, inboxes: Inboxes, fanout: Fanout) -> None:
        self._tail = tail
        self._changes = changes
        self._inboxes = inboxes
        self._fanout = fanout
        self._counting = asyncio.Semaphore(_COUNTS_AT_ONCE)
        # Thousands may connect in the same second.
        self._first_pages: Group[int, FirstPage] = Group(inboxes.list_first_pages, _PAGES_TOGETHER)
        self._running: dict[Subscription, asyncio.Task[None]] = {}
        self._badges: dict[Subscription, None] = {}
        self._has_badges = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    def deliver(self, change: Change) -> None:
        """Show a change to all whom it concerns, and begin to give them what they need then."""
        for subscription in self._fanout.deliver(change):
            self._start(subscription, change.need)
        if change.changes_badges:
            self._want_badges(self._fanout.among(change.audience()))

    async def tell_badges(self) -> None:
        """Tell their badge to those for whom a change has come that changes many, a few at a time, for good.

        They stay live until it is their turn, or everybody would miss what is urgent for as long as all are counted.
        """
        while True:
            while not self._badges:
                self._has_badges.clear()
                await self._has_badges.wait()
            turn = list(islice(self._badges, _BADGES_TOGETHER))
            for subscription in turn:
                del self._badges[subscription]
            telling = {asyncio.create_task(self._tell_badge(each), name="inbox_badge") for each in turn}
            self._telling |= telling
            for each in telling:
                each.add_done_callback(self._telling.discard)
            await asyncio.wait(telling, timeout=_LONGEST_TURN_S)

    def begin(self, subscription: Subscription, start: Start) -> None:
        """Start one who was taken in."""
        subscription.position = self._tail.position if start.after is None else start.after
        subscription.recovered = start.after is not None or start.need is Need.COUNT
        self._start(subscription, start.need)

    def end(self, subscription: Subscription) -> None:
        """Give this one nothing more."""
        self._badges.pop(subscription, None)
        task = self._running.pop(subscription, None)
        if task is not None:
            task.cancel()
        self._fanout.close(subscription)

    def heartbeat(self) -> Event:
        """A sign of life for live ones, who can go on from here."""
        return self._heartbeat_at(self._tail.position)

    def cursor(self, subscription: Subscription) -> str:
        """Where this one can go on; empty for who must begin with a snapshot and has not been given it."""
        if subscription.is_live:
            return self._changes.cursor(self._tail.position)
        return self._changes.cursor(subscription.position) if subscription.recovered else ""

    def _heartbeat_at(self, position: int) -> Event:
        cursor = self._changes.cursor(position)
        return Event.of(inbox_pb2.InboxEvent(cursor=cursor, heartbeat=inbox_pb2.Heartbeat()))

    def _want_badges(self, subscriptions: Iterable[Subscription]) -> None:
        self._badges |= dict.fromkeys(subscriptions)
        self._has_badges.set()

    async def _tell_badge(self, subscription: Subscription) -> None:
        """Return once this one is told, or cannot be any more."""
        if not subscription.is_live and subscription in self._running:
            # What is being looked up for it may be older.
            await asyncio.wait([self._running[subscription]])
        if subscription.is_live:
            self._fanout.leave(subscription)
            subscription.position = self._tail.position
            self._start(subscription, Need.COUNT)
            await asyncio.wait([self._running[subscription]])

    def _start(self, subscription: Subscription, need: Need) -> None:
        task = asyncio.create_task(self._run(subscription, need), name="inbox_sync")
        self._running[subscription] = task

    async def _run(self, subscription: Subscription, need: Need) -> None:
        try:
            while need is not Need.NOTHING:
                try:
                    need = await self._step(subscription, need)
                except LogTruncated:
                    # What this one has not seen is no longer kept.
                    need = _anew(subscription)
        except Exception as error:  # noqa: BLE001  # whatever it is, this one cannot go on, and the others can
            subscription.stream.fail(subscription, to_service_error(error) or _defect(error))
        self._running.pop(subscription, None)

    async def _step(self, subscription: Subscription, need: Need) -> Need:
        """Give one what is needed and all that follows it, up to what needs something again.

        Raises PermissionDenied for whoever is nobody any more.
        """
        if need is Need.END:
            raise no_inbox()
        if need is Need.COUNT:
            need = await self._come_near(subscription)
        async with subscription.stream.turn:
            await subscription.stream.room()
            if need is Need.COUNT:
                need = await self._catch_up(subscription)
            look = await self._look(subscription, need)
            if need is Need.COUNT and look.position < subscription.position:
                # A cursor from the future: the log was put back to an earlier state.
                raise LogTruncated(subscription.position, look.position)
            await self._tail.reach(look.position)
            return self._advance(subscription, look, need)

    async def _come_near(self, subscription: Subscription) -> Need:
        """Show what this node does not keep, out of the log itself.

        That may be much, of which little concerns one: so how far it has come is told now and then, for whoever is cut
        off goes on from there, and the others need not wait for this one's turn to end.
        """
        loop = asyncio.get_running_loop()
        told_at = loop.time()
        while not self._tail.keeps(subscription.position):
            stretch = await self._tail.further_back(subscription.number, subscription.position)
            if await self._show_in_turn(subscription, stretch.changes) is Need.SNAPSHOT:
                return _anew(subscription)
            subscription.position = stretch.until
            if loop.time() - told_at >= _PROGRESS_S:
                told_at = loop.time()
                await subscription.stream.room()
                subscription.send(self._heartbeat_at(subscription.position))
        return Need.COUNT

    async def _catch_up(self, subscription: Subscription) -> Need:
        """Show what lies behind, no faster than it is read, until there are but a few changes left."""
        while (changes := self._tail.since(subscription.position)) is not None and len(changes) > _FEW:
            if await self._show_in_turn(subscription, changes) is Need.SNAPSHOT:
                return _anew(subscription)
            subscription.position = changes[-1].position
        return Need.COUNT

    async def _show_in_turn(self, subscription: Subscription, changes: Iterable[Change]) -> Need:
        """Show what concerns this one, no faster than it is read, up to what needs a snapshot."""
        for change in changes:
            await subscription.stream.room()
            if _show_all(subscription, [change]) is Need.SNAPSHOT:
                return Need.SNAPSHOT
        return Need.NOTHING

    def _advance(self, subscription: Subscription, look: _Look, need: Need) -> Need:
        """Show what was looked up in its place among the changes, and let the subscription join, in one breath."""
        changes = self._tail.since(look.position if need is Need.SNAPSHOT else subscription.position)
        if changes is None:
            return need
        before = [change for change in changes if change.position <= look.position]
        if _show_all(subscription, before) is Need.SNAPSHOT:
            return _anew(subscription)
        subscription.send(look.event)
        subscription.recovered = True
        subscription.position = look.position
        after = changes[len(before) :]
        left = _show_all(subscription, after, until=Need.COUNT)
        if left is Need.NOTHING:
            self._fanout.join(subscription)
            if any(change.changes_badges and change.concerns(subscription.number) for change in after):
                self._want_badges([subscription])
        return left

    async def _look(self, subscription: Subscription, need: Need) -> _Look:
        number = subscription.number
        event = inbox_pb2.InboxEvent()
        if need is Need.COUNT:
            async with self._counting:
                badge = await self._inboxes.count_unread(number)
            event.unread_count.unread_count = badge.unread_count
        else:
            page = await self._first_pages.ask(number)
            badge = page.badge
            event.snapshot.MergeFromString(page.items)
            event.snapshot.unread_count = badge.unread_count
            event.snapshot.recovered = subscription.recovered
        event.cursor = self._changes.cursor(badge.position)
        return _Look(badge.position, Event.of(event))


def _anew(subscription: Subscription) -> Need:
    """Have one begin anew who cannot be shown one by one what they have not seen, and be told so."""
    subscription.recovered = False
    return Need.SNAPSHOT


def _show_all(subscription: Subscription, changes: Iterable[Change], until: Need = Need.SNAPSHOT) -> Need:
    """Show what concerns this one, up to what needs `until` or more; what is needed then."""
    for change in changes:
        if change.concerns(subscription.number):
            if change.need is Need.END:
                raise no_inbox()
            if change.need is Need.SNAPSHOT:
                return Need.SNAPSHOT
            event = change.event_for(subscription.number)
            if event is not None:
                subscription.send(event)
            subscription.position = change.position
            if change.need >= until:
                return change.need
    return Need.NOTHING


def _defect(error: Exception) -> Internal:
    log.error("inbox_sync_failed", exc_info=error)
    return Internal()
