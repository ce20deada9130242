"""The preferences service's settings, read once from the environment."""

from dataclasses import dataclass
from typing import Final, Self

from services.preferences.retention import RetentionTerms
from shared.auth import AuthSettings
from shared.logging import read_format
from shared.messaging import MessagingSettings
from shared.server import ServerSettings
from shared.service_token import TokenFile
from shared.settings import Address, Environment

PREFIX: Final = "PREFERENCES"
_POSTGRES: Final = ("postgres", "postgresql")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the preferences service is told from outside."""

    server: ServerSettings
    auth: AuthSettings
    token: TokenFile
    database_url: str
    worker_database_url: str
    database_connections: int
    messaging: MessagingSettings
    inbox: Address
    sender: Address
    dispatcher: Address
    team_retry_s: float
    retention: RetentionTerms
    audit_retry_s: float
    segment_count_s: float
    erasure_retry_s: float
    erasure_repeat_s: float
    log_format: str | None

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Raises SettingsError, which names the variable, for what is missing or breaks its rule."""
        return cls(
            server=ServerSettings.read(env, PREFIX),
            auth=AuthSettings.read(env),
            token=TokenFile.read(env, PREFIX),
            database_url=env.url("PREFERENCES_DATABASE_URL", _POSTGRES),
            worker_database_url=env.url("PREFERENCES_WORKER_DATABASE_URL", _POSTGRES),
            database_connections=env.integer("PREFERENCES_DATABASE_CONNECTIONS", 10, least=2, most=200),
            messaging=MessagingSettings.read(env, PREFIX),
            inbox=env.address("INBOX_ADDR"),
            sender=env.address("SENDER_ADDR"),
            dispatcher=env.address("DISPATCHER_ADDR"),
            team_retry_s=env.seconds("PREFERENCES_TEAM_RETRY_S", 5.0, least=0.05, most=300),
            retention=RetentionTerms.read(env),
            audit_retry_s=env.seconds("PREFERENCES_AUDIT_RETRY_S", 5.0, least=0.05, most=300),
            segment_count_s=env.seconds("PREFERENCES_SEGMENT_COUNT_S", 60.0, least=0.05, most=3600),
            erasure_retry_s=env.seconds("PREFERENCES_ERASURE_RETRY_S", 5.0, least=0.05, most=300),
            # Longer than any call takes that had found somebody before they were erased.
            erasure_repeat_s=env.seconds("PREFERENCES_ERASURE_REPEAT_S", 60.0, least=0.05, most=3600),
            log_format=read_format(env),
        )
