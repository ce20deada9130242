"""The edge adds up who was refused at a wall: everything that is answered so, and nothing else."""

from pathlib import Path
from uuid import uuid4

import pytest
from wedsync.broadcast.v1 import inbox_pb2

from shared.clock import SystemClock
from shared.errors import InvalidField, NotFound, OutsideReach, PermissionDenied, ServiceError
from shared.rights import Right, any_person, scopes
from shared.wall_refusals import WallRefusals
from tests.integration.shared.edge import ASK, RIGHTS, Counted, refusal_of, serving

METHOD = "InboxService/GetUnreadCount"


def added_up(refusals: WallRefusals) -> list[tuple[str, str, int]]:
    """Who was refused by what, and how often."""
    return [(each.caller, each.method, each.attempts) for each in refusals.all()]


def raising(error: ServiceError) -> object:
    """A servicer's answer to nobody."""

    async def count() -> Counted:
        raise error

    return count


@pytest.mark.parametrize("error", [OutsideReach(), NotFound.or_not_yours("No.")])
async def test_a_call_that_is_refused_at_a_wall_is_added_up(tmp_path: Path, error: ServiceError) -> None:
    """By the user id of a person and by the name of a service account, however often each tries."""
    refusals, person = WallRefusals(SystemClock(), apart_a_minute=10), uuid4()
    rights = {**RIGHTS, "GetUnreadCount": any_person() | scopes("broadcast.read")}
    async with serving(tmp_path, rights=rights, refusals=refusals) as edge:
        edge.inbox.count = raising(error)  # type: ignore[assignment]
        callers = [edge.as_person(person), edge.as_person(person), edge.as_service("broadcast.read")]
        for metadata in callers:
            refusal = await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=metadata))
            assert refusal.message == error.message
    assert sorted(added_up(refusals)) == sorted([(str(person), METHOD, 2), ("bff", METHOD, 1)])


@pytest.mark.parametrize(
    "error", [NotFound(), PermissionDenied(), InvalidField(), KeyError("ana@example.com")]
)
async def test_another_refusal_is_none_at_a_wall(tmp_path: Path, error: ServiceError) -> None:
    """What does not exist for anybody, what a role may not do, a bad field, and a defect."""
    refusals = WallRefusals(SystemClock())
    async with serving(tmp_path, refusals=refusals) as edge:
        edge.inbox.count = raising(error)  # type: ignore[assignment]
        await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_person()))
        await refusal_of(edge.stub.GetUnreadCount(ASK))
    assert added_up(refusals) == []


async def test_the_suites_own_services_meet_no_wall(tmp_path: Path) -> None:
    """What is refused to a service is refused to whoever called it, and added up there."""
    refusals = WallRefusals(SystemClock())
    rights: dict[str, Right] = {**RIGHTS, "GetUnreadCount": scopes("internal")}
    async with serving(tmp_path, rights=rights, refusals=refusals) as edge:
        edge.inbox.count = raising(OutsideReach())  # type: ignore[assignment]
        await refusal_of(edge.stub.GetUnreadCount(ASK, metadata=edge.as_service("internal")))
    assert added_up(refusals) == []


async def test_a_stream_that_is_refused_at_a_wall_is_added_up(tmp_path: Path) -> None:
    """When it is opened, and when what it showed is not its caller's any more."""
    refusals, person = WallRefusals(SystemClock()), uuid4()
    async with serving(tmp_path, refusals=refusals) as edge:
        call = edge.stub.WatchInbox(inbox_pb2.WatchInboxRequest(), metadata=edge.as_person(person))
        await call.read()
        edge.inbox.failure = NotFound.or_not_yours()
        edge.inbox.release.set()
        await refusal_of(call.read())
    assert added_up(refusals) == [(str(person), "InboxService/WatchInbox", 1)]
