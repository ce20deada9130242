"""When a change of a team is answered: not before the streams of this node have come to it."""

import asyncio
from typing import cast
from uuid import uuid4

from wedsync.broadcast.v1.audience_pb2_grpc import AudienceServiceStub

from services.inbox.domain import Team
from services.inbox.live import Tail
from services.inbox.teams import Teams
from services.inbox.waking import Waking
from services.inbox.work_store import WorkStore
from shared.audience import Audience


class Node:
    """A database that has every team at once, and streams that come to it when they are let."""

    def __init__(self) -> None:
        self.applied: list[Team] = []
        self.announced = 0
        self.delivered = asyncio.Event()

    async def apply_team(self, team: Team) -> int:
        self.applied.append(team)
        return team.version

    async def announce(self) -> None:
        self.announced += 1

    async def reach_end(self) -> None:
        await self.delivered.wait()


def teams(node: Node) -> Teams:
    """The wall of a node."""
    return Teams(cast(WorkStore, node), cast(AudienceServiceStub, None), cast(Waking, node), cast(Tail, node))


async def test_a_change_is_answered_once_streams_have_come_to_it() -> None:
    """It is on record and announced at once, and the answer waits."""
    node, team = Node(), Team(uuid4(), 4, Audience.of([1, 2]))
    change = asyncio.create_task(teams(node).change(team))
    await asyncio.sleep(0)
    assert (node.applied, node.announced, change.done()) == ([team], 1, False)
    node.delivered.set()
    assert await change == 4


async def test_a_team_that_a_merge_asks_for_waits_for_no_stream() -> None:
    """Or a merge would wait for what may be waiting for it."""
    node = Node()
    assert await teams(node).apply(Team(uuid4(), 1, Audience.of([1]))) == 1
    assert not node.delivered.is_set()
