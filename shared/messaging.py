"""Owns a service's connection to NATS: kept up for as long as the process lives, publishing with confirmation.

nats-py reconnects by itself, and forever; but some errors of a server close its client for good, and a broken parser
leaves it deaf. So there is a second layer here, which replaces a client that has closed and subscribes anew, and pings
are frequent enough to notice one that is deaf.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Final, Self

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as ClientSubscription
from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import APIError, NoStreamResponseError

from shared import subjects
from shared.backoff import backoff_s
from shared.errors import DependencyUnavailable
from shared.settings import Environment
from shared.tls import Transport
from shared.wake import wait_for_hint

log = structlog.get_logger(__name__)

Receive = Callable[[Msg], Awaitable[None]]

_RECONNECT_WAIT_S: Final = 0.2
_CONNECT_TIMEOUT_S: Final = 2
_PING_INTERVAL_S: Final = 5
_DRAIN_TIMEOUT_S: Final = 5
_CHECK_CLOSED_S: Final = 1.0
_REPLACE_FIRST_S: Final = 0.2
_REPLACE_CEILING_S: Final = 5.0


URL_SCHEMES: Final = ("nats", "tls")


def read_tls(env: Environment, url: str) -> SSLContext | None:
    """What a connection to NATS by this URL trusts and shows; None when it is to be plain."""
    return Transport.read(env).client_context() if url.startswith("tls://") else None


@dataclass(frozen=True, slots=True)
class MessagingSettings:
    """Where NATS is and who we are there. `user` None leaves the login to the URL.

    With `tls`, which a `tls://` URL needs, the connection starts with the handshake, for which the server has
    `handshake_first` (or `auto` of it): otherwise nats-py would believe anyone who answers in plain text that no TLS is
    wanted, and hand over the password.
    """

    url: str = field(repr=False)
    name: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: SSLContext | None = None
    publish_timeout_s: float = 2.0

    @classmethod
    def read(cls, env: Environment, prefix: str) -> Self:
        """Reads NATS_URL, and `<prefix>_NATS_USER` and `<prefix>_NATS_PASSWORD` where the URL has no login.

        With `tls://` the files of Transport say what is trusted and shown.
        """
        url = env.url("NATS_URL", URL_SCHEMES)
        return cls(
            url=url,
            name=prefix.lower(),
            user=env.optional_text(f"{prefix}_NATS_USER"),
            password=env.optional_text(f"{prefix}_NATS_PASSWORD"),
            tls=read_tls(env, url),
        )


class Subscription:
    """Interest in a subject on core NATS, which outlives any one client."""

    def __init__(self, subject: str, receive: Receive) -> None:
        self._subject = subject
        self._receive = receive
        self._client: Client | None = None
        self._present: ClientSubscription | None = None
        self._ended = False

    async def establish(self, client: Client) -> None:
        """Subscribe on this client, unless that was done or the subscription has ended."""
        if self._ended or self._client is client:
            return
        self._client = client
        with suppress(NatsError, OSError):  # a client that has just closed is replaced, and this with it
            self._present = await client.subscribe(self._subject, cb=self._receive)

    async def drain(self) -> None:
        """Take no more, and return once everything that has arrived was handed over."""
        self._ended = True
        if self._present is not None:
            with suppress(NatsError, OSError, TimeoutError):
                await self._present.drain()  # type: ignore[no-untyped-call]


class Messaging:
    """The connection of one process, under one login."""

    def __init__(self, settings: MessagingSettings) -> None:
        self._settings = settings
        self._prefix = subjects.inbox_prefix(settings.user) if settings.user else "_INBOX"
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._subscriptions: list[Subscription] = []
        self._on_connected: list[Callable[[], None]] = []
        self._first = asyncio.Event()
        self._ended = asyncio.Event()
        self._closing = False
        self._last_error = ""
        self._keeper = asyncio.create_task(self._keep_client(), name="messaging")

    @property
    def is_connected(self) -> bool:
        """Whether a message could be sent now."""
        return self._client is not None and self._client.is_connected

    def on_connected(self, call: Callable[[], None]) -> None:
        """Call this whenever the connection is there again, since what a server knew of us is lost with it."""
        self._on_connected.append(call)

    async def wait_until_connected(self, timeout_s: float) -> bool:
        """Whether the first connection was made within this time. It is tried on in any case."""
        await wait_for_hint(self._first, timeout_s)
        return self._first.is_set()

    def new_inbox(self) -> str:
        """A subject that only this login may listen to, and nobody else uses."""
        return f"{self._prefix}.{uuid.uuid4().hex}"

    async def publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """Return once a stream has stored it; a second one with the same id within two minutes is dropped by it.

        Raises DependencyUnavailable when the stream does not answer in time, is full, or is not there: the message may
        then have been stored or not.
        """
        if self._jetstream is None or not self.is_connected:
            raise DependencyUnavailable("NATS cannot be reached.")
        try:
            await self._jetstream.publish(subject, payload, headers={Header.MSG_ID.value: message_id})
        except NoStreamResponseError as error:
            raise DependencyUnavailable(f"No stream takes {subject}.") from error
        except APIError as error:
            raise DependencyUnavailable(f"The stream of {subject} refuses: {error.description}.") from error
        except (MaxPayloadError, BadSubjectError):
            raise
        except (NatsError, OSError, TimeoutError) as error:
            raise DependencyUnavailable("NATS cannot be reached.") from error

    async def send(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Send without confirmation. Raises DependencyUnavailable when it is known to be in vain."""
        client = self._connected()
        try:
            await client.publish(subject, payload, reply=reply)
        except (MaxPayloadError, BadSubjectError):
            raise
        except (NatsError, OSError) as error:
            raise DependencyUnavailable("NATS cannot be reached.") from error

    async def hint(self, subject: str, payload: bytes = b"") -> None:
        """Send what may be lost."""
        with suppress(DependencyUnavailable):
            await self.send(subject, payload)

    async def subscribe(self, subject: str, receive: Receive) -> Subscription:
        """Hear a subject on core NATS, one message after the other, across every reconnect."""
        subscription = Subscription(subject, receive)
        self._subscriptions.append(subscription)
        if self._client is not None:
            await subscription.establish(self._client)
        return subscription

    async def check(self) -> None:
        """Return when the server answers a ping; DependencyUnavailable otherwise."""
        try:
            await self._connected().flush(timeout=_CONNECT_TIMEOUT_S)
        except (NatsError, OSError, TimeoutError) as error:
            raise DependencyUnavailable("NATS cannot be reached.") from error

    async def drain(self) -> None:
        """Hand over what has arrived, send what is waiting, and end the connection for good."""
        self._closing = True
        client = self._client
        if client is not None:
            with suppress(NatsError, OSError, TimeoutError):
                await (client.drain() if client.is_connected else client.close())
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper

    def _connected(self) -> Client:
        if self._client is None or not self._client.is_connected:
            raise DependencyUnavailable("NATS cannot be reached.")
        return self._client

    async def _keep_client(self) -> None:
        """Have a client for as long as we are not closing."""
        replaced = 0
        while not self._closing:
            self._ended.clear()
            try:
                client = await self._new_client()
            except (NatsError, OSError, TimeoutError, ValueError) as error:
                await self._note_error(error)
            else:
                await self._use(client)
                log.warning("nats_client_closed", replaced=replaced, error=str(client.last_error or ""))
            replaced += 1
            await asyncio.sleep(backoff_s(replaced, _REPLACE_FIRST_S, _REPLACE_CEILING_S))

    async def _use(self, client: Client) -> None:
        """Return when the client has closed."""
        self._client, self._jetstream = client, client.jetstream(timeout=self._settings.publish_timeout_s)
        for subscription in self._subscriptions:
            await subscription.establish(client)
        self._first.set()
        await self._tell_connected()
        while not client.is_closed:
            await wait_for_hint(self._ended, _CHECK_CLOSED_S)

    async def _new_client(self) -> Client:
        """A connected client: with endless reconnects nats-py waits for the first connection however long it takes."""
        return await nats.connect(
            self._settings.url,
            user=self._settings.user,
            password=self._settings.password,
            tls=self._settings.tls,
            tls_handshake_first=self._settings.tls is not None,
            name=self._settings.name,
            inbox_prefix=self._prefix,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RECONNECT_WAIT_S,
            connect_timeout=_CONNECT_TIMEOUT_S,
            ping_interval=_PING_INTERVAL_S,
            drain_timeout=_DRAIN_TIMEOUT_S,
            error_cb=self._note_error,
            disconnected_cb=self._note_disconnected,
            reconnected_cb=self._tell_connected,
            closed_cb=self._note_closed,
        )

    async def _tell_connected(self) -> None:
        self._last_error = ""
        log.info("nats_connected", name=self._settings.name)
        for call in self._on_connected:
            call()

    async def _note_disconnected(self) -> None:
        if not self._closing:
            log.warning("nats_disconnected", name=self._settings.name)

    async def _note_closed(self) -> None:
        self._ended.set()

    async def _note_error(self, error: Exception) -> None:
        """Log an error once and not at every attempt of an outage."""
        said = f"{type(error).__name__}: {error}"
        if said != self._last_error and not self._closing:
            self._last_error = said
            log.warning("nats_error", name=self._settings.name, error=said)


async def connect(settings: MessagingSettings, wait_s: float = 5.0) -> Messaging:
    """Keep a connection from now on; returns when it is there, and after `wait_s` in any case."""
    messaging = Messaging(settings)
    if not await messaging.wait_until_connected(wait_s):
        log.warning("nats_unreachable", name=settings.name, waited_s=wait_s)
    return messaging
