"""What a call gets that its caller did not say: a deadline, a token, a request_id, another try, room, a typed error."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import pytest
from wedsync.broadcast.client import (
    Addresses,
    BroadcastClient,
    ConfigurationError,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Retries,
    Unavailable,
    audience,
    everyone,
    insecure,
)
from wedsync.broadcast.v1.sender_pb2 import GetBroadcastRequest, SendBroadcastRequest

from shared import errors
from tests.unit.client.suite import Context, Suite

NEWS = {"type": "feature.released", "title": "News", "message": "Look."}
AWAY = grpc.StatusCode.UNAVAILABLE


async def test_a_call_has_a_deadline_unless_it_says_another(suite: Suite) -> None:
    """The client's for all, one's own for one, and a stub's timeout is one's own."""
    async with suite.client(deadline_s=40.0) as client:
        await client.get("b")
        await client.get("b", deadline_s=20.0)
        await client.sender.GetBroadcast(GetBroadcastRequest(), timeout=10.0)
        await client.sender.GetBroadcast(GetBroadcastRequest())
    assert [40, 20, 10, 40] == [round(asked.remaining_s, -1) for asked in suite.sender.script.asked]


async def test_a_call_ends_at_its_deadline(suite: Suite) -> None:
    """It is as if nobody could be reached, and it may have been done."""

    async def dawdle(_: Context) -> None:
        await asyncio.Event().wait()

    suite.sender.script.steps.append(dawdle)
    async with suite.client(deadline_s=0.2) as client:
        with pytest.raises(DeadlineExceeded) as late:
            await client.get("b")
    assert isinstance(late.value, Unavailable)


async def test_whoever_stops_waiting_ends_the_call(suite: Suite) -> None:
    """The service need not go on for nobody."""
    left = asyncio.Event()

    async def dawdle(context: Context) -> None:
        context.add_done_callback(lambda _: left.set())
        await asyncio.Event().wait()

    suite.sender.script.steps.append(dawdle)
    async with suite.client() as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get("b"), 0.2)
        await asyncio.wait_for(left.wait(), 10.0)


async def test_a_send_that_meets_an_outage_is_one_send(suite: Suite) -> None:
    """It is made again as the same call, and its caller hears nothing of it."""
    suite.sender.script.steps += [AWAY, AWAY]
    async with suite.client() as client:
        sent = await client.send(**NEWS, to=everyone())
    ids = [asked.request.request_id for asked in suite.sender.script.asked]
    assert [sent.request_id] * 3 == ids
    assert str(UUID(sent.request_id)) == sent.request_id
    assert f"of {sent.request_id}" == sent.broadcast_id


async def test_a_stub_gets_a_request_id_where_there_is_one(suite: Suite) -> None:
    """So that gRPC can make any call again; what the caller said stays as it was."""
    suite.sender.script.steps += [AWAY]
    request = SendBroadcastRequest(title="News")
    async with suite.client() as client:
        await client.sender.SendBroadcast(request)
        await client.sender.SendBroadcast(SendBroadcastRequest(request_id="mine"))
    first, again, mine = (asked.request.request_id for asked in suite.sender.script.asked)
    assert first == again == str(UUID(first))
    assert ("mine", "") == (mine, request.request_id)


async def test_tries_are_counted(suite: Suite) -> None:
    """Brisk ones are over in half a second; then the caller is told."""
    suite.sender.script.steps += [AWAY] * 4
    async with suite.client(retries=Retries.BRISK) as client:
        with pytest.raises(Unavailable):
            await client.get("b")
    assert len(suite.sender.script.asked) == 4


async def test_an_outage_uses_the_budget_up(suite: Suite) -> None:
    """In an outage that lasts, calls are made once each, so that clients do not add to it."""
    suite.sender.script.steps += [AWAY] * 1_000
    async with suite.client(retries=Retries(first_s=0.01, ceiling_s=0.01)) as client:
        await asyncio.gather(*(client.get("b") for _ in range(150)), return_exceptions=True)
        before = len(suite.sender.script.asked)
        with pytest.raises(Unavailable):
            await client.get("b")
    assert len(suite.sender.script.asked) == before + 1
    assert 500 <= before < 150 * 5


async def test_nobody_there_is_waited_for_until_the_deadline() -> None:
    """Patient clients wait for a server to come, brisk ones are told that there is none."""
    nowhere = Addresses(sender="127.0.0.1:1")
    async with BroadcastClient(nowhere, token="t", security=insecure(), deadline_s=0.3) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("b")
    async with BroadcastClient(nowhere, token="t", security=insecure(), retries=Retries.BRISK) as client:
        with pytest.raises(Unavailable) as away:
            await client.get("b")
    assert away.value.code() is AWAY


async def test_who_says_when_to_come_again_is_asked_again(suite: Suite) -> None:
    """Each time after what the hint says: a busy service, and one that lacks another once gRPC's tries are over."""
    suite.sender.script.steps += [
        errors.TooManyCalls(retry_after_s=0.5),
        errors.TooManyCalls(retry_after_s=2.0),
        *[errors.DependencyUnavailable(retry_after_s=0.25)] * 4,
    ]
    async with suite.client(retries=Retries.BRISK) as client:
        await client.send(**NEWS, to=everyone(), wait_s=3.0)
    assert [0.5, 2.0, 0.25] == suite.pauses.slept
    assert len({asked.request.request_id for asked in suite.sender.script.asked}) == 1


async def test_waiting_patiently_has_a_budget(suite: Suite) -> None:
    """What would take longer is raised at once, and without a budget everything is."""
    suite.sender.script.steps += [errors.TooManyCalls(retry_after_s=2.0)] * 3
    async with suite.client(wait_s=3.0) as client:
        with pytest.raises(Overloaded):
            await client.get("b")
        assert [2.0] == suite.pauses.slept
        with pytest.raises(Overloaded):
            await client.send(**NEWS, wait_s=0.0)
    assert [2.0] == suite.pauses.slept


async def test_a_service_that_says_now_is_not_asked_again_at_once(suite: Suite) -> None:
    """There is always a pause, so a call that may not wait does not, and one that may ends."""
    suite.sender.script.steps += [errors.TooManyCalls(retry_after_s=0.0)] * 100
    async with suite.client() as client:
        with pytest.raises(Overloaded):
            await client.get("b")
        assert (len(suite.sender.script.asked), suite.pauses.slept) == (1, [])
        with pytest.raises(Overloaded):
            await client.send(**NEWS, wait_s=0.35)
    assert suite.pauses.slept == [0.1, 0.1, 0.1]


async def test_an_inbox_waits_patiently_and_has_its_deadline(suite: Suite) -> None:
    """Its own terms, else the client's."""
    suite.inbox.script.steps += [errors.TooManyCalls(retry_after_s=2.0)]
    async with suite.client(wait_s=3.0, deadline_s=40.0) as client:
        await client.inbox(deadline_s=20.0).unread_count()
        await client.inbox().unread_count()
        suite.inbox.script.steps += [errors.TooManyCalls(retry_after_s=2.0)]
        with pytest.raises(Overloaded):
            await client.inbox(wait_s=1.0).unread_count()
    assert [20, 20, 40, 40] == [round(asked.remaining_s, -1) for asked in suite.inbox.script.asked]


async def test_any_stub_can_wait_patiently(suite: Suite) -> None:
    """By the same budget."""
    suite.sender.script.steps += [errors.TooManyCalls(retry_after_s=2.0)]
    async with suite.client() as client:
        stub = client.sender
        await client.patiently(lambda: stub.GetBroadcast(GetBroadcastRequest()), wait_s=5.0)
    assert [2.0] == suite.pauses.slept


async def test_a_limit_says_when_to_come_again(suite: Suite) -> None:
    """With what is used up, and what is left of it."""
    suite.sender.script.steps.append(
        errors.RateLimited(
            quota=[errors.QuotaViolation("user:1", "5 in any hour")],
            retry_after_s=3_584.74,
            metadata={"hour_remaining": "0"},
        )
    )
    async with suite.client(wait_s=60.0) as client:
        with pytest.raises(RateLimited) as limited:
            await client.send(**NEWS, to=everyone())
    assert limited.value.retry_after == timedelta(seconds=3_584.74)
    assert [("user:1", "5 in any hour")] == [(each.subject, each.description) for each in limited.value.quota]
    assert limited.value.metadata == {"hour_remaining": "0"}
    assert suite.pauses.slept == []


async def test_broken_fields_are_named(suite: Suite) -> None:
    """All of them, with their rules; the text of the error has them, too."""
    broken = [errors.FieldViolation("title", "must be at least 1 characters")]
    suite.sender.script.steps.append(errors.InvalidField(violations=broken))
    async with suite.client() as client:
        with pytest.raises(InvalidRequest) as invalid:
            await client.send(**NEWS | {"title": ""})
    assert [("title", "must be at least 1 characters")] == [
        (each.field, each.description) for each in invalid.value.violations
    ]
    assert str(invalid.value) == (
        "INVALID_ARGUMENT (INVALID_FIELD): The request breaks a rule of its fields. "
        "title: must be at least 1 characters."
    )


async def test_what_handles_grpc_errors_handles_these(suite: Suite) -> None:
    """Code, details and trailers are there, on the error and on the call."""
    suite.sender.script.steps.append(errors.OutsideReach())
    async with suite.client() as client:
        call = client.sender.GetBroadcast(GetBroadcastRequest())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert isinstance(refused.value, PermissionDenied)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "grpc-status-details-bin" in (refused.value.trailing_metadata() or ())


async def test_a_send_says_what_was_meant(suite: Suite) -> None:
    """Everything that was given reaches the service in its field."""
    later = datetime(2027, 5, 1, 12, tzinfo=UTC)
    async with suite.client() as client:
        await client.send(
            **NEWS,
            to=audience(roles="photographer", tiers=["starter", "professional"]),
            wedding_id="w",
            scheduled_for=later,
            expires_at=later + timedelta(hours=1),
            request_id="mine",
        )
    (asked,) = suite.sender.script.asked
    assert (list(asked.request.targeting.roles), list(asked.request.targeting.tiers)) == (
        ["photographer"],
        ["starter", "professional"],
    )
    assert (asked.request.wedding_id, asked.request.request_id) == ("w", "mine")
    assert asked.request.scheduled_for.ToDatetime(UTC) == later
    assert asked.request.expires_at.ToDatetime(UTC) == later + timedelta(hours=1)


async def test_a_time_without_a_zone_is_refused(suite: Suite) -> None:
    """Nobody can know when it is; the field is named, and nothing is sent."""
    async with suite.client() as client:
        with pytest.raises(ConfigurationError, match="scheduled_for has no time zone"):
            await client.send(**NEWS, scheduled_for=datetime(2027, 5, 1, 12))  # noqa: DTZ001 # what is refused
    assert suite.sender.script.asked == []
