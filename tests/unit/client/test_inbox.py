"""An inbox read and marked through the client."""

from datetime import UTC, datetime

import grpc
import pytest
from wedsync.broadcast.client import ConfigurationError
from wedsync.broadcast.v1.common_pb2 import ReceiptAction

from shared import errors
from tests.unit.client.suite import Suite


async def test_all_items_come_page_by_page(suite: Suite) -> None:
    """As they are asked for, and none twice."""
    suite.inbox.log = [f"item {number}" for number in range(5)]
    async with suite.client() as client:
        found = [item.broadcast_id async for item in client.inbox().items(type="wedding.")]
    assert found == suite.inbox.log
    assert [asked.request.page_token for asked in suite.inbox.script.asked] == ["", "2", "4"]
    assert {asked.request.type for asked in suite.inbox.script.asked} == {"wedding."}


async def test_whatever_is_tried_again_is_the_same_call(suite: Suite) -> None:
    """An answer that was lost, then no room, then another token: one request_id, so it is done once."""
    given = iter(["first", "second"])

    async def ask() -> str:
        return next(given)

    suite.inbox.script.steps += [
        grpc.StatusCode.UNAVAILABLE,
        errors.TooManyCalls(retry_after_s=1.0),
        errors.TokenExpired(),
    ]
    async with suite.client(wait_s=5.0) as client:
        await client.inbox(ask).read("a")
    assert suite.inbox.script.tokens() == ["first", "first", "first", "second"]
    assert len({asked.request.request_id for asked in suite.inbox.script.asked}) == 1


async def test_what_a_person_did_is_recorded(suite: Suite) -> None:
    """Each by its name, with a request_id, for as many items as are given."""
    async with suite.client() as client:
        inbox = client.inbox()
        for do in (inbox.read, inbox.acknowledge, inbox.dismiss, inbox.restore):
            await do("a", "b")
        await inbox.click("a", "https://wedsync.example/")
    requests = [asked.request for asked in suite.inbox.script.asked]
    assert [ReceiptAction.Name(each.action) for each in requests] == [
        "RECEIPT_ACTION_READ",
        "RECEIPT_ACTION_ACKNOWLEDGED",
        "RECEIPT_ACTION_DISMISSED",
        "RECEIPT_ACTION_RESTORED",
        "RECEIPT_ACTION_CLICKED",
    ]
    assert [list(each.broadcast_ids) for each in requests] == [["a", "b"]] * 4 + [["a"]]
    assert requests[-1].action_url == "https://wedsync.example/"
    assert all(each.request_id for each in requests)


async def test_items_are_put_aside_and_on_top(suite: Suite) -> None:
    """A snooze until a moment, its end, a pin and its end: each a call of its own with a request_id."""
    morning = datetime(2027, 5, 1, 9, tzinfo=UTC)
    async with suite.client() as client:
        inbox = client.inbox()
        await inbox.snooze("a", morning)
        await inbox.wake("a")
        await inbox.pin("a")
        await inbox.unpin("a")
    snoozed, woken, pinned, unpinned = (asked.request for asked in suite.inbox.script.asked)
    assert snoozed.snooze_until.ToDatetime(UTC) == morning
    assert not woken.HasField("snooze_until")
    assert [pinned.unpin, unpinned.unpin] == [False, True]
    assert len({each.request_id for each in (snoozed, woken, pinned, unpinned)}) == 4


async def test_a_snooze_needs_a_zone(suite: Suite) -> None:
    """What could be any of many moments is not sent."""
    async with suite.client() as client:
        with pytest.raises(ConfigurationError, match="until has no time zone"):
            await client.inbox().snooze("a", datetime(2027, 5, 1, 9))  # noqa: DTZ001 # the mistake itself
    assert not suite.inbox.script.asked
