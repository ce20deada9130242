"""GetBroadcast and WatchBroadcast: who sees what, and that what they see is true when it is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2, sender_pb2

from shared.metrics import RPC_OPEN
from tests.integration.sender.site import Metadata, ServingSite, Site, a_send
from tests.integration.shared.edge import read_refusal, refusal_of
from tests.integration.shared.polling import until_equal

IN_APP, REALTIME = common_pb2.CHANNEL_IN_APP, common_pb2.CHANNEL_REALTIME
DELIVERED, HELD = common_pb2.DELIVERY_STATE_DELIVERED, common_pb2.DELIVERY_STATE_HELD
PENDING, SENT = common_pb2.DELIVERY_STATE_PENDING, common_pb2.DELIVERY_STATE_SENT


async def sent(site: Site, caller: Metadata, **fields: object) -> str:
    """The id of a new broadcast."""
    return (await site.send(caller, a_send(**fields))).broadcast.broadcast_id


async def get(site: Site, caller: Metadata, broadcast_id: str) -> sender_pb2.GetBroadcastResponse:
    """One look."""
    request = sender_pb2.GetBroadcastRequest(broadcast_id=broadcast_id)
    return await site.stub.GetBroadcast(request, metadata=caller)


def ledger(site: Site, broadcast_id: str, targeted: int, *lines: tuple[int, int, int]) -> None:
    """What the dispatcher knows from here on: channel, state, count."""
    site.neighbours.dispatcher.dispatches[broadcast_id] = dispatcher_pb2.Dispatch(
        broadcast_id=broadcast_id,
        targeted=targeted,
        ledger=[{"channel": channel, "state": state, "count": count} for channel, state, count in lines],
    )


def engaged(site: Site, broadcast_id: str, **counts: int) -> None:
    """What the inbox knows from here on."""
    site.neighbours.inbox.engagements[broadcast_id] = common_pb2.Engagement(**counts)


class Watch:
    """A stream of progress that a test reads message by message."""

    def __init__(self, site: Site, caller: Metadata, broadcast_id: str) -> None:
        request = sender_pb2.WatchBroadcastRequest(broadcast_id=broadcast_id)
        self.call = site.stub.WatchBroadcast(request, metadata=caller)
        self._messages: AsyncIterator[sender_pb2.WatchBroadcastResponse] = aiter(self.call)

    async def next(self) -> sender_pb2.WatchBroadcastResponse:
        """The next message."""
        async with asyncio.timeout(10):
            return await anext(self._messages)

    async def has_ended(self) -> bool:
        """Whether the stream ends without another message."""
        try:
            await self.next()
        except StopAsyncIteration:
            return True
        return False


async def test_before_a_plan_there_is_nothing_to_count(site: Site) -> None:
    """Targeted 0, an empty ledger, and no rates."""
    _, admin = site.person("admin")
    stats = (await get(site, admin, await sent(site, admin))).stats
    assert stats.targeted == 0
    assert list(stats.ledger) == []
    assert not stats.HasField("delivery_rate")
    assert not stats.HasField("engagement_rate")


async def test_stats_are_the_ledger_and_the_people(site: Site) -> None:
    """As dispatcher and inbox have them at that moment, with the rates that follow."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    ledger(site, broadcast_id, 10, (IN_APP, DELIVERED, 8), (IN_APP, PENDING, 2), (REALTIME, HELD, 10))
    engaged(site, broadcast_id, delivered=8, read=2, acknowledged=1)
    stats = (await get(site, admin, broadcast_id)).stats
    assert stats.targeted == 10
    assert [(line.channel, line.state, line.count) for line in stats.ledger] == [
        (IN_APP, DELIVERED, 8),
        (IN_APP, PENDING, 2),
        (REALTIME, HELD, 10),
    ]
    assert (stats.engagement.delivered, stats.engagement.read, stats.engagement.acknowledged) == (8, 2, 1)
    assert (stats.delivery_rate, stats.engagement_rate) == (0.8, 0.25)


async def test_what_was_cleaned_is_told_to_be_gone_and_not_as_nothing(site: Site) -> None:
    """Ledger and people each by themselves: what is still known is told, without the rates that need both."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    await site.admin.execute(
        "UPDATE sender.broadcasts SET state = 'sent', sent_at = now() WHERE broadcast_id = $1",
        UUID(broadcast_id),
    )
    ledger(site, broadcast_id, 10, (IN_APP, DELIVERED, 10))
    engaged(site, broadcast_id, delivered=10, read=5)
    assert (await get(site, admin, broadcast_id)).stats.cleaned is False
    del site.neighbours.dispatcher.dispatches[broadcast_id]
    stats = (await get(site, admin, broadcast_id)).stats
    assert (stats.cleaned, len(stats.ledger), stats.engagement.read) == (True, 0, 5)
    assert (stats.HasField("delivery_rate"), stats.engagement_rate) == (False, 0.5)
    site.neighbours.inbox.engagements[broadcast_id].cleaned_time.GetCurrentTime()
    stats = (await get(site, admin, broadcast_id)).stats
    assert (stats.cleaned, stats.HasField("engagement"), stats.HasField("engagement_rate")) == (
        True,
        False,
        False,
    )


async def test_rate_is_absent_where_nothing_was_delivered(site: Site) -> None:
    """A rate of nothing is no rate, and nobody reached of ten is 0."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    ledger(site, broadcast_id, 10, (IN_APP, PENDING, 10))
    stats = (await get(site, admin, broadcast_id)).stats
    assert stats.HasField("delivery_rate")
    assert stats.delivery_rate == 0
    assert not stats.HasField("engagement_rate")


@pytest.mark.parametrize("silent", ["dispatcher", "inbox", "preferences"])
async def test_neighbour_that_is_down_is_told(site: Site, silent: str) -> None:
    """A guess would be worse than no answer."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    getattr(site.neighbours, silent).is_down = True
    refusal = await refusal_of(get(site, admin, broadcast_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert refusal.retry_after_s is not None


async def test_each_sees_what_is_theirs_to_see(site: Site) -> None:
    """By sender, team, role and scope; the rest looks as if it did not exist."""
    author, coordinator = site.person("coordinator")
    teammate, on_the_team = site.person("coordinator")
    florist, on_the_team_without_a_role = site.person("florist")
    wedding_id, other_id = site.wedding(author, teammate, florist), site.wedding()
    broadcast_id = await sent(site, coordinator, type="form.locked", targeting={"wedding_ids": [wedding_id]})
    two_weddings = await sent(
        site, site.person("admin")[1], type="form.locked", targeting={"wedding_ids": [other_id, wedding_id]}
    )
    about_none = await sent(site, site.service("broadcast.send", name="forms"))
    for caller, seen in (
        (site.person("admin")[1], {broadcast_id, two_weddings, about_none}),
        (coordinator, {broadcast_id, two_weddings}),
        (on_the_team, {broadcast_id, two_weddings}),
        (site.person("coordinator")[1], set[str]()),
        (site.service("broadcast.read"), {broadcast_id, two_weddings, about_none}),
        (site.service("broadcast.send", name="forms"), {about_none}),
        (site.service("broadcast.send:form.locked", name="forms"), {about_none}),
        (site.service("broadcast.send", name="billing"), set()),
    ):
        for each in (broadcast_id, two_weddings, about_none):
            if each in seen:
                assert (await get(site, caller, each)).broadcast.broadcast_id == each
            else:
                refusal = await refusal_of(get(site, caller, each))
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    for caller in (on_the_team_without_a_role, site.person("couple")[1], site.service("internal")):
        refusal = await refusal_of(get(site, caller, broadcast_id))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_who_sees_it_by_a_team_sees_nothing_of_others_in_it(site: Site) -> None:
    """Of the weddings that it is for only their own, and nobody's id; its author and an admin see what was asked."""
    florist, _ = site.person("florist")
    author, sends = site.person("coordinator")
    teammate, reads = site.person("coordinator")
    own, other = site.wedding(author, teammate), site.wedding(author, florist)
    targeting = {"user_ids": [florist, teammate], "roles": ["florist"], "wedding_ids": [own, other]}
    broadcast_id = await sent(site, sends, type="form.locked", targeting=targeting)
    shown = (await get(site, reads, broadcast_id)).broadcast.targeting
    assert shown == common_pb2.Targeting(roles=["florist"], wedding_ids=[own])
    for caller in (sends, site.person("admin")[1], site.service("broadcast.read")):
        assert (await get(site, caller, broadcast_id)).broadcast.targeting == common_pb2.Targeting(
            **targeting
        )


async def test_what_is_not_there_looks_like_what_is_not_theirs(site: Site) -> None:
    """To the letter."""
    _, coordinator = site.person("coordinator")
    foreign = await sent(site, site.person("admin")[1])
    refusals = [await refusal_of(get(site, coordinator, each)) for each in (foreign, str(uuid4()))]
    assert refusals[0] == refusals[1]


async def test_coordinator_off_the_team_sees_it_no_more(site: Site) -> None:
    """Teams are asked at each call."""
    teammate, coordinator = site.person("coordinator")
    wedding_id = site.wedding(teammate)
    broadcast_id = await sent(site, site.person("admin")[1], wedding_id=wedding_id, targeting={})
    await get(site, coordinator, broadcast_id)
    site.neighbours.preferences.weddings[wedding_id].team.clear()
    assert (await refusal_of(get(site, coordinator, broadcast_id))).code is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_what_changes_until_it_is_over(site: Site) -> None:
    """A first look, one for each change, and the end when nothing can come any more."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    watch = Watch(site, admin, broadcast_id)
    first = await watch.next()
    assert (first.state, first.stats.targeted) == (common_pb2.BROADCAST_STATE_PENDING, 0)
    assert first.deliveries_per_second == 0
    await site.plan(broadcast_id)
    assert (await watch.next()).state == common_pb2.BROADCAST_STATE_DISPATCHING
    engaged(site, broadcast_id, delivered=4, acknowledged=1)
    ledger(site, broadcast_id, 10, (IN_APP, DELIVERED, 4), (IN_APP, PENDING, 6))
    half = await watch.next()
    while half.stats.targeted == 0:  # the inbox was looked at a moment before the dispatcher
        half = await watch.next()
    assert half.unacknowledged == 3
    assert half.deliveries_per_second > 0
    engaged(site, broadcast_id, delivered=10, acknowledged=1)
    ledger(site, broadcast_id, 10, (IN_APP, DELIVERED, 10))
    whole = await watch.next()
    while whole.stats.ledger[0].count < 10:
        whole = await watch.next()
    await site.report(broadcast_id, "sent")
    last = await watch.next()
    assert (last.state, last.unacknowledged) == (common_pb2.BROADCAST_STATE_SENT, 9)
    assert await watch.has_ended()


async def test_watch_goes_on_while_somebody_sleeps(site: Site) -> None:
    """Sent, with three alerts held: the stream waits for them."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    await site.plan(broadcast_id)
    ledger(site, broadcast_id, 3, (IN_APP, DELIVERED, 3), (REALTIME, HELD, 3))
    await site.report(broadcast_id, "sent")
    await until_equal("sent", lambda: site.state(broadcast_id))
    watch = Watch(site, admin, broadcast_id)
    assert (await watch.next()).state == common_pb2.BROADCAST_STATE_SENT
    ledger(site, broadcast_id, 3, (IN_APP, DELIVERED, 3), (REALTIME, SENT, 3))
    assert (await watch.next()).stats.ledger[1].state == SENT
    assert await watch.has_ended()


async def test_watch_of_what_is_over_is_one_message(site: Site) -> None:
    """And then it ends."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    await site.plan(broadcast_id)
    await site.report(broadcast_id, "failed", "NOT_FOUND: gone.")
    await until_equal("failed", lambda: site.state(broadcast_id))
    watch = Watch(site, admin, broadcast_id)
    assert (await watch.next()).state == common_pb2.BROADCAST_STATE_FAILED
    assert await watch.has_ended()


async def test_state_is_told_without_waiting_for_the_next_look(site: Site) -> None:
    """A cancel in this process wakes the watcher, who by then looks every two seconds only."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    watch = Watch(site, admin, broadcast_id)
    await watch.next()
    waiting = asyncio.ensure_future(watch.next())
    done, _ = await asyncio.wait([waiting], timeout=1.5)
    assert not done
    started = time.monotonic()
    await site.stub.CancelBroadcast(
        sender_pb2.CancelBroadcastRequest(broadcast_id=broadcast_id), metadata=admin
    )
    assert (await waiting).state == common_pb2.BROADCAST_STATE_CANCELLED
    assert time.monotonic() - started < 1.5


async def test_watch_is_for_those_who_may_see(site: Site) -> None:
    """The others are refused as in GetBroadcast, and one who loses the right loses the stream."""
    teammate, coordinator = site.person("coordinator")
    wedding_id = site.wedding(teammate)
    broadcast_id = await sent(site, site.person("admin")[1], wedding_id=wedding_id, targeting={})
    for caller, code in (
        (site.person("coordinator")[1], grpc.StatusCode.NOT_FOUND),
        (site.person("couple")[1], grpc.StatusCode.PERMISSION_DENIED),
    ):
        assert (await refusal_of(Watch(site, caller, broadcast_id).next())).code is code
    watch = Watch(site, coordinator, broadcast_id)
    await watch.next()
    site.neighbours.preferences.weddings[wedding_id].team.clear()
    assert (await refusal_of(watch.next())).code is grpc.StatusCode.NOT_FOUND


async def test_watch_ends_with_the_role_that_opened_it(site: Site) -> None:
    """An admin or coordinator who becomes an ordinary person loses the stream, also of what they sent themselves."""
    for role in ("admin", "coordinator"):
        author, metadata = site.person(role)
        broadcast_id = await sent(
            site, metadata, type="form.locked", targeting={"wedding_ids": [site.wedding(author)]}
        )
        watch = Watch(site, metadata, broadcast_id)
        await watch.next()
        site.neighbours.preferences.people[author] = "florist"
        assert (await refusal_of(watch.next())).code is grpc.StatusCode.PERMISSION_DENIED


async def test_watcher_who_leaves_is_forgotten(site: Site) -> None:
    """Nothing is asked of the neighbours for those who have gone."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    watch = Watch(site, admin, broadcast_id)
    await watch.next()
    watch.call.cancel()

    async def open_streams() -> float:
        (metric,) = RPC_OPEN.collect()
        return next(sample.value for sample in metric.samples if sample.labels["kind"] == "stream")

    await until_equal(0.0, open_streams)


async def test_server_that_ends_says_so(site: ServingSite) -> None:
    """UNAVAILABLE with a reason, at once, so that the watcher goes elsewhere."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    watch = Watch(site, admin, broadcast_id)
    await watch.next()
    waiting = asyncio.ensure_future(watch.next())
    await asyncio.wait([waiting], timeout=0.05)
    for step in site.running.steps:
        if step.name == "end_watches":
            await step.run()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await waiting
    refusal = read_refusal(ended.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
