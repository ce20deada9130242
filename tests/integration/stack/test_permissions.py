"""What each service may say and hear on NATS, and that everything else is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import nats.aio.client
import pytest

from shared import subjects
from shared.provisioning import provision
from shared.streams import CONSUMERS, Consumer
from stack.nats import NatsAccess
from stack.permissions import PROVISIONER, SERVICES

_MAY_SAY = {
    subjects.broadcast_due("high"): "sender",
    subjects.broadcast_state("sent"): "dispatcher",
    subjects.delivery_inbox("critical"): "dispatcher",
    subjects.DELIVERY_REPORT: "inbox",
    subjects.DIRECTORY_CHANGED: "preferences",
}
_MAY_HINT = {subjects.LIVE_INBOX: "inbox", subjects.LIVE_DISPATCH: "dispatcher"}
_MAY_TAKE = {
    "sender": "sender_",
    "dispatcher": "dispatcher_",
    "inbox": "inbox_",
    "preferences": "preferences_",
}


class Connection:
    """A user's connection and the permission violations that the server has told it."""

    def __init__(self, client: nats.aio.client.Client, violations: list[str]) -> None:
        self.client = client
        self.violations = violations


@pytest.fixture(scope="module")
async def access(nats_server: NatsAccess) -> NatsAccess:
    """A server with the suite's streams and consumers."""
    await provision(nats_server.url, user=PROVISIONER, password=nats_server.passwords.get(PROVISIONER))
    return nats_server


@asynccontextmanager
async def _connected(access: NatsAccess, user: str) -> AsyncIterator[Connection]:
    violations: list[str] = []

    async def remember(error: Exception) -> None:
        violations.append(str(error))

    client = await nats.connect(
        access.url_for(user),
        inbox_prefix=subjects.inbox_prefix(user),
        error_cb=remember,
        allow_reconnect=False,
    )
    try:
        yield Connection(client, violations)
    finally:
        await client.close()


async def _until_heard(violations: list[str]) -> None:
    async with asyncio.timeout(10):
        while not violations:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("subject", _MAY_SAY)
async def test_the_owner_of_a_subject_may_say_it(access: NatsAccess, subject: str) -> None:
    """JetStream acknowledges it."""
    async with _connected(access, _MAY_SAY[subject]) as owner:
        answer = await owner.client.jetstream().publish(subject, b"{}")
    assert answer.seq > 0


@pytest.mark.parametrize("subject", [*_MAY_SAY, *_MAY_HINT, "$JS.API.STREAM.DELETE.BROADCAST_DUE"])
async def test_nobody_else_may_say_it(access: NatsAccess, subject: str) -> None:
    """The server refuses the others by name of the subject, and no service may change a stream."""
    owner = (_MAY_SAY | _MAY_HINT).get(subject, PROVISIONER)
    for user in SERVICES:
        if user != owner:
            async with _connected(access, user) as other:
                await other.client.publish(subject, b"{}")
                await other.client.flush()
                await _until_heard(other.violations)
                assert subject.lower() in other.violations[0].lower()


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.name)
async def test_work_is_taken_by_its_service_alone(access: NatsAccess, consumer: Consumer) -> None:
    """The service of a consumer gets its messages and acknowledges them; to the others the server refuses both."""
    sayer = next(
        user
        for subject, user in _MAY_SAY.items()
        if subject.split(".")[:2] == consumer.subject.split(".")[:2]
    )
    subject = consumer.subject.replace("*", "sent")
    async with _connected(access, sayer) as source:
        await source.client.jetstream().publish(subject, consumer.name.encode())
    for user in SERVICES:
        if consumer.name.startswith(_MAY_TAKE[user]):
            continue
        async with _connected(access, user) as other:
            await other.client.publish(subjects.next_request(consumer.stream, consumer.name), b"1", reply="x")
            await other.client.flush()
            await _until_heard(other.violations)
    owner_name = next(user for user in SERVICES if consumer.name.startswith(_MAY_TAKE[user]))
    async with _connected(access, owner_name) as owner:
        pull = await owner.client.jetstream().pull_subscribe_bind(consumer.name, consumer.stream)
        taken = set()
        while consumer.name.encode() not in taken:
            for message in await pull.fetch(10, timeout=5):
                await message.ack_sync()
                taken.add(message.data)
        assert owner.violations == []


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_listens_to_others(access: NatsAccess, user: str) -> None:
    """Chunks, reports and everybody else's replies cannot be overheard."""
    others = [subjects.LIVE_INBOX, subjects.LIVE_DISPATCH] if user != "inbox" else []
    # Bulk steps aside for what is urgent, and dispatchers take that in turns.
    others += [subjects.broadcast_due("critical")] if user != "dispatcher" else [subjects.broadcast_due("*")]
    for subject in (
        *("delivery.inbox.*", subjects.DELIVERY_REPORT, "_INBOX.>", "_INBOX_provisioner.>", ">"),
        *others,
    ):
        async with _connected(access, user) as listener:
            await listener.client.subscribe(subject)
            await listener.client.flush()
            await _until_heard(listener.violations)


async def test_every_inbox_node_hears_the_wakes_of_the_others(access: NatsAccess) -> None:
    """`live.inbox` is the one subject that a service both says and hears."""
    async with _connected(access, "inbox") as one, _connected(access, "inbox") as other:
        heard = await one.client.subscribe(subjects.LIVE_INBOX)
        await one.client.flush()
        await other.client.publish(subjects.LIVE_INBOX, b"7")
        assert (await heard.next_msg(timeout=5)).data == b"7"


async def test_every_inbox_node_hears_what_is_begun(access: NatsAccess) -> None:
    """`live.dispatch` is said by dispatchers, and each inbox node fetches for itself."""
    async with _connected(access, "inbox") as one, _connected(access, "dispatcher") as dispatcher:
        heard = await one.client.subscribe(subjects.LIVE_DISPATCH)
        await one.client.flush()
        await dispatcher.client.publish(subjects.LIVE_DISPATCH, b"7")
        assert (await heard.next_msg(timeout=5)).data == b"7"
