"""The dispatcher's settings, read once from the environment."""

from dataclasses import dataclass, replace
from typing import Final, Self

from services.dispatcher.domain import InFlightLimit, Priority
from services.dispatcher.planner import PlanTerms
from services.dispatcher.retention import RetentionTerms
from services.dispatcher.review import AT_ONCE
from services.dispatcher.store import LeaseTerms
from shared.audience import CHUNK_MEMBERS
from shared.auth import AuthSettings
from shared.logging import read_format
from shared.messaging import MessagingSettings
from shared.server import ServerSettings
from shared.service_token import TokenFile
from shared.settings import Address, Environment, SettingsError

PREFIX: Final = "DISPATCHER"
_POSTGRES: Final = ("postgres", "postgresql")
_ALL_LANES: Final = ",".join(priority.slug for priority in Priority)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the dispatcher is told from outside."""

    server: ServerSettings
    auth: AuthSettings
    token: TokenFile
    database_url: str
    worker_database_url: str
    messaging: MessagingSettings
    sender: Address
    preferences: Address
    inbox: Address
    lanes: tuple[Priority, ...]
    applies_reports: bool
    step_aside_s: float
    planners_per_lane: int
    plan: PlanTerms
    lease: LeaseTerms
    retention: RetentionTerms
    log_format: str | None

    @property
    def worker_connections(self) -> int:
        """So many that no lane waits for another: its planners, loop and reviews; and what runs beside the lanes."""
        return len(self.lanes) * (self.planners_per_lane + 1 + AT_ONCE) + 7

    @classmethod
    def read(cls, env: Environment) -> Self:
        """Raises SettingsError, which names the variable, for what is missing or breaks its rule."""
        lanes, lease = _lanes(env.text("DISPATCHER_LANES", _ALL_LANES)), _lease_terms(env)
        return cls(
            server=ServerSettings.read(env, PREFIX),
            auth=AuthSettings.read(env),
            token=TokenFile.read(env, PREFIX),
            database_url=env.url("DISPATCHER_DATABASE_URL", _POSTGRES),
            worker_database_url=env.url("DISPATCHER_WORKER_DATABASE_URL", _POSTGRES),
            messaging=MessagingSettings.read(env, PREFIX),
            sender=env.address("SENDER_ADDR"),
            preferences=env.address("PREFERENCES_ADDR"),
            inbox=env.address("INBOX_ADDR"),
            lanes=lanes,
            # Reports of all lanes come on one subject. A process of low priority must not stand between a critical
            # broadcast and its end, so it is those with the critical lane that apply them.
            applies_reports=env.flag("DISPATCHER_REPORTS", default=Priority.CRITICAL in lanes),
            # From the announcement of an urgent broadcast to its inboxes, or thereabouts.
            step_aside_s=env.seconds("DISPATCHER_STEP_ASIDE_S", 0.05, least=0.0, most=0.1),
            planners_per_lane=env.integer("DISPATCHER_PLANNERS_PER_LANE", 4, least=1, most=64),
            plan=_plan_terms(env, lease.fresh_s),
            lease=lease,
            retention=RetentionTerms.read(env),
            log_format=read_format(env),
        )


def _lanes(text: str) -> tuple[Priority, ...]:
    by_slug = {priority.slug: priority for priority in Priority}
    slugs = [part.strip() for part in text.split(",")]
    if not set(slugs) <= by_slug.keys() or len(set(slugs)) < len(slugs):
        raise SettingsError(
            f"DISPATCHER_LANES must be some of {', '.join(by_slug)}, each once; it is {text!r}."
        )
    return tuple(sorted(by_slug[slug] for slug in slugs))


def _plan_terms(env: Environment, fresh_s: float) -> PlanTerms:
    urgent = InFlightLimit(
        chunks=env.integer("DISPATCHER_CHUNKS_IN_FLIGHT", 2, least=1, most=64),
        # As many as four full chunks hold, so that the inbox has some to commit together while others are on their way.
        # What fills its blocks less may leave in more chunks, but no more of it.
        members=env.integer("DISPATCHER_MEMBERS_IN_FLIGHT", 4 * CHUNK_MEMBERS, least=1, most=1_000_000),
        most_chunks=env.integer("DISPATCHER_MOST_CHUNKS_IN_FLIGHT", 48, least=1, most=64),
    )
    # What waits at the inbox and in the database stands in front of a critical chunk, whatever lane it is of.
    lane_members = env.integer(
        "DISPATCHER_BULK_MEMBERS_IN_FLIGHT", 2 * CHUNK_MEMBERS, least=1, most=100_000_000
    )
    bulk = replace(urgent, members=min(urgent.members, lane_members), lane_members=lane_members)
    return PlanTerms(
        limits={priority: bulk if priority.is_bulk else urgent for priority in Priority},
        release_per_second=env.integer("DISPATCHER_RELEASE_PER_SECOND", 5_000, least=1, most=1_000_000),
        fresh_s=fresh_s,
    )


def _lease_terms(env: Environment) -> LeaseTerms:
    return LeaseTerms(
        first_s=env.seconds("DISPATCHER_LEASE_S", 5.0, least=0.1, most=3600),
        ceiling_s=env.seconds("DISPATCHER_LEASE_CEILING_S", 60.0, least=0.1, most=3600),
        fresh_s=env.seconds("DISPATCHER_FRESH_S", 0.5, least=0.05, most=1.0),
    )
