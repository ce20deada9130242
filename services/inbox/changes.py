"""Owns what an entry of the log means to streams: whom it concerns, what they are shown, what they need then."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import partial
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from wedsync.broadcast.v1 import inbox_pb2

from services.inbox.domain import ArrivalKind, Content, Item, Receipt, Team, write_cursor
from services.inbox.entries import (
    AllRead,
    Arrived,
    Entry,
    Erased,
    ReceiptsRecorded,
    Retracted,
    Returned,
    Rewritten,
    TeamChanged,
)
from services.inbox.messages import item_message, receipt_message, time_message
from services.inbox.work_store import WorkStore
from shared.audience import Audience
from shared.clock import Clock

_NOBODY = Audience()
_CONTENTS_KEPT: Final = 512
# Before the version of any team.
_UNREAD: Final = -1


class Need(IntEnum):
    """What someone must be given after a change before the next: the greater includes the smaller."""

    NOTHING = 0
    COUNT = 1
    SNAPSHOT = 2
    END = 3
    """Nothing more: whoever it was is nobody any more."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, serialised once for all: as a stream of one person sends it, and as a stream of many people does."""

    cursor: str
    alone: bytes
    shared: bytes

    @classmethod
    def of(cls, event: inbox_pb2.InboxEvent) -> "Event":
        """The event in both forms; `shared` follows the handles that it is for."""
        return cls(
            event.cursor,
            inbox_pb2.WatchInboxResponse(event=event).SerializeToString(),
            inbox_pb2.ConnectInboxesResponse(event=event).SerializeToString(),
        )


@dataclass(slots=True, weakref_slot=True)
class Wall:
    """One wedding's team as of the entry that was read last; all changes behind it share it."""

    team: Team

    def raise_to(self, team: Team) -> None:
        """From now on this is the team, unless a newer one is known."""
        if self.team.version < team.version:
            self.team = team


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the log as streams take it. `event` is the same for all; `events` makes those of single recipients,
    of which most are for nobody who listens here.

    One that `changes_badges` of whom it concerns may do so for very many, who are told theirs by and by.
    By one with `rewritten` that broadcast says something else, which those who have it see when they look again. One
    that `is_dark` was not understood: it is shown to nobody, and may have changed what anybody has.
    """

    position: int
    members: Audience
    walls: tuple[Wall, ...] = ()
    event: Event | None = None
    events: Callable[[int], Event] | None = None
    need: Need = Need.NOTHING
    changes_badges: bool = False
    is_dark: bool = False
    rewritten: UUID | None = None

    @classmethod
    def dark(cls, position: int) -> "Change":
        """What only a newer version of this service understands."""
        return cls(position, _NOBODY, is_dark=True)

    @property
    def shows_something(self) -> bool:
        """Whether anybody is shown anything of it."""
        return self.event is not None or self.events is not None

    def audience(self) -> Audience:
        """Whom it concerns, as the walls stand now."""
        if not self.walls:
            return self.members
        return self.members & Audience.union_of(wall.team.members for wall in self.walls)

    def concerns(self, number: int) -> bool:
        """Whether it concerns this recipient, as the walls stand now."""
        if number not in self.members:
            return False
        return not self.walls or any(number in wall.team.members for wall in self.walls)

    def event_for(self, number: int) -> Event | None:
        """What a recipient whom it concerns is shown, if anything."""
        if self.event is None and self.events is not None:
            return self.events(number)
        return self.event


class Changes:
    """Reads entries for streams, with what the database must be asked for: texts, teams and members."""

    def __init__(self, store: WorkStore, log_identity: UUID, clock: Clock) -> None:
        self._store = store
        self._log_identity = log_identity
        self._clock = clock
        # Kept alive by the changes that stand behind them.
        self._walls: WeakValueDictionary[UUID, Wall] = WeakValueDictionary()
        # A large broadcast comes in many entries, and never changes what it says.
        self._contents: dict[UUID, Content] = {}

    async def read(self, entries: Sequence[Entry]) -> list[Change]:
        """The changes that entries are, in their order."""
        named = {each.broadcast_id for each in entries if isinstance(each, Arrived | Retracted | Returned)}
        contents = await self._find_contents(named)
        arrivals = await self._find_first_arrivals(entries)
        walls = await self._load_walls({each for content in contents.values() for each in content.wall})
        changes = []
        for entry in entries:
            match entry:
                case Arrived():
                    content = contents.get(entry.broadcast_id)
                    at = arrivals.get(entry.broadcast_id, entry.at)
                    changes.append(self._arrival(entry, content, at, walls))
                case Retracted():
                    changes.append(await self._retraction(entry, contents.get(entry.broadcast_id), walls))
                case Returned():
                    changes.append(self._return(entry, contents.get(entry.broadcast_id), walls))
                case Rewritten():
                    members = await self._store.find_members(entry.broadcast_id)
                    changes.append(Change(entry.position, members, rewritten=entry.broadcast_id))
                case _:
                    changes.append(self._other(entry))
        return changes

    def apply(self, entry: Entry) -> None:
        """From now on the walls stand as of this entry."""
        if isinstance(entry, TeamChanged):
            wall = self._walls.get(entry.team.wedding_id)
            if wall is not None:
                wall.raise_to(entry.team)

    def forget(self, broadcast_id: UUID) -> None:
        """A broadcast says something else by now."""
        self._contents.pop(broadcast_id, None)

    def cursor(self, position: int) -> str:
        """Where a stream goes on that has everything up to a position."""
        return write_cursor(position, self._log_identity)

    async def _find_contents(self, broadcast_ids: set[UUID]) -> dict[UUID, Content]:
        """What these broadcasts say, those that are known."""
        found = {each: content for each in broadcast_ids if (content := self._contents.get(each)) is not None}
        missing = broadcast_ids - found.keys()
        if missing:
            read = {each.broadcast_id: each for each in await self._store.find_contents(missing)}
            found |= read
            self._contents |= read
            while len(self._contents) > _CONTENTS_KEPT:
                del self._contents[next(iter(self._contents))]
        return found

    async def _load_walls(self, wedding_ids: set[UUID]) -> dict[UUID, Wall]:
        """Walls by wedding. One may be newer than the entry it is loaded for: nobody who is out by now is let in."""
        loaded = {each: self._wall(each) for each in wedding_ids}
        unread = {each for each, wall in loaded.items() if wall.team.version == _UNREAD}
        if unread:
            # Entries may change a team meanwhile, and others may read it.
            for team in await self._store.find_teams(unread):
                loaded[team.wedding_id].raise_to(team)
        return loaded

    def _wall(self, wedding_id: UUID) -> Wall:
        """The one wall of a wedding here, of which somebody may be reading the team."""
        wall = self._walls.get(wedding_id)
        if wall is None:
            wall = self._walls[wedding_id] = Wall(Team(wedding_id, _UNREAD, _NOBODY))
        return wall

    async def _find_first_arrivals(self, entries: Sequence[Entry]) -> dict[UUID, datetime]:
        """When the items had arrived that alerts are for."""
        alerts = (each for each in entries if isinstance(each, Arrived) and each.kind is ArrivalKind.ALERT)
        alerted = {each.broadcast_id for each in alerts}
        return await self._store.find_first_arrivals(alerted) if alerted else {}

    def _arrival(
        self, entry: Arrived, content: Content | None, at: datetime, walls: Mapping[UUID, Wall]
    ) -> Change:
        if content is None or (content.expires_at is not None and content.expires_at <= self._clock.now()):
            # Nothing is shown of it, but the database may think otherwise of what it is too late for.
            return Change(entry.position, entry.members)
        event = inbox_pb2.InboxEvent(cursor=self.cursor(entry.position))
        is_silent = entry.kind is not ArrivalKind.ITEM
        receipt = Receipt(content.broadcast_id, None, None, None, None)
        shown = item_message(Item(entry.position, content, at, is_silent, receipt))
        if entry.kind is ArrivalKind.ALERT:
            event.alert.item.CopyFrom(shown)
        else:
            event.added.item.CopyFrom(shown)
            event.added.silent = is_silent
        return Change(
            entry.position, entry.members, tuple(walls[each] for each in content.wall), Event.of(event)
        )

    async def _retraction(
        self, entry: Retracted, content: Content | None, walls: Mapping[UUID, Wall]
    ) -> Change:
        event = inbox_pb2.InboxEvent(cursor=self.cursor(entry.position))
        event.retracted.broadcast_ids.append(str(entry.broadcast_id))
        members = entry.members
        if members is None:
            members = await self._store.find_members(entry.broadcast_id)
        wall = content.wall if content is not None else ()
        walls_of_it = tuple(walls[each] for each in wall)
        return Change(entry.position, members, walls_of_it, Event.of(event), changes_badges=True)

    def _return(self, entry: Returned, content: Content | None, walls: Mapping[UUID, Wall]) -> Change:
        members = Audience.of(entry.items)
        if content is None:
            return Change(entry.position, members)
        walls_of_it = tuple(walls[each] for each in content.wall)
        events = partial(self._returned, entry, content)
        return Change(entry.position, members, walls_of_it, events=events, need=Need.COUNT)

    def _returned(self, entry: Returned, content: Content, number: int) -> Event:
        item = entry.items[number]
        event = inbox_pb2.InboxEvent(cursor=self.cursor(entry.position))
        event.updated.receipts.append(receipt_message(item.receipt))
        shown = Item(entry.position, content, item.arrived_at, item.is_silent, item.receipt)
        event.updated.items.append(item_message(shown))
        return Event.of(event)

    def _other(self, entry: ReceiptsRecorded | AllRead | TeamChanged | Erased) -> Change:
        match entry:
            case ReceiptsRecorded():
                members, events = Audience.of(entry.receipts), partial(self._recorded, entry)
                return Change(entry.position, members, events=events, need=Need.COUNT)
            case AllRead():
                event = self._updated(entry.position, (), entry.read_at)
                return Change(
                    entry.position, Audience.of([entry.recipient_number]), event=event, need=Need.COUNT
                )
            case TeamChanged():
                return Change(entry.position, entry.moved, need=Need.SNAPSHOT)
            case Erased():
                return Change(entry.position, Audience.of([entry.recipient_number]), need=Need.END)

    def _recorded(self, entry: ReceiptsRecorded, number: int) -> Event:
        return self._updated(entry.position, entry.receipts[number])

    def _updated(
        self, position: int, receipts: Iterable[Receipt], all_read_at: datetime | None = None
    ) -> Event:
        event = inbox_pb2.InboxEvent(cursor=self.cursor(position))
        event.updated.receipts.extend(map(receipt_message, receipts))
        if all_read_at is not None:
            event.updated.all_read_time.CopyFrom(time_message(all_read_at))
        return Event.of(event)
