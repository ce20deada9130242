"""A thousand people whose streams all break come back at once: paced, told when, and without missing anything."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from wedsync.broadcast.v1.common_pb2 import Targeting

from bench.returning import Crowd, Return, Returning
from stack.background import BackgroundStack
from stack.load import SEED
from stack.tokens import TokenMint
from stack.world import World
from tests.e2e.client import Client

PEOPLE = 1_000
CLIENTS = 2
DEADLINE_S = 90.0


@pytest.fixture(scope="module")
def suite() -> Iterator[BackgroundStack]:
    """A suite whose two inbox processes open a few streams at a time."""
    settings = {"INBOX_STREAMS_OPENING": "16"}
    with BackgroundStack(PEOPLE, settings=settings, arguments=("--inbox-processes", "2")) as stack:
        yield stack


async def _came_back(suite: BackgroundStack, folder: Path, connections: int, shared: bool) -> list[Return]:
    """What it was like to come back after both inbox processes were killed and a broadcast was sent."""
    mint = TokenMint.existing(suite.state.keys)
    people = World(PEOPLE, SEED, datetime.now(UTC).date()).people()
    tokens = [mint.mint_user_token(person.user_id) for person in people]
    sharing = mint.mint_service_token("bff", ["inbox.connect"]) if shared else ""
    target = suite.environment["INBOX_ADDR"]
    crowds = [
        await Returning.start(Crowd(target, tokens[n::CLIENTS], connections, sharing), folder)
        for n in range(CLIENTS)
    ]
    try:
        await asyncio.gather(*(crowd.connected() for crowd in crowds))
        assert suite.kill("inbox") == 2
        async with Client(suite) as client:
            # An essential type reaches every inbox, whatever somebody has muted.
            broadcast_id = await client.send(
                "admin", type="payment.required", targeting=Targeting(everyone=True)
            )
        return await asyncio.gather(*(crowd.back(broadcast_id, DEADLINE_S) for crowd in crowds))
    finally:
        await asyncio.gather(*(crowd.close() for crowd in crowds))


@pytest.mark.timeout(240)
async def test_streams_that_return_at_once_are_told_when_to_come(
    suite: BackgroundStack, tmp_path: Path
) -> None:
    """Some are refused, each with a moment of their own; all are back, and saw what was sent meanwhile exactly once."""
    returns = await _came_back(suite, tmp_path, connections=16, shared=False)
    assert sum(len(each.back_at) for each in returns) == PEOPLE
    assert sum(each.refused for each in returns) > 0
    assert [(each.missed, each.repeated, each.without_hint) for each in returns] == [(0, 0, 0)] * CLIENTS


@pytest.mark.timeout(240)
async def test_people_on_shared_streams_return_at_once(suite: BackgroundStack, tmp_path: Path) -> None:
    """All of them are back, and saw what was sent meanwhile exactly once."""
    returns = await _came_back(suite, tmp_path, connections=2, shared=True)
    assert sum(len(each.back_at) for each in returns) == PEOPLE
    assert [(each.missed, each.repeated, each.without_hint) for each in returns] == [(0, 0, 0)] * CLIENTS
