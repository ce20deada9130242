"""Receiving from a real JetStream: once when all goes well, again when not, and never silently not at all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared import pull_requests
from shared.errors import DependencyUnavailable
from shared.failpoints import armed
from shared.messaging import Messaging
from shared.pull_worker import Delivery, Poison, PullWorker
from tests.integration.shared.nats_site import CONSUMER, NatsSite, publish_all
from tests.integration.shared.outages import Relay
from tests.integration.shared.polling import until, until_equal


@pytest.fixture
async def sender(fresh: NatsSite) -> AsyncIterator[Messaging]:
    """A connection to publish with."""
    messaging = await fresh.connect()
    yield messaging
    await messaging.drain()


@pytest.fixture
async def messaging(fresh: NatsSite, relay: Relay) -> AsyncIterator[Messaging]:
    """A connection to receive with, through the relay."""
    messaging = await fresh.connect(relay.url)
    yield messaging
    await messaging.drain()


class Desk:
    """A worker whose handler does what a test says, and who writes down what happens."""

    def __init__(self, messaging: Messaging, concurrency: int = 1, batch: int | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.done: list[str] = []
        self.buried: list[tuple[str, str]] = []
        self.raises: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self.busy = 0
        self.busiest = 0
        self.worker = PullWorker(
            messaging, CONSUMER, self._handle, bury=self._bury, concurrency=concurrency, batch=batch
        )
        self._running = asyncio.create_task(self.worker.run())

    async def close(self) -> None:
        """Stop in order."""
        self.open.set()
        await self.worker.stop()
        await self._running

    async def _handle(self, delivery: Delivery) -> None:
        self.seen.append((delivery.payload.decode(), delivery.attempt))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self.open.wait()
            if self.raises:
                raise self.raises.pop(0)
            self.done.append(delivery.payload.decode())
        finally:
            self.busy -= 1

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        self.buried.append((delivery.payload.decode(), reason))


@pytest.fixture
async def desk(messaging: Messaging) -> AsyncIterator[Desk]:
    """A worker that handles two at a time."""
    desk = Desk(messaging, concurrency=2)
    yield desk
    await desk.close()


async def test_each_message_is_handled_once_and_is_gone(
    fresh: NatsSite, sender: Messaging, desk: Desk
) -> None:
    """Acknowledged when the handler has returned, so nothing is left and nothing comes again."""
    names = [str(number) for number in range(40)]
    await publish_all(sender, "test.fast", names)
    await until(lambda: len(desk.done) == 40)
    await until_equal(0, fresh.stored)
    assert sorted(desk.seen) == sorted((name, 1) for name in names)


async def test_no_more_are_handled_at_a_time_than_allowed(
    fresh: NatsSite, sender: Messaging, messaging: Messaging
) -> None:
    """Concurrency bounds the handlers, batch what is held here; the rest stays with the server for others."""
    desk = Desk(messaging, concurrency=2, batch=5)
    desk.open.clear()
    await publish_all(sender, "test.fast", [str(number) for number in range(12)])
    await until_equal(5, fresh.unsettled)
    await until(lambda: desk.busy == 2)
    desk.open.set()
    await until(lambda: len(desk.done) == 12)
    assert desk.busiest == 2
    await desk.close()


async def test_a_defect_is_tried_again(fresh: NatsSite, sender: Messaging, desk: Desk) -> None:
    """The handler raised, so the message comes again, later and as attempt 2."""
    desk.raises.append(ValueError("a slip"))
    await sender.publish("test.fast", b"a", "a")
    await until_equal(0, fresh.stored)
    assert desk.seen == [("a", 1), ("a", 2)]
    assert desk.done == ["a"]
    assert desk.buried == []


async def test_poison_is_buried_at_once(fresh: NatsSite, sender: Messaging, desk: Desk) -> None:
    """What can never be handled goes to its dead letters with the reason; its neighbours go on."""
    desk.raises.append(Poison("no such thing"))
    await publish_all(sender, "test.fast", ["a"])
    await publish_all(sender, "test.fast", ["b"])
    await until_equal(0, fresh.stored)
    assert desk.buried == [("a", "no such thing")]
    assert desk.seen == [("a", 1), ("b", 1)]
    assert desk.done == ["b"]


async def test_a_defect_that_stays_is_buried_in_the_end(
    fresh: NatsSite, sender: Messaging, desk: Desk
) -> None:
    """After as many attempts as the consumer allows it is a dead letter, and is gone from the stream."""
    desk.raises += [ValueError("one"), ValueError("two"), ValueError("three")]
    await sender.publish("test.fast", b"a", "a")
    await until_equal(0, fresh.stored)
    assert desk.buried == [("a", "three")]
    assert [attempt for _, attempt in desk.seen] == [1, 2, 3]


async def test_an_outage_that_stays_is_not_buried(fresh: NatsSite, sender: Messaging, desk: Desk) -> None:
    """Nothing is wrong with the message: whoever owns it sends it again, so it is only told."""
    desk.raises += [DependencyUnavailable() for _ in range(3)]
    with capture_logs() as logs:
        await sender.publish("test.fast", b"a", "a")
        await until_equal(0, fresh.stored)
    assert desk.buried == []
    outcomes = [line["outcome"] for line in logs if line["event"] == "message_handled"]
    assert outcomes == ["retried", "retried", "given_up"]


async def test_one_line_tells_of_each_message(sender: Messaging, desk: Desk) -> None:
    """Consumer, id, outcome, attempt and times; nothing of what the message says."""
    with capture_logs() as logs:
        await sender.publish("test.fast", b"a secret", "some-id:1")
        await until(lambda: any(line["event"] == "message_handled" for line in logs))
    (line,) = [line for line in logs if line["event"] == "message_handled"]
    assert (line["consumer"], line["message_id"], line["outcome"], line["attempt"]) == (
        "test_fast",
        "some-id:1",
        "done",
        1,
    )
    assert line["ms"] > 0
    assert "a secret" not in str(line)


async def test_long_work_is_not_given_to_anyone_else(fresh: NatsSite, sender: Messaging, desk: Desk) -> None:
    """A handler that takes several times the wait for an acknowledgement is not interrupted by a second delivery."""
    desk.open.clear()
    await sender.publish("test.fast", b"a", "a")
    await until(lambda: desk.busy == 1)
    await asyncio.wait([asyncio.create_task(desk.open.wait())], timeout=3 * CONSUMER.ack_wait_s)
    desk.open.set()
    await until_equal(0, fresh.stored)
    assert desk.seen == [("a", 1)]


@pytest.mark.parametrize("way", ["error", "skip"])
async def test_an_acknowledgement_that_was_not_sent_means_again(
    fresh: NatsSite, sender: Messaging, desk: Desk, way: str
) -> None:
    """Between commit and acknowledgement a crash, or an answer that is lost, repeats the message and loses nothing."""
    with armed(f"test_fast.worker.before_ack={way}@1") as plan:
        await sender.publish("test.fast", b"a", "a")
        await until_equal(0, fresh.stored)
        assert plan.hits["test_fast.worker.before_ack"] == 2
    assert desk.done == ["a", "a"]


async def test_it_goes_on_after_an_outage(
    fresh: NatsSite, relay: Relay, sender: Messaging, desk: Desk
) -> None:
    """What was published while the connection was cut arrives as soon as it is there again."""
    await sender.publish("test.fast", b"before", "before")
    await until_equal(0, fresh.stored)
    await relay.cut()
    await sender.publish("test.fast", b"during", "during")
    await relay.mend()
    await until(lambda: desk.done == ["before", "during"])
    await desk.worker.check()


async def test_it_goes_on_after_its_client_was_closed(
    relay: Relay, messaging: Messaging, sender: Messaging, desk: Desk
) -> None:
    """Also on the new client that takes over when the server has ended the old one for good."""
    await until(lambda: messaging.is_connected)
    relay.say_to_clients(b"-ERR 'Authorization Violation'\r\n")
    await sender.publish("test.fast", b"a", "a")
    await until(lambda: desk.done == ["a"])


async def test_it_goes_on_after_the_stream_was_lost(fresh: NatsSite, sender: Messaging, desk: Desk) -> None:
    """The loss is told once, and the worker takes up again when the provisioner has made the stream anew."""
    with capture_logs() as logs:
        await sender.publish("test.fast", b"a", "a")
        await until(lambda: desk.done == ["a"])
        await fresh.delete_stream()
        await until(lambda: desk.worker._requests._failures >= 3)
        with pytest.raises(DependencyUnavailable, match="test_fast cannot be reached"):
            await desk.worker.check()
        await fresh.provision()
        await sender.publish("test.fast", b"b", "b")
        await until(lambda: desk.done == ["a", "b"])
    await desk.worker.check()
    events = [line["event"] for line in logs]
    assert events.count("consumer_lost") == events.count("consumer_restored") == 1


async def test_it_waits_for_a_consumer_that_is_not_there_yet(
    fresh: NatsSite, sender: Messaging, messaging: Messaging
) -> None:
    """A service that starts before the provisioner has been there begins to work when it has."""
    await fresh.delete_consumer()
    desk = Desk(messaging)
    await until(lambda: desk.worker._requests._failures >= 2)
    await sender.publish("test.fast", b"a", "a")
    await fresh.provision()
    await until(lambda: desk.done == ["a"])
    await desk.close()


async def test_a_request_that_the_server_forgot_is_made_again(
    monkeypatch: pytest.MonkeyPatch, sender: Messaging, messaging: Messaging
) -> None:
    """When not even heartbeats come, the worker does not wait for the end of its request."""
    monkeypatch.setattr(pull_requests, "_HEARTBEAT_S", 0.1)
    monkeypatch.setattr(pull_requests, "_SILENCE_S", 0.3)
    send, requests = messaging.send, []

    async def lose_the_first(subject: str, payload: bytes = b"", reply: str = "") -> None:
        requests.append(subject)
        if len(requests) > 1:
            await send(subject, payload, reply)

    monkeypatch.setattr(messaging, "send", lose_the_first)
    await sender.publish("test.fast", b"a", "a")
    desk = Desk(messaging)
    await until(lambda: desk.done == ["a"])
    await desk.close()


async def test_a_stopped_worker_finishes_and_takes_no_more(
    fresh: NatsSite, sender: Messaging, messaging: Messaging
) -> None:
    """What it had begun is done and acknowledged; what comes later goes to another one at once."""
    first = Desk(messaging)
    first.open.clear()
    await sender.publish("test.fast", b"a", "a")
    await until(lambda: first.busy == 1)
    stopping = asyncio.create_task(first.worker.stop())
    await until(lambda: first.worker._stopping)
    second = Desk(messaging)
    await sender.publish("test.fast", b"b", "b")
    await until(lambda: second.done == ["b"])
    assert not stopping.done()
    first.open.set()
    await stopping
    await first.close()
    await second.close()
    assert (first.seen, second.seen) == ([("a", 1)], [("b", 1)])
    assert await fresh.stored() == 0


async def test_workers_share_without_doing_anything_twice(
    fresh: NatsSite, sender: Messaging, messaging: Messaging
) -> None:
    """Two workers on one consumer: every message is handled by exactly one."""
    desks = [Desk(messaging, concurrency=3), Desk(messaging, concurrency=3)]
    names = [str(number) for number in range(50)]
    await publish_all(sender, "test.fast", names)
    await until(lambda: sum(len(desk.done) for desk in desks) >= 50)
    for desk in desks:
        await desk.close()
    assert sorted([*desks[0].done, *desks[1].done]) == sorted(names)
    assert await fresh.stored() == 0


async def test_it_goes_on_after_the_server_was_restarted(tmp_path: Path) -> None:
    """Once with the store kept, and once with everything lost and made anew: no worker needs a restart."""
    site = NatsSite(tmp_path)
    site.start()
    await site.provision()
    messaging = await site.connect()
    desk = Desk(messaging)
    await messaging.publish("test.fast", b"a", "a")
    await until(lambda: desk.done == ["a"])
    await until_equal(0, site.stored)
    site.stop()
    await until(lambda: not messaging.is_connected)
    site.start()
    await until(lambda: messaging.is_connected)
    await messaging.publish("test.fast", b"b", "b")
    await until(lambda: desk.done == ["a", "b"])
    await until_equal(0, site.stored)
    site.stop()
    site.lose_store()
    await until(lambda: not messaging.is_connected)
    site.start()
    await site.provision()
    await until(lambda: messaging.is_connected)
    await messaging.publish("test.fast", b"c", "c")
    await until(lambda: desk.done == ["a", "b", "c"])
    await desk.close()
    await messaging.drain()
    site.stop()
