"""Each credential of NATS against everything that could be said or heard there: its allow-list and nothing beside."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import nats
import nats.aio.client
import pytest

from shared import subjects
from shared.provisioning import provision
from shared.streams import CONSUMERS, STREAMS, Consumer
from stack import permissions
from stack.nats import NatsAccess, NatsServer
from stack.permissions import PROVISIONER, SERVICES
from stack.ports import Ports
from stack.processes import start
from tests.integration.shared.polling import until

# Said here once more, so that no list grows unnoticed: what each service says and hears besides the work it takes.
SAYS: Final = {
    "sender": ("broadcast.due.*",),
    "preferences": ("directory.changed",),
    "dispatcher": ("broadcast.state.*", "delivery.external.*.*", "delivery.inbox.*", "live.dispatch"),
    "inbox": ("delivery.report", "live.inbox"),
}
HEARS: Final = {
    "sender": (),
    "preferences": (),
    # Bulk steps aside for what is urgent.
    "dispatcher": ("broadcast.due.critical", "broadcast.due.high"),
    "inbox": ("live.dispatch", "live.inbox"),
}
_WORK: Final = re.compile(r"\$JS\.(?:API\.CONSUMER\.MSG\.NEXT|ACK)\.[A-Z_]+\.([a-z]+)_")
USERS: Final = {user.name: user for user in permissions.users(lambda name: f"secret-of-{name}")}
# What JetStream is asked about a stream as a whole, and about one of its consumers.
_OF_STREAMS: Final = (
    "STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.INFO", "STREAM.SNAPSHOT",
    "STREAM.RESTORE", "STREAM.MSG.GET", "STREAM.MSG.DELETE", "STREAM.LEADER.STEPDOWN", "STREAM.PEER.REMOVE",
    "DIRECT.GET", "CONSUMER.LIST", "CONSUMER.NAMES", "CONSUMER.CREATE",
)  # fmt: skip
_OF_CONSUMERS: Final = (
    "CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.DELETE", "CONSUMER.INFO", "CONSUMER.PAUSE",
    "CONSUMER.RESET", "CONSUMER.LEADER.STEPDOWN", "CONSUMER.MSG.NEXT", "CONSUMER.UNPIN",
)  # fmt: skip
_OF_ALL: Final = (
    "INFO",
    "STREAM.LIST",
    "STREAM.NAMES",
    "STREAM.TEMPLATE.CREATE.x",
    "SERVER.REMOVE",
    "ACCOUNT.PURGE.x",
)
_ELSEWHERE: Final = (
    "$SYS.REQ.SERVER.PING",
    "$JS.FLOW.CONTROL.x",
    "$KV.x.y",
    "somewhere.else",
    "broadcast.due",
    "live.x",
)
_VIOLATION: Final = re.compile(r"permissions violation for (?:publish|subscription) to \"([^\"]+)\"")


@pytest.fixture(scope="module")
async def access(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsAccess]:
    """A server with the suite's users, streams and consumers, where nobody else is disturbed by what is said here."""
    folder = tmp_path_factory.mktemp("nats")
    server = NatsServer(
        folder / "nats", folder, Ports(folder / "ports.json").choose("nats"), list(USERS.values())
    )
    running = start(server)
    await provision(server.access.url, user=PROVISIONER, password=USERS[PROVISIONER].password)
    yield server.access
    running.stop()


@asynccontextmanager
async def _connected(access: NatsAccess, user: str) -> AsyncIterator[tuple[nats.aio.client.Client, set[str]]]:
    """A user's connection, and the subjects that the server has refused it."""
    refused: set[str] = set()

    async def remember(error: Exception) -> None:
        refused.update(_VIOLATION.findall(str(error).lower()))

    client = await nats.connect(
        access.url_for(user),
        inbox_prefix=subjects.inbox_prefix(user),
        error_cb=remember,
        allow_reconnect=False,
    )
    try:
        yield client, refused
    finally:
        await client.close()


def _sayable() -> Iterator[str]:
    """Everything that somebody may say, all that JetStream can be asked about each stream and consumer, and more."""
    for user in USERS.values():
        yield from map(_one_of, user.publish)
    yield from (f"$JS.API.{what}.{stream.name}" for what in _OF_STREAMS for stream in STREAMS)
    yield from (
        f"$JS.API.{what}.{consumer.stream}.{consumer.name}"
        for what in _OF_CONSUMERS
        for consumer in CONSUMERS
    )
    yield from (_one_of(subjects.acknowledgements(each.stream, each.name)) for each in CONSUMERS)
    yield from (f"$JS.API.{what}" for what in _OF_ALL)
    # A reply in somebody else's name.
    yield from (f"{subjects.inbox_prefix(user)}.reply" for user in USERS)
    yield from _ELSEWHERE


def _hearable() -> Iterator[str]:
    """Everything that somebody may hear or say, one by one and all together."""
    yield from _sayable()
    for user in USERS.values():
        yield from (*user.publish, *user.subscribe)
    yield from (subject for stream in STREAMS for subject in stream.subjects)
    yield from (
        ">",
        "*",
        "*.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.ADVISORY.>",
        "$SYS.>",
        "_INBOX.>",
    )


def _one_of(pattern: str) -> str:
    return re.sub(r">$", "x.y", pattern.replace("*", "high"))


def _is_allowed(subject: str, allowed: Iterable[str]) -> bool:
    """Whether all that a subject means is in an allow-list."""
    return any(_covers(pattern.split("."), subject.split(".")) for pattern in allowed)


def _covers(pattern: list[str], subject: list[str]) -> bool:
    for place, token in enumerate(pattern):
        if token == ">":
            return len(subject) > place
        if len(subject) <= place or (token != "*" and token != subject[place]) or subject[place] == ">":
            return False
    return len(pattern) == len(subject)


async def _settled(client: nats.aio.client.Client, refused: set[str], number: int) -> None:
    """Returns once so many subjects were refused, or nothing has been heard of more for a while."""
    await client.flush()
    with suppress(AssertionError):
        await until(lambda: len(refused) >= number)
    await client.flush()


# What is said and kept, of each kind of one lane or state.
_STORED: Final = [
    (service, subject)
    for service, said in SAYS.items()
    for subject in sorted({subject for stream in STREAMS for subject in stream.subjects})
    if _is_allowed(subject, said)
]


@pytest.mark.parametrize("service", SERVICES)
def test_a_list_has_what_its_service_says_hears_and_works_on(service: str) -> None:
    """What one says no other does, whoever works takes from consumers of their own, and replies come to each apart."""
    user = USERS[service]
    work = {subject for subject in user.publish if _WORK.match(subject)}
    assert {found[1] for subject in work if (found := _WORK.match(subject))} <= {service}
    assert sorted({*user.publish} - work) == sorted(SAYS[service])
    assert sorted(user.subscribe) == sorted([f"_INBOX_{service}.>", *HEARS[service]])


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_say_what_its_list_allows_and_nothing_else(access: NatsAccess, user: str) -> None:
    """No stream or consumer is made, changed, emptied or read by a service, and no work is taken that is another's."""
    allowed = {subject for subject in _sayable() if _is_allowed(subject, USERS[user].publish)}
    forbidden = set(_sayable()) - allowed
    async with _connected(access, user) as (client, refused):
        # What the provisioner asks for is done, and the others need their streams.
        for subject in sorted(forbidden | (allowed if user != PROVISIONER else set())):
            await client.publish(subject, b"x")
        await _settled(client, refused, len(forbidden))
    assert refused == {subject.lower() for subject in forbidden}
    assert (bool(allowed), bool(forbidden)) == (True, True)


@pytest.mark.parametrize("user", USERS)
async def test_a_user_may_hear_what_its_list_allows_and_nothing_else(access: NatsAccess, user: str) -> None:
    """Neither what is said to others, nor their replies, nor all of something of which it may hear a part."""
    forbidden = {subject for subject in _hearable() if not _is_allowed(subject, USERS[user].subscribe)}
    async with _connected(access, user) as (client, refused):
        for subject in sorted(set(_hearable())):
            await client.subscribe(subject)
        await _settled(client, refused, len(forbidden))
    assert refused == {subject.lower() for subject in forbidden}
    assert len(forbidden) > 100


@pytest.mark.parametrize(("service", "subject"), _STORED)
async def test_what_a_service_says_is_stored(access: NatsAccess, service: str, subject: str) -> None:
    """JetStream acknowledges it to who may say it."""
    async with _connected(access, service) as (client, refused):
        assert (await client.jetstream().publish(subject, b"x")).seq > 0
    assert refused == set()


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda consumer: consumer.name)
async def test_work_is_taken_by_its_service(access: NatsAccess, consumer: Consumer) -> None:
    """It gets the messages of its consumer, and acknowledges them."""
    sayer, subject = next(
        (service, subject) for service, subject in _STORED if _is_allowed(subject, [consumer.subject])
    )
    async with _connected(access, sayer) as (source, _):
        await source.jetstream().publish(subject, consumer.name.encode())
    async with _connected(access, consumer.name.partition("_")[0]) as (client, refused):
        pull = await client.jetstream().pull_subscribe_bind(consumer.name, consumer.stream)
        taken = set()
        while consumer.name.encode() not in taken:
            for message in await pull.fetch(10, timeout=5):
                await message.ack_sync()
                taken.add(message.data)
    assert refused == set()


@pytest.mark.parametrize("priority", subjects.PRIORITIES)
async def test_the_inbox_cannot_announce_a_broadcast(access: NatsAccess, priority: str) -> None:
    """Whoever takes over an inbox could otherwise have anything sent; nothing of it is stored."""
    subject = subjects.broadcast_due(priority)
    async with (
        _connected(access, PROVISIONER) as (provisioner, _),
        _connected(access, "inbox") as (inbox, refused),
    ):
        stream = provisioner.jetstream()
        before = (await stream.stream_info(subjects.BROADCAST_DUE_STREAM)).state.last_seq
        await inbox.publish(subject, b"x")
        await _settled(inbox, refused, 1)
        assert refused == {subject}
        assert (await stream.stream_info(subjects.BROADCAST_DUE_STREAM)).state.last_seq == before


@pytest.mark.parametrize("user", SERVICES)
async def test_a_service_cannot_read_a_stream_past_its_consumers(access: NatsAccess, user: str) -> None:
    """Not one message by its number, and not by a consumer of its own making: JetStream does not even answer."""
    async with _connected(access, user) as (client, refused):
        stream = client.jetstream(timeout=0.05)
        for name in (stream.name for stream in STREAMS):
            with pytest.raises(nats.errors.TimeoutError):
                await stream.get_msg(name, 1)
            with pytest.raises(nats.errors.TimeoutError):
                await stream.purge_stream(name)
            with pytest.raises(nats.errors.TimeoutError):
                await stream.add_consumer(name, durable_name="mine")
        await _settled(client, refused, 3 * len(STREAMS))
    assert len(refused) == 3 * len(STREAMS)


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_gets_in_with_anothers_password(access: NatsAccess, user: str) -> None:
    """A credential is one service's."""
    stranger = nats.aio.client.Client()
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await stranger.connect(
            access.url, user=user, password=USERS[PROVISIONER].password, allow_reconnect=False
        )
    await stranger.close()


async def test_every_inbox_node_hears_the_wakes_of_the_others(access: NatsAccess) -> None:
    """`live.inbox` is the one subject that a service both says and hears."""
    async with _connected(access, "inbox") as (one, _), _connected(access, "inbox") as (other, _):
        heard = await one.subscribe(subjects.LIVE_INBOX)
        await one.flush()
        await other.publish(subjects.LIVE_INBOX, b"7")
        assert (await heard.next_msg(timeout=5)).data == b"7"


async def test_every_inbox_node_hears_what_is_begun(access: NatsAccess) -> None:
    """`live.dispatch` is said by dispatchers, and each inbox node fetches for itself."""
    async with _connected(access, "inbox") as (one, _), _connected(access, "dispatcher") as (dispatcher, _):
        heard = await one.subscribe(subjects.LIVE_DISPATCH)
        await one.flush()
        await dispatcher.publish(subjects.LIVE_DISPATCH, b"7")
        assert (await heard.next_msg(timeout=5)).data == b"7"
