"""Owns the making of streams and consumers, which only the provisioner may do: never a service."""

from collections.abc import Iterable
from dataclasses import fields
from ssl import SSLContext
from typing import Final

import nats
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError

from shared import subjects
from shared.errors import DependencyUnavailable
from shared.streams import CONSUMERS, STREAMS, Consumer, Stream

_REQUEST_TIMEOUT_S: Final = 5.0


class ProvisioningError(Exception):
    """JetStream refused a stream or consumer as it is declared."""


async def provision(
    url: str,
    *,
    user: str | None = None,
    password: str | None = None,
    replicas: int = 1,
    tls: SSLContext | None = None,
    streams: Iterable[Stream] = STREAMS,
    consumers: Iterable[Consumer] = CONSUMERS,
) -> list[str]:
    """Make what is missing and change what differs; answers what was done, in words, and nothing when all was there.

    The user needs `$JS.API.>`. Raises DependencyUnavailable when NATS cannot be reached, ProvisioningError when it
    refuses. Messages are kept.
    """
    try:
        client = await nats.connect(
            url,
            user=user,
            password=password,
            tls=tls,
            tls_handshake_first=tls is not None,
            name="provisioner",
            inbox_prefix=subjects.inbox_prefix(user) if user else "_INBOX",
            # Without these two the client would try for two minutes before it says so.
            max_reconnect_attempts=1,
            reconnect_time_wait=0.2,
            allow_reconnect=False,
            error_cb=_ignore,
        )
    except (NatsError, OSError, TimeoutError) as error:
        raise DependencyUnavailable("NATS cannot be reached.") from error
    try:
        jetstream = client.jetstream(timeout=_REQUEST_TIMEOUT_S)
        done = [await _provide_stream(jetstream, stream, replicas) for stream in streams]
        done += [await _provide_consumer(jetstream, consumer) for consumer in consumers]
        return [what for what in done if what is not None]
    finally:
        await client.close()


async def _provide_stream(jetstream: JetStreamContext, stream: Stream, replicas: int) -> str | None:
    wanted = stream.config(replicas)
    try:
        try:
            present = (await jetstream.stream_info(stream.name)).config
        except NotFoundError:
            await jetstream.add_stream(wanted)
            return f"made stream {stream.name}"
        changed = _differences(wanted, present)
        if not changed:
            return None
        await jetstream.update_stream(wanted)
    except (NatsError, TimeoutError) as error:
        raise ProvisioningError(f"stream {stream.name}: {error}") from error
    return f"changed {', '.join(changed)} of stream {stream.name}"


async def _provide_consumer(jetstream: JetStreamContext, consumer: Consumer) -> str | None:
    wanted = consumer.config()
    where = f"consumer {consumer.name} of {consumer.stream}"
    try:
        try:
            present = (await jetstream.consumer_info(consumer.stream, consumer.name)).config
        except NotFoundError:
            await jetstream.add_consumer(consumer.stream, wanted)
            return f"made {where}"
        changed = _differences(wanted, present)
        if not changed:
            return None
        await jetstream.add_consumer(consumer.stream, wanted)
    except (NatsError, TimeoutError) as error:
        raise ProvisioningError(f"{where}: {error}") from error
    return f"changed {', '.join(changed)} of {where}"


def _differences(wanted: StreamConfig | ConsumerConfig, present: StreamConfig | ConsumerConfig) -> list[str]:
    """The settings that are declared and not as declared; what is not declared is the server's own."""
    names = (field.name for field in fields(wanted))
    return [
        name
        for name in names
        if getattr(wanted, name) is not None and getattr(wanted, name) != getattr(present, name)
    ]


async def _ignore(_error: Exception) -> None:
    """The call itself raises what went wrong."""
