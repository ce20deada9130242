"""Who on a node a change concerns."""

from uuid import uuid4

import pytest

from services.inbox.changes import Change, Event, Need, Wall
from services.inbox.domain import Team
from services.inbox.fanout import Fanout, Subscription
from services.inbox.outlets import Outlet
from shared.audience import Audience
from shared.errors import DependencyUnavailable, ServiceError, TooManyStreams

EVENT = Event("cursor", b"alone", b"shared")


class Heard(Outlet):
    """A stream that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(1_000)
        self.told: list[tuple[list[int], bytes]] = []
        self.ended: ServiceError | None = None

    def send(self, subscriptions: list[Subscription], event: Event) -> None:
        self.told.append((sorted(each.handle for each in subscriptions), event.alone))

    def fail(self, subscription: Subscription, error: ServiceError) -> None:
        self.ended = error

    def end(self, error: ServiceError) -> None:
        self.ended = error


def live(fanout: Fanout, stream: Heard, number: int, handle: int = 0) -> Subscription:
    """Somebody who is live."""
    subscription = Subscription(number, stream, handle)
    fanout.open(subscription)
    fanout.join(subscription)
    return subscription


def test_a_change_is_told_to_whom_it_concerns() -> None:
    """To own streams one by one, to a shared one once with all handles."""
    fanout, own, other, shared = Fanout(5), Heard(), Heard(), Heard()
    with fanout.carrying(own, is_shared=False), fanout.carrying(shared, is_shared=True):
        live(fanout, own, 1)
        live(fanout, other, 2)
        for handle, number in enumerate((1, 3, 4, 1)):
            live(fanout, shared, number, handle)
        assert fanout.deliver(Change(9, Audience.of([1, 3, 70_000]), event=EVENT)) == []
    assert own.told == [([0], b"alone")]
    assert other.told == []
    assert shared.told == [([0, 1, 3], b"alone")]


def test_single_events_go_to_their_recipients() -> None:
    """And those who need something then are not live until they have it."""
    fanout, shared = Fanout(5), Heard()
    with fanout.carrying(shared, is_shared=True):
        first, second = live(fanout, shared, 1, 1), live(fanout, shared, 2, 2)
        change = Change(9, Audience.of([1]), events=lambda number: EVENT, need=Need.COUNT)
        assert fanout.deliver(change) == [first]
        assert (first.is_live, first.position, second.is_live) == (False, 9, True)
        fanout.deliver(Change(10, Audience.of([1, 2]), event=EVENT))
    assert shared.told == [([1], b"alone"), ([2], b"alone")]


def test_who_lacks_a_snapshot_goes_on_from_before_what_it_is_needed_for() -> None:
    """Who ends before it comes would otherwise go on elsewhere without it."""
    fanout, own = Fanout(5), Heard()
    subscription = live(fanout, own, 1)
    assert fanout.deliver(Change(9, Audience.of([1]), need=Need.SNAPSHOT)) == [subscription]
    assert subscription.position == 8


def test_a_wall_lets_its_team_through_as_it_stands() -> None:
    """Any of several walls will do; a team that changes changes what is concerned."""
    walls = tuple(Wall(Team(uuid4(), 1, Audience.of(team))) for team in ([1], [2]))
    change = Change(9, Audience.of([1, 2, 3]), walls, EVENT)
    assert [change.concerns(number) for number in (1, 2, 3)] == [True, True, False]
    assert change.audience() == Audience.of([1, 2])
    walls[0].team = Team(walls[0].team.wedding_id, 2, Audience())
    assert change.audience() == Audience.of([2])
    assert not change.concerns(1)


def test_who_has_left_hears_nothing() -> None:
    """And may come back, but only so often at a time: whoever is refused for that is told when to ask again."""
    fanout, own = Fanout(1), Heard()
    with fanout.carrying(own, is_shared=False):
        subscription = live(fanout, own, 1)
        with pytest.raises(TooManyStreams) as refused:
            fanout.open(Subscription(1, own))
        assert refused.value.retry_after_s == 10.0
        fanout.close(subscription)
        fanout.deliver(Change(9, Audience.of([1]), event=EVENT))
        live(fanout, own, 1)
    assert own.told == []


async def test_nobody_is_let_in_once_all_have_been_ended() -> None:
    """Every stream ends with an error of its own."""
    fanout, streams = Fanout(5), [Heard(), Heard()]
    with fanout.carrying(streams[0], is_shared=False), fanout.carrying(streams[1], is_shared=True):
        await fanout.end_all()
    assert streams[0].ended is not streams[1].ended
    assert {type(each.ended) for each in streams} == {DependencyUnavailable}
    with pytest.raises(DependencyUnavailable), fanout.carrying(Heard(), is_shared=False):
        pass
