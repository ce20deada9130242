"""A preview says what the send then does, to the last number: over random worlds, in a suite that runs."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wedsync.broadcast.v1.common_pb2 import (
    BroadcastState,
    Channel,
    DeliveryState,
    LedgerEntry,
    SuppressionReason,
)
from wedsync.broadcast.v1.sender_pb2 import (
    ApproveBroadcastRequest,
    PreviewAudienceRequest,
    PreviewAudienceResponse,
)

from tests.e2e.client import CALL_S, Client, Metadata, broadcast
from tests.e2e.random_worlds import World, few_at_once

BROADCASTS = 6
_ATTEMPTS = 3
# Each world has a sender of its own, whose quota nobody else uses up.
_senders = count(1)

OUTCOMES = {
    ("IN_APP", "DELIVERED"),
    ("REALTIME", "SENT"),
    ("REALTIME", "HELD"),
    ("REALTIME", "SUPPRESSED", "CHANNEL_OFF"),
    *(
        (channel, "SUPPRESSED", reason)
        for channel in ("IN_APP", "REALTIME")
        for reason in ("CRITICAL_ONLY", "CATEGORY_MUTED", "WEDDING_MUTED", "TYPE_MUTED")
    ),
}
HELD_BY_HOUR = """
    SELECT date_trunc('hour', release_at, 'UTC') AS hour, sum(size)::integer AS people
    FROM dispatcher.chunks
    WHERE broadcast_id = $1 AND state = 'held'
    GROUP BY 1
"""
ASLEEP_PAST = """
    SELECT coalesce(sum(size), 0)::integer
    FROM dispatcher.chunks
    WHERE broadcast_id = $1 AND state = 'held' AND release_at >= $2
"""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a sender is told, or what has come of it: people by line of the ledger, and held ones by hour."""

    targeted: int
    ledger: Counter[tuple[str, ...]]
    held: dict[datetime, int]
    asleep_past_expiry: int


def _lines(entries: Iterable[LedgerEntry]) -> Counter[tuple[str, ...]]:
    """By the words for channel, state and reason."""
    lines: Counter[tuple[str, ...]] = Counter()
    for entry in entries:
        words = [
            Channel.Name(entry.channel).removeprefix("CHANNEL_"),
            DeliveryState.Name(entry.state).removeprefix("DELIVERY_STATE_"),
        ]
        if entry.reason:
            words.append(SuppressionReason.Name(entry.reason).removeprefix("SUPPRESSION_REASON_"))
        lines[tuple(words)] += entry.count
    return lines


def _foretold(preview: PreviewAudienceResponse) -> Numbers:
    held = {each.hour.ToDatetime(UTC): each.count for each in preview.held}
    return Numbers(preview.targeted, _lines(preview.ledger), held, preview.asleep_past_expiry)


@dataclass(frozen=True, slots=True)
class Sender:
    """A service account that may send everything, and an eye on what the dispatcher then has."""

    client: Client
    metadata: Metadata
    pool: asyncpg.Pool

    async def compare(self, request: PreviewAudienceRequest) -> tuple[Numbers, Numbers]:
        """What is foretold of a broadcast and what comes of it, within one minute: in the next somebody may wake up."""
        for _ in range(_ATTEMPTS):
            began = _minute()
            preview = await self.client.sender.PreviewAudience(
                request, metadata=self.metadata, timeout=CALL_S
            )
            sent = await self._send(request)
            if _minute() == began:
                return _foretold(preview), sent
        raise AssertionError(f"none of {_ATTEMPTS} sends was over within a minute")

    async def _send(self, request: PreviewAudienceRequest) -> Numbers:
        """Sends what was previewed, and waits until nothing of it is pending."""
        fields = {field.name: value for field, value in request.ListFields()}
        sending = broadcast(**{"targeting": None, **fields})
        answer = await self.client.sender.SendBroadcast(sending, metadata=self.metadata, timeout=CALL_S)
        broadcast_id = answer.broadcast.broadcast_id
        if answer.broadcast.state == BroadcastState.BROADCAST_STATE_AWAITING_APPROVAL:
            await self.client.sender.ApproveBroadcast(
                ApproveBroadcastRequest(broadcast_id=broadcast_id),
                metadata=self.client.person("admin"),
                timeout=CALL_S,
            )
        stats = (await self.client.sent(broadcast_id)).stats
        rows = await self.pool.fetch(HELD_BY_HOUR, UUID(broadcast_id))
        expires_at = request.expires_at.ToDatetime(UTC) if request.HasField("expires_at") else None
        asleep = await self.pool.fetchval(ASLEEP_PAST, UUID(broadcast_id), expires_at)
        held = {row["hour"]: row["people"] for row in rows}
        return Numbers(stats.targeted, _lines(stats.ledger), held, asleep)


def _minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


@pytest.fixture(scope="module")
async def pool(client: Client) -> AsyncIterator[asyncpg.Pool]:
    """Connections to what the dispatcher keeps: when somebody is released, no call tells."""
    async with asyncpg.create_pool(client.stack.environment["DATABASE_URL"], min_size=1, max_size=4) as pool:
        yield pool


async def _compare(client: Client, pool: asyncpg.Pool, world: World, broadcasts: int) -> list[Numbers]:
    """That some broadcasts to a world are what was foretold of them, and what that is."""
    name = f"forecaster-{next(_senders)}"
    sender = Sender(client, client.service("broadcast.send", name=name), pool)
    requests = [world.broadcast() for _ in range(broadcasts)]
    compared = await few_at_once(map(sender.compare, requests))
    for request, (foretold, sent) in zip(requests, compared, strict=True):
        assert foretold == sent, request
        assert sum(sent.held.values()) == sent.ledger["REALTIME", "HELD"]
    return [sent for _, sent in compared]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), size=st.integers(1, 40))
async def test_a_preview_has_the_numbers_of_the_send(
    client: Client, pool: asyncpg.Pool, seed: int, size: int
) -> None:
    """By channel, state and reason, by the hour of release, and past the expiry; whoever is in the world."""
    await _compare(client, pool, await World.build(client, seed, size), BROADCASTS)


async def test_such_worlds_have_every_outcome_that_there_is(client: Client, pool: asyncpg.Pool) -> None:
    """In a large one each comes to be, so what is compared above is worth it."""
    found = await _compare(client, pool, await World.build(client, 7, 150), 40)
    assert {line for each in found for line in each.ledger} == OUTCOMES
    assert max(len(each.held) for each in found) > 2
    assert any(0 < each.asleep_past_expiry < each.ledger["REALTIME", "HELD"] for each in found)
