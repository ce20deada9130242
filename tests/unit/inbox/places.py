"""Places in an inbox for tests."""

from datetime import UTC, datetime
from uuid import UUID

from services.inbox.domain import Place

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def a_place(position: int) -> Place:
    """An item of which nothing matters but where it lies."""
    return Place(position, UUID(int=position), NOW, False, None)
