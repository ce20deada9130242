"""The connection to a real NATS: confirmed publishing, and a life of its own through every kind of outage."""

from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError
from structlog.testing import capture_logs

from shared.errors import DependencyUnavailable
from shared.messaging import Messaging, MessagingSettings, connect
from tests.integration.shared.nats_site import NatsSite, publish_all
from tests.integration.shared.outages import Relay
from tests.integration.shared.polling import until, until_equal


@pytest.fixture
async def messaging(fresh: NatsSite, relay: Relay) -> AsyncIterator[Messaging]:
    """A connection through the relay, with a fresh stream behind it."""
    messaging = await fresh.connect(relay.url)
    yield messaging
    await messaging.drain()


async def test_what_was_published_is_stored(site: NatsSite, messaging: Messaging) -> None:
    """When publish returns the stream has the message; the same id again is the same message."""
    await publish_all(messaging, "test.fast", ["a", "b", "c"])
    assert await site.stored() == 3
    await messaging.publish("test.fast", b"a", "a")
    assert await site.stored() == 3
    await messaging.publish("test.fast", b"a", "a:2")
    assert await site.stored() == 4


async def test_a_full_subject_refuses_and_leaves_room_for_others(
    site: NatsSite, messaging: Messaging
) -> None:
    """Nothing old is dropped for something new, and one subject's flood does not block another."""
    await publish_all(messaging, "test.slow", [str(number) for number in range(50)])
    with pytest.raises(
        DependencyUnavailable, match=r"stream of test\.slow refuses: maximum messages per subject"
    ):
        await messaging.publish("test.slow", b"", "one more")
    await messaging.publish("test.fast", b"", "urgent")
    assert await site.stored() == 51


async def test_a_subject_without_a_stream_is_told(messaging: Messaging) -> None:
    """A stream that nobody made is an outage of NATS to the sender, with its subject named."""
    with pytest.raises(DependencyUnavailable, match=r"No stream takes elsewhere\.now"):
        await messaging.publish("elsewhere.now", b"", "1")


async def test_a_message_too_large_is_a_defect(messaging: Messaging) -> None:
    """What can never be sent is not called an outage, which would be tried again."""
    with pytest.raises(MaxPayloadError):
        await messaging.publish("test.fast", bytes(2 * 1024 * 1024), "1")


async def test_an_outage_fails_at_once_and_ends_by_itself(
    site: NatsSite, relay: Relay, messaging: Messaging
) -> None:
    """While the connection is cut publishing and check say so; afterwards both work, and subscriptions hear again."""
    heard: list[bytes] = []
    connections: list[int] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    await messaging.subscribe("live.test", hear)
    messaging.on_connected(lambda: connections.append(1))
    await messaging.check()
    await relay.cut()
    await until(lambda: not messaging.is_connected)
    with pytest.raises(DependencyUnavailable):
        await messaging.publish("test.fast", b"", "1")
    with pytest.raises(DependencyUnavailable):
        await messaging.check()
    await messaging.hint("live.test", b"lost")
    await relay.mend()
    await until(lambda: messaging.is_connected)
    await messaging.check()
    await messaging.publish("test.fast", b"", "2")
    await messaging.hint("live.test", b"heard")
    await until(lambda: heard == [b"heard"])
    assert connections == [1]
    assert await site.stored() == 1


async def test_a_client_that_the_server_ended_is_replaced(relay: Relay, messaging: Messaging) -> None:
    """An error after which nats-py gives up for good: a new client takes over, with the subscriptions."""
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    subscription = await messaging.subscribe("live.test", hear)
    with capture_logs() as logs:
        relay.say_to_clients(b"-ERR 'Authorization Violation'\r\n")
        await until(lambda: any(line["event"] == "nats_client_closed" for line in logs))
        await until(lambda: messaging.is_connected)
    await messaging.hint("live.test", b"once")
    await until(lambda: heard == [b"once"])
    await messaging.check()
    await subscription.drain()
    await messaging.hint("live.test", b"too late")
    await messaging.check()
    assert heard == [b"once"]


async def test_a_service_may_start_before_nats(site: NatsSite) -> None:
    """connect returns without a server, says that it is not there, and is connected once it is."""
    relay = await Relay.start(site.url)
    await relay.cut()
    with capture_logs() as logs:
        messaging = await connect(site.settings(relay.url), wait_s=0.1)
    assert "nats_unreachable" in {line["event"] for line in logs}
    with pytest.raises(DependencyUnavailable):
        await messaging.check()
    await relay.mend()
    await until(lambda: messaging.is_connected)
    await messaging.drain()
    await relay.stop()


def attempts(messaging: Messaging) -> int:
    """How often the client has tried to connect again in this outage."""
    client = messaging._client
    return client._server_pool[0].reconnects if client is not None else 0


async def test_an_outage_is_logged_once(relay: Relay, messaging: Messaging) -> None:
    """Hundreds of attempts of an outage are no hundreds of lines."""
    with capture_logs() as logs:
        for outage in (1, 2):
            await relay.cut()
            await until(lambda: attempts(messaging) >= 4)
            await relay.mend()
            # The client is connected a moment before it says so.
            await until(lambda: _told(logs, "nats_connected") >= outage)  # noqa: B023 - awaited at once
            assert messaging.is_connected
    assert (_told(logs, "nats_disconnected"), _told(logs, "nats_connected")) == (2, 2)
    assert _told(logs, "nats_error") <= 4


def _told(logs: list[MutableMapping[str, Any]], event: str) -> int:
    """How often an event is among the lines."""
    return [line["event"] for line in logs].count(event)


async def test_a_drained_connection_is_no_longer_there(site: NatsSite) -> None:
    """After the drain nothing can be sent, and nothing goes on in the background."""
    messaging = await site.connect()
    await messaging.drain()
    with pytest.raises(DependencyUnavailable):
        await messaging.publish("test.fast", b"", "1")


def test_a_password_does_not_show() -> None:
    """Settings that end up in a log or a traceback keep the login to themselves."""
    settings = MessagingSettings("nats://user:hidden@localhost", "inbox", user="inbox", password="hidden")
    assert "hidden" not in repr(settings)


async def test_provisioning_again_changes_nothing(site: NatsSite) -> None:
    """Made once, kept the second time; what was lost is made again."""
    await site.provision()
    await site.delete_stream()
    assert await site.provision() == ["made stream TEST", "made consumer test_fast of TEST"]
    assert await site.provision() == []
    await site.delete_consumer()
    assert await site.provision() == ["made consumer test_fast of TEST"]


async def test_a_restarted_server_has_what_it_stored(tmp_path: Path) -> None:
    """Streams are on files."""
    site = NatsSite(tmp_path)
    site.start()
    await site.provision()
    messaging = await site.connect()
    await messaging.publish("test.fast", b"", "kept")
    site.stop()
    await until(lambda: not messaging.is_connected)
    site.start()
    await until(lambda: messaging.is_connected)
    await until_equal(1, site.stored)
    await messaging.drain()
    site.stop()
