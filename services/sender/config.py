"""The sender's settings, read once from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from services.sender.domain import Priority
from services.sender.limits import Limits
from services.sender.retention import RetentionTerms
from shared.auth import AuthSettings
from shared.logging import read_format
from shared.messaging import MessagingSettings
from shared.server import ServerSettings
from shared.service_token import TokenFile
from shared.settings import Address, Environment, SettingsError

PREFIX: Final = "SENDER"
_POSTGRES: Final = ("postgres", "postgresql")
_REDIS: Final = ("redis", "rediss", "unix")
# What a single core delivers in less than ten seconds, and twice that for urgent ones; critical ones have no limit.
_BACKLOG: Final = {Priority.HIGH: 500, Priority.NORMAL: 250, Priority.LOW: 250}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the sender is told from outside."""

    server: ServerSettings
    auth: AuthSettings
    token: TokenFile
    database_url: str
    worker_database_url: str
    database_connections: int
    messaging: MessagingSettings
    redis_url: str
    preferences: Address
    dispatcher: Address
    inbox: Address
    relay_lease_s: float
    relay_lease_ceiling_s: float
    relay_window: int
    backlog: Mapping[Priority, int]
    limits: Limits
    retention: RetentionTerms
    approval_threshold: int
    audit_checkpoint_s: float
    tally_s: float
    log_format: str | None

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Raises SettingsError, which names the variable, for what is missing or breaks its rule."""
        return cls(
            server=ServerSettings.read(env, PREFIX),
            auth=AuthSettings.read(env),
            token=TokenFile.read(env, PREFIX),
            database_url=env.url("SENDER_DATABASE_URL", _POSTGRES),
            worker_database_url=env.url("SENDER_WORKER_DATABASE_URL", _POSTGRES),
            database_connections=env.integer("SENDER_DATABASE_CONNECTIONS", 10, least=4, most=200),
            messaging=MessagingSettings.read(env, PREFIX),
            redis_url=env.url("REDIS_URL", _REDIS),
            preferences=env.address("PREFERENCES_ADDR"),
            dispatcher=env.address("DISPATCHER_ADDR"),
            inbox=env.address("INBOX_ADDR"),
            # How long a dispatcher has for a broadcast before it is announced again, which does no harm; twice as long
            # each time, up to the ceiling.
            relay_lease_s=env.seconds("SENDER_RELAY_LEASE_S", 30.0, least=1, most=3600),
            relay_lease_ceiling_s=env.seconds("SENDER_RELAY_LEASE_CEILING_S", 240.0, least=1, most=3600),
            # How many may be on their way from announcement to end before less urgent ones wait: what dispatchers have
            # in hand at once, several times over, and what they deliver within a lease.
            relay_window=env.integer("SENDER_RELAY_WINDOW", 128, least=1, most=100_000),
            backlog={
                priority: env.integer(f"SENDER_BACKLOG_{priority.name}", usual, least=1, most=1_000_000)
                for priority, usual in _BACKLOG.items()
            },
            limits=_read_limits(env),
            retention=RetentionTerms.read(env),
            # How many people a broadcast may be meant for without another admin's approval.
            approval_threshold=env.integer("SENDER_APPROVAL_THRESHOLD", 50_000, least=0, most=1_000_000_000),
            # What is cut off the end of the audit log sooner after it was added is not found out from here.
            audit_checkpoint_s=env.seconds("SENDER_AUDIT_CHECKPOINT_S", 5.0, least=0.05, most=3600),
            # How long a broadcast is left alone at least before it is counted again for analytics.
            tally_s=env.seconds("SENDER_TALLY_S", 5.0, least=0.1, most=3600),
            log_format=read_format(env),
        )


def _read_limits(env: Environment) -> Limits:
    try:
        return Limits.parse(env.text("SENDER_SERVICE_QUOTAS", ""))
    except ValueError as error:
        raise SettingsError(f"SENDER_SERVICE_QUOTAS: {error}.") from error
