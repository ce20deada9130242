"""A NATS server that a test may break: its own process, a user who may do everything, and one small stream."""

import asyncio
import shutil
from pathlib import Path

import nats
from nats.js.api import Header, StreamState

from shared.messaging import Messaging, MessagingSettings, connect
from shared.provisioning import provision
from shared.streams import Consumer, Stream
from stack.nats import NatsServer, NatsUser
from stack.ports import Ports
from stack.processes import RunningProgram, start

STREAM = Stream(
    name="TEST",
    subjects=("test.fast", "test.slow"),
    description="The stream of the tests.",
    max_messages_per_subject=50,
    max_bytes=1024 * 1024,
    max_age_s=600.0,
)
CONSUMER = Consumer(
    "TEST", "test_fast", "test.fast", "The consumer of the tests.", ack_wait_s=0.4, max_deliver=3
)


class NatsSite:
    """The server, and what tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        user = NatsUser("tester", "secret", publish=(">",), subscribe=(">",))
        self._server = NatsServer(
            folder / "nats", folder, Ports(folder / "ports.json").choose("nats"), [user]
        )
        self._running: RunningProgram | None = None
        self.url = self._server.access.url

    def start(self) -> None:
        """Start it, or start it again with what it has stored."""
        self._running = start(self._server)

    def stop(self) -> None:
        """Stop it; its store stays."""
        if self._running is not None:
            self._running.stop()
            self._running = None

    def lose_store(self) -> None:
        """What a lost disk leaves: nothing."""
        shutil.rmtree(self._folder / "nats" / "store")

    async def provision(self) -> list[str]:
        """Make the stream and the consumer of the tests."""
        return await provision(
            self.url, user="tester", password="secret", streams=[STREAM], consumers=[CONSUMER]
        )

    async def connect(self, url: str | None = None) -> Messaging:
        """A connection, through a relay when its address is given."""
        return await connect(self.settings(url), wait_s=2.0)

    def settings(self, url: str | None = None) -> MessagingSettings:
        """The login of the tests."""
        return MessagingSettings(
            url or self.url, "test", user="tester", password="secret", publish_timeout_s=0.5
        )

    async def state(self) -> StreamState:
        """What the stream holds."""
        client = await nats.connect(self.url, user="tester", password="secret")
        try:
            return (await client.jetstream().stream_info(STREAM.name)).state
        finally:
            await client.close()

    async def contents(self) -> list[tuple[str, bytes, str]]:
        """Subject, payload and id of each message in the order in which the stream took them."""
        client = await nats.connect(self.url, user="tester", password="secret")
        try:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(STREAM.name)).state
            sequences = range(state.first_seq, state.last_seq + 1) if state.messages else range(0)
            messages = [await jetstream.get_msg(STREAM.name, sequence) for sequence in sequences]
            return [
                (each.subject or "", each.data or b"", (each.headers or {})[Header.MSG_ID])
                for each in messages
            ]
        finally:
            await client.close()

    async def ids(self) -> list[str]:
        """The ids of the messages in the order in which the stream took them."""
        return [message_id for _, _, message_id in await self.contents()]

    async def stored(self) -> int:
        """How many messages the stream holds."""
        return (await self.state()).messages

    async def unsettled(self) -> int:
        """How many messages the consumer has given out and not heard of again."""
        client = await nats.connect(self.url, user="tester", password="secret")
        try:
            return (await client.jetstream().consumer_info(STREAM.name, CONSUMER.name)).num_ack_pending or 0
        finally:
            await client.close()

    async def delete_stream(self) -> None:
        """As somebody with too many rights would."""
        client = await nats.connect(self.url, user="tester", password="secret")
        await client.jetstream().delete_stream(STREAM.name)
        await client.close()

    async def delete_consumer(self) -> None:
        """As a cluster that has lost its state would."""
        client = await nats.connect(self.url, user="tester", password="secret")
        await client.jetstream().delete_consumer(STREAM.name, CONSUMER.name)
        await client.close()


async def publish_all(messaging: Messaging, subject: str, names: list[str]) -> None:
    """Publish a message for each name, all at once, with the name as text and as id."""
    await asyncio.gather(*(messaging.publish(subject, name.encode(), name) for name in names))
