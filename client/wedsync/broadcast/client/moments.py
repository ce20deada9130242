"""Turns a moment into the contract's timestamp, and refuses one that could be meant in any time zone."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.client.errors import ConfigurationError


def timestamp(name: str, moment: datetime | None) -> Timestamp | None:
    """The moment, None for none. Raises ConfigurationError, which names it, for one without a zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ConfigurationError(
            f"{name} has no time zone: datetime.now(UTC) has one, datetime.now() has not."
        )
    found = Timestamp()
    found.FromDatetime(moment)
    return found
