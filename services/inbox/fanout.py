"""Owns who listens on this node: finds, for each change, all open streams that it concerns by one set operation."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final, Protocol

from prometheus_client import Gauge

from services.inbox.changes import Change, Event, Need
from services.inbox.identities import no_inbox
from shared.audience import Audience
from shared.errors import DependencyUnavailable, ServiceError, TooManyStreams

LIVE_STREAMS: Final = Gauge("wedsync_inbox_streams", "Open streams of this node.")
LIVE_PEOPLE: Final = Gauge(
    "wedsync_inbox_people", "People on open streams of this node, once for each place."
)

_NOBODY: Final = Audience()
# What a person's lost connections leave behind counts until keepalive has found them dead, which takes a while; a hint
# makes a client wait that out rather than give up.
_FULL_RETRY_S: Final = 10.0


class Stream(Protocol):
    """An open stream, of one person or of many."""

    @property
    def turn(self) -> asyncio.Semaphore:
        """Held by who is about to send much."""

    def send(self, subscriptions: "list[Subscription]", event: Event) -> None:
        """Show an event to these, who are all on this stream."""

    def fail(self, subscription: "Subscription", error: ServiceError) -> None:
        """This one cannot go on."""

    def end(self, error: ServiceError) -> None:
        """Nobody on it can."""

    async def room(self) -> None:
        """Return when the stream's reader has taken most of what was sent."""


class Subscription:
    """One person on one stream, who has everything up to `position`; `handle` is the stream's own name for them.

    While they are live, `position` stands still: they have everything that was delivered. `recovered` is whether
    nothing was missed since the last event that they saw, on this stream or on the one whose cursor they came with;
    while it is not, they can go on nowhere but from a snapshot.
    """

    __slots__ = ("handle", "is_live", "number", "position", "recovered", "stream")

    def __init__(self, number: int, stream: Stream, handle: int = 0) -> None:
        self.number = number
        self.stream = stream
        self.handle = handle
        self.position = 0
        self.is_live = False
        self.recovered = False

    def send(self, event: Event) -> None:
        """Show this one an event."""
        self.stream.send([self], event)


class _Listeners:
    """Subscriptions by recipient number, and all those numbers as one set."""

    def __init__(self) -> None:
        self._by_number: dict[int, list[Subscription]] = {}
        self._audience: Audience | None = _NOBODY

    def add(self, subscription: Subscription) -> None:
        self._by_number.setdefault(subscription.number, []).append(subscription)
        self._audience = None

    def remove(self, subscription: Subscription) -> None:
        same = self._by_number[subscription.number]
        same.remove(subscription)
        if not same:
            del self._by_number[subscription.number]
            self._audience = None

    def among(self, audience: Audience) -> list[Subscription]:
        """Those whom an audience holds."""
        if self._audience is None:
            self._audience = Audience.of(self._by_number)
        numbers = (audience & self._audience).to_list()
        # Thousands at a time, so without a line of Python for each.
        return list(chain.from_iterable(map(self._by_number.__getitem__, numbers)))

    def __bool__(self) -> bool:
        return bool(self._by_number)

    def __iter__(self) -> Iterator[Subscription]:
        return (subscription for same in self._by_number.values() for subscription in same)


class Fanout:
    """All open streams of this node."""

    def __init__(self, limit_per_person: int) -> None:
        self._limit_per_person = limit_per_person
        self._open: Counter[int] = Counter()
        self._streams: set[Stream] = set()
        self._alone = _Listeners()
        self._shared: dict[Stream, _Listeners] = {}
        self._has_ended = False
        # Numbers are never given again, so these stay.
        self._gone = _NOBODY
        LIVE_STREAMS.set_function(lambda: len(self._streams))
        LIVE_PEOPLE.set_function(self._open.total)

    @contextmanager
    def carrying(self, stream: Stream, *, is_shared: bool) -> Iterator[None]:
        """For as long as this lasts the stream may have subscriptions, of many people when it is shared."""
        if self._has_ended:
            raise going_down()
        self._streams.add(stream)
        if is_shared:
            self._shared[stream] = _Listeners()
        try:
            yield
        finally:
            self._streams.discard(stream)
            self._shared.pop(stream, None)

    def open(self, subscription: Subscription) -> None:
        """Take in one more, who is not live yet. Raises TooManyStreams when this person has as many as allowed."""
        if self._open[subscription.number] >= self._limit_per_person:
            raise TooManyStreams(retry_after_s=_FULL_RETRY_S)
        self._open[subscription.number] += 1

    def close(self, subscription: Subscription) -> None:
        """Let one go who was taken in."""
        self.leave(subscription)
        self._open[subscription.number] -= 1
        if not self._open[subscription.number]:
            del self._open[subscription.number]

    def join(self, subscription: Subscription) -> None:
        """Everything that is delivered from now on is for this one too. Raises PermissionDenied for who is nobody."""
        if subscription.number in self._gone:
            raise no_inbox()
        subscription.is_live = True
        self._listeners(subscription).add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """What is delivered from now on is not."""
        if subscription.is_live:
            subscription.is_live = False
            self._listeners(subscription).remove(subscription)

    def live_on(self, stream: Stream) -> list[Subscription]:
        """Everybody who is live on a shared stream."""
        return list(self._shared[stream])

    def among(self, audience: Audience) -> list[Subscription]:
        """Everybody of an audience who is live."""
        every = (self._alone, *self._shared.values())
        return [subscription for listeners in every for subscription in listeners.among(audience)]

    def deliver(self, change: Change) -> list[Subscription]:
        """Show a change to all whom it concerns; answers those who need something more, who are not live any more."""
        if change.need is Need.END:
            self._gone |= change.members
        audience = change.audience()
        concerned = self._alone.among(audience)
        for subscription in concerned:
            _show([subscription], change)
        for listeners in self._shared.values():
            together = listeners.among(audience)
            if together:
                _show(together, change)
                concerned += together
        if change.need is Need.NOTHING:
            return []
        for subscription in concerned:
            self.leave(subscription)
            # Whoever lacks a snapshot because of it, and ends before that comes, must be given one elsewhere.
            is_had = change.need is not Need.SNAPSHOT
            subscription.position = change.position if is_had else change.position - 1
        return concerned

    async def end_all(self) -> None:
        """End every stream, and take no more: this process is about to."""
        self._has_ended = True
        for stream in list(self._streams):
            stream.end(going_down())

    def _listeners(self, subscription: Subscription) -> _Listeners:
        return self._shared.get(subscription.stream, self._alone)


def going_down() -> ServiceError:
    """Why a stream ends that did nothing wrong."""
    return DependencyUnavailable("This server is going down; go on from the last cursor.", retry_after_s=0.1)


def _show(subscriptions: list[Subscription], change: Change) -> None:
    """What a change shows to subscriptions of one stream: the same to all, or to each their own."""
    if change.event is not None:
        subscriptions[0].stream.send(subscriptions, change.event)
        return
    for subscription in subscriptions:
        event = change.event_for(subscription.number)
        if event is not None:
            subscription.send(event)
