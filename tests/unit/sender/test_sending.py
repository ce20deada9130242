"""What a send does with time that passes while it is being worked on, and what it does not wait for."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from wedsync.broadcast.v1.common_pb2 import Targeting
from wedsync.broadcast.v1.sender_pb2 import SendBroadcastRequest

from services.sender.backlog import Backlog
from services.sender.directory import Count, Directory
from services.sender.domain import Author
from services.sender.quotas import Quotas
from services.sender.rights import Caller
from services.sender.sending import Sending
from services.sender.store import CallStore
from shared.clock import FixedClock
from shared.errors import InvalidField, PermissionDenied
from shared.replays import Replays

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class SlowDirectory:
    """Takes two seconds to count."""

    def __init__(self, clock: FixedClock) -> None:
        self._clock = clock

    async def caller(self, wall: object) -> Caller:
        return Caller(Author("somebody", is_service=False), role="admin")

    async def count(self, targeting: object, wall: object) -> Count:
        self._clock.move(2)
        return Count(1, 0)


async def test_what_expires_while_its_audience_is_counted_is_refused_as_expired() -> None:
    """The caller is told which field has become wrong, and nothing is accepted."""
    clock = FixedClock(NOW)
    request = SendBroadcastRequest(
        type="feature.released",
        title="Late",
        message="Late.",
        targeting=Targeting(everyone=True),
        validate_only=True,
    )
    request.expires_at.FromDatetime(NOW + timedelta(seconds=1))
    sending = Sending(
        cast(CallStore, None),
        cast(Replays, None),
        cast(Directory, SlowDirectory(clock)),
        cast(Backlog, None),
        cast(Quotas, None),
        clock,
        lambda: None,
        approval_threshold=50_000,
    )
    assert list(sending.send_violations(request)) == []
    with pytest.raises(InvalidField) as refused:
        await sending.send(request)
    assert [violation.field for violation in refused.value.violations] == ["expires_at"]


class SilentDirectory:
    """Says at once that the caller is nobody, and never whom a targeting means."""

    async def caller(self, wall: object) -> Caller:
        return Caller(Author("somebody", is_service=False), role="couple")

    async def count(self, targeting: object, wall: object) -> Count:
        await asyncio.Event().wait()
        raise AssertionError("nobody has said so")


async def test_a_refusal_does_not_wait_for_the_audience() -> None:
    """Whoever may not send learns nothing of whom it means, not even how long it takes to find out."""
    request = SendBroadcastRequest(
        type="feature.released",
        title="News",
        message="News.",
        targeting=Targeting(everyone=True),
        validate_only=True,
    )
    sending = Sending(
        cast(CallStore, None),
        cast(Replays, None),
        cast(Directory, SilentDirectory()),
        cast(Backlog, None),
        cast(Quotas, None),
        FixedClock(NOW),
        lambda: None,
        approval_threshold=50_000,
    )
    async with asyncio.timeout(10):
        with pytest.raises(PermissionDenied):
            await sending.send(request)
