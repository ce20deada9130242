"""The inbox's settings, read once from the environment."""

from dataclasses import dataclass
from typing import Final, Self

from services.inbox.live import MOST_BEHIND
from services.inbox.retention import RetentionTerms
from services.inbox.streams import StreamTerms
from shared.auth import AuthSettings
from shared.logging import read_format
from shared.messaging import MessagingSettings
from shared.server import ServerSettings
from shared.service_token import TokenFile
from shared.settings import Address, Environment
from shared.subjects import PRIORITIES

PREFIX: Final = "INBOX"
_POSTGRES: Final = ("postgres", "postgresql")
_REDIS: Final = ("redis", "rediss", "unix")
LONGEST_HEARTBEAT_S: Final = 20.0
"""Clients leave a stream on which nothing came for a minute (`silence_s` of the client's `Inbox.watch`), so two signs
of life may be late before they do.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the inbox is told from outside."""

    server: ServerSettings
    auth: AuthSettings
    token: TokenFile
    database_url: str
    worker_database_url: str
    database_connections: int
    worker_connections: int
    messaging: MessagingSettings
    redis_url: str
    sender: Address
    preferences: Address
    streams: StreamTerms
    most_behind: int
    streams_per_person: int
    retention: RetentionTerms
    log_format: str | None

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Raises SettingsError, which names the variable, for what is missing or breaks its rule."""
        return cls(
            server=ServerSettings.read(env, PREFIX),
            auth=AuthSettings.read(env),
            token=TokenFile.read(env, PREFIX),
            database_url=env.url("INBOX_DATABASE_URL", _POSTGRES),
            worker_database_url=env.url("INBOX_WORKER_DATABASE_URL", _POSTGRES),
            database_connections=env.integer("INBOX_DATABASE_CONNECTIONS", 10, least=2, most=200),
            # One for each lane's merges, for receipts and for the log at the least, so that none waits for another.
            worker_connections=env.integer(
                "INBOX_WORKER_CONNECTIONS", len(PRIORITIES) + 6, least=len(PRIORITIES) + 2, most=200
            ),
            messaging=MessagingSettings.read(env, PREFIX),
            redis_url=env.url("REDIS_URL", _REDIS),
            sender=env.address("SENDER_ADDR"),
            preferences=env.address("PREFERENCES_ADDR"),
            streams=StreamTerms(
                heartbeat_s=env.seconds("INBOX_HEARTBEAT_S", 15.0, least=0.1, most=LONGEST_HEARTBEAT_S),
                unread_end_s=env.seconds("INBOX_UNREAD_END_S", 30.0, least=0.1, most=3600),
            ),
            # Farther back a stream begins anew: with more to look through a snapshot is the better start.
            most_behind=env.integer("INBOX_RESUME_ENTRIES", MOST_BEHIND, least=1_024, most=10_000_000),
            streams_per_person=env.integer("INBOX_STREAMS_PER_PERSON", 20, least=1, most=10_000),
            retention=RetentionTerms.read(env),
            log_format=read_format(env),
        )
