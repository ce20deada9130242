"""GetDispatchOrder: the one moment at which a broadcast begins to be dispatched, and its content at any time."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, events_pb2, sender_pb2

from shared.failpoints import armed
from tests.integration.sender.site import Metadata, Site, a_send, ahead
from tests.integration.shared.edge import Refusal, refusal_of
from tests.integration.shared.polling import until


async def sent(site: Site, caller: Metadata, **fields: object) -> str:
    """The id of a new broadcast."""
    return (await site.send(caller, a_send(**fields))).broadcast.broadcast_id


async def refused(site: Site, broadcast_id: str) -> Refusal:
    """The refusal of a plan, and the state after it."""
    return await refusal_of(site.plan(broadcast_id))


async def content(site: Site, broadcast_id: str) -> sender_pb2.DispatchOrder:
    """What an inbox asks."""
    request = sender_pb2.GetDispatchOrderRequest(
        broadcast_id=broadcast_id, purpose=sender_pb2.DISPATCH_PURPOSE_CONTENT
    )
    answer = await site.stub.GetDispatchOrder(request, metadata=site.service("internal", name="inbox"))
    return answer.order


async def test_due_broadcast_begins_to_be_dispatched(site: Site) -> None:
    """The order has all that a dispatcher needs, and its wall is filled."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    broadcast_id = await sent(
        site,
        coordinator,
        type="timeline.changed",
        wedding_id=wedding_id,
        targeting={"roles": ["florist"]},
        action={"label": "Open", "url": "/w"},
    )
    order = await site.plan(broadcast_id)
    assert order.state == common_pb2.BROADCAST_STATE_DISPATCHING
    assert (order.broadcast_id, order.type) == (broadcast_id, "timeline.changed")
    assert (order.category, order.priority) == (common_pb2.CATEGORY_COLLABORATION, common_pb2.PRIORITY_HIGH)
    assert order.essential
    assert (order.title, order.message, order.action.url) == ("New seating plans", "Try them.", "/w")
    assert list(order.targeting.roles) == ["florist"]
    assert list(order.targeting.wedding_ids) == [wedding_id]
    assert (order.wedding.wedding_id, order.wedding.couple_name) == (wedding_id, "Amara & Jonas")
    assert await site.state(broadcast_id) == "dispatching"


async def test_announcement_hints_at_the_order(site: Site) -> None:
    """All that says who gets it, as the order then has it, so that nothing is looked for in vain; and no text."""
    user_id, admin = site.person("admin")
    weddings = sorted((site.wedding(user_id) for _ in range(3)), reverse=True)
    about = {
        "wedding_id": weddings[0],
        "targeting": {"roles": ["venue", "florist"], "tiers": ["starter", "free"]},
    }
    several = {"targeting": {"wedding_ids": weddings}}
    for fields in (about, several, {"expires_at": ahead(hours=1)}, {"targeting": {"everyone": True}}):
        broadcast_id = await sent(site, admin, **fields)
        await until(lambda sent=broadcast_id: bool(site.lanes.of(sent)))
        hint = site.lanes.of(broadcast_id)[0].order
        order = await site.plan(broadcast_id)
        assert hint == events_pb2.DueOrder(
            type=order.type,
            category=order.category,
            priority=order.priority,
            essential=order.essential,
            targeting=order.targeting,
            wedding_id=order.wedding.wedding_id,
            expires_at=order.expires_at if order.HasField("expires_at") else None,
        )


async def test_announcement_names_nobody(site: Site) -> None:
    """Ids of users are asked for, and so is an order that would make the message long."""
    user_id, admin = site.person("admin")
    for targeting in (
        {"user_ids": [user_id], "roles": ["florist"]},
        {"wedding_ids": [site.wedding(user_id) for _ in range(200)]},
    ):
        broadcast_id = await sent(site, admin, targeting=targeting)
        await until(lambda sent=broadcast_id: bool(site.lanes.of(sent)))
        assert site.lanes.of(broadcast_id)[0].order is None


async def test_wedding_is_told_as_the_directory_has_it_at_dispatch(site: Site) -> None:
    """A date that moved since the send is right in every inbox; afterwards it stays as it was dispatched."""
    user_id, admin = site.person("admin")
    wedding_id = site.wedding(user_id)
    broadcast_id = await sent(site, admin, wedding_id=wedding_id, targeting={})
    site.neighbours.preferences.weddings[wedding_id].date = (2028, 2, 29)
    site.neighbours.preferences.weddings[wedding_id].couple_name = "Amara & Joan"
    planned = await site.plan(broadcast_id)
    site.neighbours.preferences.weddings[wedding_id].couple_name = "Somebody else"
    for order in (planned, await content(site, broadcast_id), await site.plan(broadcast_id)):
        assert order.wedding.couple_name == "Amara & Joan"
        assert (order.wedding.wedding_date.month, order.wedding.wedding_date.day) == (2, 29)


async def test_wedding_that_is_gone_keeps_its_facts(site: Site) -> None:
    """An admin's broadcast goes on; whom it reaches is for the audience to say."""
    user_id, admin = site.person("admin")
    wedding_id = site.wedding(user_id)
    broadcast_id = await sent(site, admin, wedding_id=wedding_id, targeting={})
    del site.neighbours.preferences.weddings[wedding_id]
    assert (await site.plan(broadcast_id)).wedding.couple_name == "Amara & Jonas"


async def test_repeated_order_is_given_again(site: Site) -> None:
    """While it is dispatching and after it was sent, without asking for any right again."""
    user_id, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    first = await site.plan(broadcast_id)
    site.neighbours.preferences.people[user_id] = "couple"
    assert await site.plan(broadcast_id) == first
    await site.admin.execute(
        "UPDATE sender.broadcasts SET state = 'sent', sent_at = now() WHERE broadcast_id = $1", broadcast_id
    )
    assert (await site.plan(broadcast_id)).state == common_pb2.BROADCAST_STATE_SENT


async def test_simultaneous_orders_are_one_beginning(site: Site) -> None:
    """Ten dispatchers at once get the same order."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    with armed("sender.plan.before_begin=delay:0.05"):
        orders = await asyncio.gather(*(site.plan(broadcast_id) for _ in range(10)))
    assert len({order.SerializeToString(deterministic=True) for order in orders}) == 1


@pytest.mark.parametrize("loss", ["role", "team", "gone"])
async def test_sender_who_lost_the_right_sends_nothing(site: Site, loss: str) -> None:
    """It fails with the reason, and is not announced again."""
    user_id, coordinator = site.person("coordinator")
    wedding_id = site.wedding(user_id)
    broadcast_id = await sent(site, coordinator, type="form.locked", wedding_id=wedding_id, targeting={})
    if loss == "role":
        site.neighbours.preferences.people[user_id] = "photographer"
    elif loss == "team":
        site.neighbours.preferences.weddings[wedding_id].team.clear()
    else:
        del site.neighbours.preferences.people[user_id]
    refusal = await refused(site, broadcast_id)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SENDER_LOST_RIGHT")
    assert await site.state(broadcast_id) == "failed"
    assert (await site.outbox(broadcast_id))[0] == "done"
    _, admin = site.person("admin")
    request = sender_pb2.GetBroadcastRequest(broadcast_id=broadcast_id)
    failed = (await site.stub.GetBroadcast(request, metadata=admin)).broadcast
    assert failed.error.startswith("SENDER_LOST_RIGHT: ")
    assert failed.HasField("failed_at")
    assert (await refused(site, broadcast_id)).reason == "ILLEGAL_STATE"


async def test_service_accounts_right_is_in_its_token(site: Site) -> None:
    """Nobody is asked about it again."""
    broadcast_id = await sent(site, site.service("broadcast.send"), type="payment.required")
    calls = len(site.neighbours.preferences.calls)
    await site.plan(broadcast_id)
    assert len(site.neighbours.preferences.calls) == calls


async def test_nothing_is_dispatched_while_rights_cannot_be_asked(site: Site) -> None:
    """The directory is down: it stays pending, and goes on when the directory is back."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    site.neighbours.preferences.is_down = True
    assert (await refused(site, broadcast_id)).code is grpc.StatusCode.UNAVAILABLE
    assert await site.state(broadcast_id) == "pending"
    site.neighbours.preferences.is_down = False
    assert (await site.plan(broadcast_id)).state == common_pb2.BROADCAST_STATE_DISPATCHING


async def test_broadcast_that_is_not_due_is_not_dispatched(site: Site) -> None:
    """Whoever asks."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin, scheduled_for=ahead(hours=1))
    refusal = await refused(site, broadcast_id)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert await site.state(broadcast_id) == "pending"


async def test_expired_broadcast_is_not_dispatched(site: Site) -> None:
    """It ends there, and is not announced again."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    await site.admin.execute(
        """
        UPDATE sender.broadcasts
        SET created_at = created_at - interval '2 hours', scheduled_for = scheduled_for - interval '2 hours',
            expires_at = now() - interval '1 hour'
        WHERE broadcast_id = $1
        """,
        broadcast_id,
    )
    assert (await refused(site, broadcast_id)).reason == "ILLEGAL_STATE"
    assert await site.state(broadcast_id) == "expired"
    assert (await site.outbox(broadcast_id))[0] == "done"


async def test_content_is_given_in_any_state(site: Site) -> None:
    """An inbox shows what was sent long ago, and nothing changes by it."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    order = await content(site, broadcast_id)
    assert (order.title, order.state) == ("New seating plans", common_pb2.BROADCAST_STATE_PENDING)
    assert await site.state(broadcast_id) == "pending"


async def test_unknown_broadcast_is_not_found(site: Site) -> None:
    """For both purposes."""
    assert (await refused(site, str(uuid4()))).code is grpc.StatusCode.NOT_FOUND
    assert (await refusal_of(content(site, str(uuid4())))).code is grpc.StatusCode.NOT_FOUND


async def test_orders_are_for_the_suite_alone(site: Site) -> None:
    """Not for admins, not for senders."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    request = sender_pb2.GetDispatchOrderRequest(
        broadcast_id=broadcast_id, purpose=sender_pb2.DISPATCH_PURPOSE_PLAN
    )
    for caller in (admin, site.service("broadcast.send", "broadcast.read", "dispatch.operate")):
        refusal = await refusal_of(site.stub.GetDispatchOrder(request, metadata=caller))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    request.ClearField("purpose")
    internal = site.service("internal")
    refusal = await refusal_of(site.stub.GetDispatchOrder(request, metadata=internal))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("purpose",))


async def test_what_is_not_dispatched_is_told_to_an_operator(site: Site) -> None:
    """With the reason, and without a person."""
    user_id, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    site.neighbours.preferences.people[user_id] = "couple"
    with capture_logs() as logs:
        await refused(site, broadcast_id)
    (line,) = (line for line in logs if line["event"] == "broadcast_not_dispatched")
    assert (line["broadcast_id"], line["state"]) == (broadcast_id, "failed")
    assert user_id not in str(logs)
