"""A repeated call gets its first answer, whatever has changed, and never acts twice."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from wedsync.broadcast.v1 import sender_pb2

from shared.failpoints import armed
from tests.integration.sender.site import Site, a_send
from tests.integration.shared.edge import refusal_of


async def test_same_request_gets_the_first_answer(site: Site) -> None:
    """To the byte, and there is one broadcast."""
    _, admin = site.person("admin")
    request = a_send(request_id=str(uuid4()))
    first = await site.send(admin, request)
    before = await site.count("broadcasts")
    site.person("florist")
    second = await site.send(admin, request)
    assert second.SerializeToString() == first.SerializeToString()
    assert await site.count("broadcasts") == before


async def test_first_answer_outlives_the_right_and_the_directory(site: Site) -> None:
    """The role is gone, then the directory: the answer stays as it was."""
    user_id, admin = site.person("admin")
    request = a_send(request_id=str(uuid4()))
    first = await site.send(admin, request)
    site.neighbours.preferences.people[user_id] = "couple"
    assert await site.send(admin, request) == first
    site.neighbours.preferences.is_down = True
    calls = len(site.neighbours.preferences.calls)
    assert await site.send(admin, request) == first
    assert len(site.neighbours.preferences.calls) == calls


async def test_first_answer_outlives_the_rules(site: Site) -> None:
    """A schedule that was in time when it was accepted is not judged again when it has passed."""
    _, admin = site.person("admin")
    just_in_time = Timestamp()
    just_in_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=59.5))
    request = a_send(request_id=str(uuid4()), scheduled_for=just_in_time)
    first = await site.send(admin, request)
    while datetime.now(UTC) - just_in_time.ToDatetime(UTC) < timedelta(seconds=60):
        assert await site.send(admin, request) == first
    assert await site.send(admin, request) == first


async def test_first_answer_outlives_what_becomes_of_the_broadcast(site: Site) -> None:
    """It says pending, as it did, when the broadcast is long under way."""
    _, admin = site.person("admin")
    request = a_send(request_id=str(uuid4()))
    first = await site.send(admin, request)
    await site.plan(first.broadcast.broadcast_id)
    assert await site.send(admin, request) == first


async def test_other_body_under_the_same_id_is_refused(site: Site) -> None:
    """Also one that could not be sent at all: the id comes first."""
    _, admin = site.person("admin")
    request_id = str(uuid4())
    await site.send(admin, a_send(request_id=request_id))
    for other in ({"title": "Other"}, {"title": ""}, {"type": "no.such.type"}, {"validate_only": True}):
        refusal = await refusal_of(site.send(admin, a_send(request_id=request_id, **other)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_ids_of_different_callers_do_not_meet(site: Site) -> None:
    """Two people, and a service, may happen upon one id; none sees another's answer."""
    request = a_send(request_id=str(uuid4()))
    callers = [site.person("admin")[1], site.person("admin")[1], site.service("broadcast.send")]
    answers = [await site.send(caller, request) for caller in callers]
    assert len({answer.broadcast.broadcast_id for answer in answers}) == 3


async def test_without_an_id_every_call_is_a_broadcast(site: Site) -> None:
    """The same body twice is two."""
    _, admin = site.person("admin")
    first, second = await site.send(admin), await site.send(admin)
    assert first.broadcast.broadcast_id != second.broadcast.broadcast_id


async def test_refused_call_is_judged_anew(site: Site) -> None:
    """What was refused once may be accepted once the reason has gone."""
    user_id, caller = site.person("couple")
    request = a_send(request_id=str(uuid4()))
    assert (await refusal_of(site.send(caller, request))).code is grpc.StatusCode.PERMISSION_DENIED
    site.neighbours.preferences.people[user_id] = "admin"
    assert (await site.send(caller, request)).broadcast.broadcast_id


async def test_simultaneous_calls_are_one_broadcast(site: Site) -> None:
    """Twenty at once with one id: one broadcast, one announcement row, one answer."""
    _, admin = site.person("admin")
    before = await site.count("broadcasts"), await site.count("outbox")
    with armed("sender.send.before_commit=delay:0.05"):
        request = a_send(request_id=str(uuid4()))
        answers = await asyncio.gather(*(site.send(admin, request) for _ in range(20)))
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert (await site.count("broadcasts"), await site.count("outbox")) == (before[0] + 1, before[1] + 1)


async def test_simultaneous_calls_with_different_bodies_are_one_broadcast(site: Site) -> None:
    """One wins; the others learn that the id is taken."""
    _, admin = site.person("admin")
    request_id, before = str(uuid4()), await site.count("broadcasts")
    with armed("sender.send.before_commit=delay:0.05"):
        calls = [site.send(admin, a_send(request_id=request_id, title=f"Title {n}")) for n in range(8)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    accepted = [each for each in results if isinstance(each, sender_pb2.SendBroadcastResponse)]
    lost = [each for each in results if isinstance(each, grpc.aio.AioRpcError)]
    assert (len(accepted), len(lost)) == (1, 7)
    assert {each.code() for each in lost} == {grpc.StatusCode.ALREADY_EXISTS}
    assert await site.count("broadcasts") == before + 1


async def test_answer_lost_after_the_commit_is_given_to_the_retry(site: Site) -> None:
    """The call fails when all is kept already; the caller tries again and has sent once."""
    _, admin = site.person("admin")
    request, before = a_send(request_id=str(uuid4())), await site.count("broadcasts")
    with armed("sender.send.after_commit=error@1") as plan:
        assert (await refusal_of(site.send(admin, request))).code is grpc.StatusCode.INTERNAL
        answer = await site.send(admin, request)
    assert plan.hits["sender.send.after_commit"] == 1
    assert await site.state(answer.broadcast.broadcast_id) == "pending"
    assert await site.count("broadcasts") == before + 1


async def test_call_that_fails_before_the_commit_leaves_nothing(site: Site) -> None:
    """And its retry is the first."""
    _, admin = site.person("admin")
    request, before = a_send(request_id=str(uuid4())), await site.count("broadcasts")
    with armed("sender.send.before_commit=error@1") as plan:
        assert (await refusal_of(site.send(admin, request))).code is grpc.StatusCode.INTERNAL
        assert await site.count("broadcasts") == before
        await site.send(admin, request)
    assert plan.hits["sender.send.before_commit"] == 2
    assert await site.count("broadcasts") == before + 1


async def test_first_answer_holds_for_a_day(site: Site) -> None:
    """A moment before it is over the repetition gets it; then the id is free, for another body too."""
    _, admin = site.person("admin")
    request_id = str(uuid4())
    first = await site.send(admin, a_send(request_id=request_id))
    await site.age_answer(request_id, timedelta(hours=23, minutes=59))
    assert await site.send(admin, a_send(request_id=request_id)) == first
    await site.age_answer(request_id, timedelta(minutes=1))
    before = await site.count("broadcasts")
    second = await site.send(admin, a_send(request_id=request_id, title="Other"))
    assert second.broadcast.broadcast_id != first.broadcast.broadcast_id
    assert await site.count("broadcasts") == before + 1
    refusal = await refusal_of(site.send(admin, a_send(request_id=request_id)))
    assert refusal.reason == "REQUEST_ID_REUSED"


async def test_simultaneous_calls_with_an_id_that_is_free_again_are_one_broadcast(site: Site) -> None:
    """Whichever makes it free, one takes it and the others get its answer."""
    _, admin = site.person("admin")
    request = a_send(request_id=str(uuid4()))
    first = await site.send(admin, request)
    await site.age_answer(request.request_id, timedelta(hours=24))
    before = await site.count("broadcasts")
    with armed("sender.send.before_commit=delay:0.05"):
        answers = await asyncio.gather(*(site.send(admin, request) for _ in range(20)))
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert answers[0] != first
    assert await site.count("broadcasts") == before + 1
