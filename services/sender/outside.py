"""Owns what a sender reaches beyond its own process: its database, NATS, Redis, and the services beside it."""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

from services.sender.config import Settings
from services.sender.directory import AUDIENCE_SERVICE
from services.sender.progress import DISPATCHER_SERVICE, INBOX_SERVICE
from services.sender.refusals import REDIS_TIMEOUT_S
from services.sender.store import SCHEMA
from shared import database, messaging
from shared.channels import ServiceChannel, open_channel
from shared.database import Database
from shared.drain import DrainStep
from shared.health import Dependency, check_serving
from shared.messaging import Messaging
from shared.optional_redis import OptionalRedis

# Connections that are there before anybody needs them: to make one takes longer than the call that waits for it.
_READY: Final = 4


@dataclass(frozen=True, slots=True)
class Outside:
    """All of it, connected or about to be at the first call."""

    called: Database
    """As the login of calls, under the policies of whoever calls."""
    worked: Database
    """As the login of what runs beside calls."""
    nats: Messaging
    redis: OptionalRedis
    preferences: ServiceChannel
    dispatcher: ServiceChannel
    inbox: ServiceChannel

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Raises what the database or NATS is not there with; the others may be away."""
        transport, token = settings.server.transport, settings.token
        most = settings.database_connections
        return cls(
            called=await database.connect(
                settings.database_url, application_name=f"{SCHEMA}-api", min_size=_READY, max_size=most
            ),
            worked=await database.connect(
                settings.worker_database_url, application_name=SCHEMA, min_size=_READY, max_size=most
            ),
            nats=await messaging.connect(settings.messaging),
            redis=OptionalRedis.open(settings.redis_url, REDIS_TIMEOUT_S),
            preferences=open_channel(
                "preferences", settings.preferences, transport, token, retried=[AUDIENCE_SERVICE]
            ),
            dispatcher=open_channel(
                "dispatcher", settings.dispatcher, transport, token, retried=[DISPATCHER_SERVICE]
            ),
            inbox=open_channel("inbox", settings.inbox, transport, token, retried=[INBOX_SERVICE]),
        )

    def dependencies(self) -> list[Dependency]:
        """What the sender's health tells of."""
        return [
            Dependency("postgres", self.called.check),
            Dependency("nats", self.nats.check),
            Dependency("redis", self.redis.check, required=False),
            # A repeated send, an order's text, and what was accepted go on without these.
            Dependency("preferences", lambda: check_serving(self.preferences), required=False),
            Dependency("dispatcher", lambda: check_serving(self.dispatcher), required=False),
            Dependency("inbox", lambda: check_serving(self.inbox), required=False),
        ]

    def closing(self) -> tuple[DrainStep, ...]:
        """The steps that end it, once nobody uses it any more; Redis is ended by whoever still writes to it."""
        channels, pools = (self.preferences, self.dispatcher, self.inbox), (self.called, self.worked)
        return (
            DrainStep("drain_nats", self.nats.drain),
            DrainStep("close_channels", lambda: asyncio.gather(*(each.close() for each in channels))),
            DrainStep("close_pools", lambda: asyncio.gather(*(each.close() for each in pools))),
        )
