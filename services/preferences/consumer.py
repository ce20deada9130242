"""The NATS edge of the preferences service: it hears nothing, and tells of teams that have changed."""

from services.preferences.store import SCHEMA
from shared.database import Database
from shared.outbox import OutboxRelay, Publisher


def team_relay(database: Database, publisher: Publisher) -> OutboxRelay:
    """Publishes the outbox's DirectoryChanged on directory.changed, until the inbox has confirmed the team."""
    return OutboxRelay(database, SCHEMA, publisher)
