"""CancelBroadcast: what is stopped, what is claimed, and what happens when somebody does not answer."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2, sender_pb2
from wedsync.broadcast.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.cancelling import CancelFinisher, Stopping
from services.sender.progress import Changes
from services.sender.store import DispatchStore
from shared import database
from shared.channels import open_channel
from shared.failpoints import armed
from shared.settings import Address
from shared.tls import Transport
from tests.integration.sender.site import Metadata, Site, a_send, ahead
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

CANCELLED = common_pb2.BROADCAST_STATE_CANCELLED


async def sent(site: Site, caller: Metadata, **fields: object) -> str:
    """The id of a new broadcast."""
    return (await site.send(caller, a_send(**fields))).broadcast.broadcast_id


async def under_way(site: Site, caller: Metadata, targeted: int, arrived: int) -> str:
    """A broadcast of which a part has arrived."""
    broadcast_id = await sent(site, caller)
    await site.plan(broadcast_id)
    site.neighbours.dispatcher.dispatches[broadcast_id] = dispatcher_pb2.Dispatch(targeted=targeted)
    site.neighbours.inbox.engagements[broadcast_id] = common_pb2.Engagement(delivered=arrived)
    return broadcast_id


async def over(site: Site, caller: Metadata, held: int) -> str:
    """A broadcast that was sent to ten, of whom some sleep."""
    broadcast_id = await under_way(site, caller, 10, 10)
    site.neighbours.dispatcher.dispatches[broadcast_id].ledger.add(
        channel=common_pb2.CHANNEL_REALTIME, state=common_pb2.DELIVERY_STATE_HELD, count=held
    )
    await site.report(broadcast_id, "sent")
    await until_equal("sent", lambda: site.state(broadcast_id))
    return broadcast_id


async def cancel(
    site: Site, caller: Metadata, broadcast_id: str, **fields: object
) -> sender_pb2.CancelBroadcastResponse:
    """A cancel."""
    request = sender_pb2.CancelBroadcastRequest(broadcast_id=broadcast_id, **fields)  # type: ignore[arg-type]
    return await site.stub.CancelBroadcast(request, metadata=caller)


async def test_pending_broadcast_is_stopped_whole(site: Site) -> None:
    """Everybody it was meant for will not get it; whoever it was told to has it on record."""
    _, admin = site.person("admin")
    site.person("florist")
    broadcast_id = await sent(site, admin)
    with capture_logs() as logs:
        answer = await cancel(site, admin, broadcast_id, reason="Wrong date.")
    assert (answer.stopped, answer.already_sent) == (2, 0)
    assert (answer.broadcast.state, answer.broadcast.cancel_reason) == (CANCELLED, "Wrong date.")
    assert answer.broadcast.HasField("cancelled_at")
    assert await site.outbox(broadcast_id) != ("pending", 0)
    assert (await site.outbox(broadcast_id))[0] == "cancelled"
    assert broadcast_id in site.neighbours.dispatcher.stopped
    assert site.neighbours.inbox.retracted == [(broadcast_id, False)]
    (line,) = (line for line in logs if line["event"] == "broadcast_cancelled")
    assert (line["broadcast_id"], line["stopped"]) == (broadcast_id, 2)
    assert (await refusal_of(site.plan(broadcast_id))).reason == "ILLEGAL_STATE"


async def test_scheduled_broadcast_is_never_announced(site: Site) -> None:
    """Its outbox row goes with it."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin, scheduled_for=ahead(hours=1))
    await cancel(site, admin, broadcast_id)
    assert await site.outbox(broadcast_id) == ("cancelled", 0)


async def test_half_delivered_broadcast_counts_both_halves(site: Site) -> None:
    """Stopped and sent add up to the snapshot."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 4)
    answer = await cancel(site, admin, broadcast_id)
    assert (answer.stopped, answer.already_sent) == (6, 4)


async def test_cancelling_again_gives_the_same_answer(site: Site) -> None:
    """Even when more would be counted now; nobody is told to stop twice."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 4)
    first = await cancel(site, admin, broadcast_id, reason="Wrong date.")
    site.neighbours.inbox.engagements[broadcast_id].delivered = 5
    with capture_logs() as logs:
        second = await cancel(site, admin, broadcast_id, reason="Another reason.")
    assert second == first
    assert site.neighbours.dispatcher.stopped == [broadcast_id]
    assert not any(line["event"] == "broadcast_cancelled" for line in logs)


async def test_request_id_is_replayed(site: Site) -> None:
    """The first answer after the right has gone, and another body is refused."""
    user_id, admin = site.person("admin")
    broadcast_id, request_id = await sent(site, admin), str(uuid4())
    first = await cancel(site, admin, broadcast_id, request_id=request_id)
    site.neighbours.preferences.people[user_id] = "couple"
    assert await cancel(site, admin, broadcast_id, request_id=request_id) == first
    refusal = await refusal_of(cancel(site, admin, broadcast_id, request_id=request_id, retract=True))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_id_of_a_send_is_free_for_a_cancel(site: Site) -> None:
    """Ids belong to a method."""
    _, admin = site.person("admin")
    request_id = str(uuid4())
    broadcast_id = await sent(site, admin, request_id=request_id)
    answer = await cancel(site, admin, broadcast_id, request_id=request_id)
    assert answer.broadcast.state == CANCELLED


async def test_held_work_of_a_sent_broadcast_is_stopped(site: Site) -> None:
    """It keeps the time at which it was sent."""
    _, admin = site.person("admin")
    broadcast_id = await over(site, admin, held=3)
    answer = await cancel(site, admin, broadcast_id)
    assert (answer.stopped, answer.already_sent) == (0, 10)
    assert answer.broadcast.state == CANCELLED
    assert answer.broadcast.HasField("sent_at")


async def test_nothing_left_to_stop_is_refused(site: Site) -> None:
    """Unless it is to be taken back."""
    _, admin = site.person("admin")
    broadcast_id = await over(site, admin, held=0)
    refusal = await refusal_of(cancel(site, admin, broadcast_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert site.neighbours.dispatcher.stopped == []
    answer = await cancel(site, admin, broadcast_id, retract=True)
    assert answer.broadcast.state == CANCELLED
    assert site.neighbours.inbox.retracted == [(broadcast_id, True)]


async def test_what_was_cancelled_can_be_taken_back_later(site: Site) -> None:
    """The counts and the reason stay those of the cancel."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 4)
    first = await cancel(site, admin, broadcast_id, reason="Wrong date.")
    site.neighbours.inbox.engagements[broadcast_id].delivered = 0
    second = await cancel(site, admin, broadcast_id, reason="Take it back.", retract=True)
    assert second == first
    assert site.neighbours.inbox.retracted == [(broadcast_id, False), (broadcast_id, True)]
    assert await cancel(site, admin, broadcast_id) == first
    assert len(site.neighbours.inbox.retracted) == 2


@pytest.mark.parametrize("end", ["failed", "expired"])
async def test_what_has_ended_otherwise_cannot_be_cancelled(site: Site, end: str) -> None:
    """There is nothing to stop or to take back."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 0)
    await site.report(broadcast_id, end, "reason")
    await until_equal(end, lambda: site.state(broadcast_id))
    for retract in (False, True):
        refusal = await refusal_of(cancel(site, admin, broadcast_id, retract=retract))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")


async def test_only_sender_and_admin_cancel(site: Site) -> None:
    """Who may see it learns that it is not theirs to stop; for others it does not exist."""
    author, coordinator = site.person("coordinator")
    teammate, on_the_team = site.person("coordinator")
    _, elsewhere = site.person("coordinator")
    _, couple = site.person("couple")
    wedding_id = site.wedding(author, teammate)
    broadcast_id = await sent(site, coordinator, type="form.locked", wedding_id=wedding_id, targeting={})
    for caller, code in (
        (on_the_team, grpc.StatusCode.PERMISSION_DENIED),
        (elsewhere, grpc.StatusCode.NOT_FOUND),
        (couple, grpc.StatusCode.PERMISSION_DENIED),
        (site.service("broadcast.send"), grpc.StatusCode.NOT_FOUND),
        (site.service("broadcast.read"), grpc.StatusCode.PERMISSION_DENIED),
        (site.service("broadcast.send", "broadcast.read"), grpc.StatusCode.PERMISSION_DENIED),
    ):
        assert (await refusal_of(cancel(site, caller, broadcast_id))).code is code
    assert await site.state(broadcast_id) == "pending"
    assert (await cancel(site, coordinator, broadcast_id)).broadcast.state == CANCELLED


async def test_service_account_cancels_its_own(site: Site) -> None:
    """And no other account's."""
    billing = site.service("broadcast.send", name="billing")
    broadcast_id = await sent(site, billing, type="payment.required")
    forms = site.service("broadcast.send", name="forms")
    assert (await refusal_of(cancel(site, forms, broadcast_id))).code is grpc.StatusCode.NOT_FOUND
    assert (await cancel(site, billing, broadcast_id)).broadcast.state == CANCELLED


async def test_author_off_the_team_still_stops_their_own(site: Site) -> None:
    """What they did is theirs to undo, as long as they are a coordinator."""
    author, coordinator = site.person("coordinator")
    wedding_id = site.wedding(author)
    broadcast_id = await sent(site, coordinator, type="form.locked", wedding_id=wedding_id, targeting={})
    site.neighbours.preferences.weddings[wedding_id].team.clear()
    assert (await cancel(site, coordinator, broadcast_id)).broadcast.state == CANCELLED


async def test_unknown_broadcast_is_not_found(site: Site) -> None:
    """And an id that is none is a bad field."""
    _, admin = site.person("admin")
    assert (await refusal_of(cancel(site, admin, str(uuid4())))).code is grpc.StatusCode.NOT_FOUND
    assert (await refusal_of(cancel(site, admin, "1"))).fields == ("broadcast_id",)


@pytest.mark.parametrize("silent", ["dispatcher", "inbox"])
async def test_nothing_is_claimed_until_everybody_has_stopped(site: Site, silent: str) -> None:
    """UNAVAILABLE; it does not begin to be dispatched any more; and calling again finishes it."""
    _, admin = site.person("admin")
    broadcast_id = await sent(site, admin)
    neighbour = site.neighbours.dispatcher if silent == "dispatcher" else site.neighbours.inbox
    neighbour.is_down = True
    refusal = await refusal_of(cancel(site, admin, broadcast_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DEPENDENCY_UNAVAILABLE")
    assert await site.state(broadcast_id) == "pending"
    assert (await refusal_of(site.plan(broadcast_id))).reason == "ILLEGAL_STATE"
    neighbour.is_down = False
    assert (await cancel(site, admin, broadcast_id)).broadcast.state == CANCELLED


async def test_sent_while_it_is_being_cancelled_is_cancelled(site: Site) -> None:
    """The dispatcher's last report overtakes the inbox's answer; the cancel still stands."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 10)
    site.neighbours.inbox.release.clear()
    running = asyncio.ensure_future(cancel(site, admin, broadcast_id))
    await until_equal(1, lambda: _count(site.neighbours.dispatcher.stopped))
    await site.report(broadcast_id, "sent")
    await until_equal("sent", lambda: site.state(broadcast_id))
    site.neighbours.inbox.release.set()
    assert (await running).broadcast.state == CANCELLED


async def test_failed_while_it_is_being_cancelled_has_failed(site: Site) -> None:
    """The caller is told, and the state is the failure's."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 0)
    site.neighbours.inbox.release.clear()
    running = asyncio.ensure_future(refusal_of(cancel(site, admin, broadcast_id)))
    await until_equal(1, lambda: _count(site.neighbours.dispatcher.stopped))
    await site.report(broadcast_id, "failed", "NOT_FOUND: gone.")
    await until_equal("failed", lambda: site.state(broadcast_id))
    site.neighbours.inbox.release.set()
    assert (await running).reason == "ILLEGAL_STATE"
    assert await site.state(broadcast_id) == "failed"


async def test_simultaneous_cancels_agree(site: Site) -> None:
    """Ten at once: one record, one answer."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 4)
    with armed("sender.cancel.after_stop=delay:0.02"):
        answers = await asyncio.gather(*(cancel(site, admin, broadcast_id) for _ in range(10)))
    assert {(each.stopped, each.already_sent) for each in answers} == {(6, 4)}
    assert len({each.broadcast.cancelled_at.ToNanoseconds() for each in answers}) == 1


@pytest.mark.parametrize("moment", ["after_request", "after_stop", "after_retract"])
async def test_cancel_that_was_left_unfinished_is_finished(site: Site, moment: str) -> None:
    """The process dies in the middle and the caller never comes back: another one finishes it."""
    _, admin = site.person("admin")
    broadcast_id = await under_way(site, admin, 10, 4)
    with armed(f"sender.cancel.{moment}=error@1") as plan:
        refusal = await refusal_of(cancel(site, admin, broadcast_id, reason="Wrong date.", retract=True))
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert plan.hits[f"sender.cancel.{moment}"] == 1
    assert await site.state(broadcast_id) == "dispatching"
    assert await finish_all(site) == 1
    assert await site.state(broadcast_id) == "cancelled"
    answer = await cancel(site, admin, broadcast_id, retract=True)
    assert (answer.stopped, answer.broadcast.cancel_reason) == (6, "Wrong date.")
    assert await finish_all(site) == 0


async def test_one_unfinished_cancel_does_not_hold_up_another(site: Site) -> None:
    """While the inbox is down none is finished, and none is lost."""
    _, admin = site.person("admin")
    ids = [await under_way(site, admin, 10, 4) for _ in range(3)]
    site.neighbours.inbox.is_down = True
    for broadcast_id in ids:
        await refusal_of(cancel(site, admin, broadcast_id))
    assert await finish_all(site) == 0
    site.neighbours.inbox.is_down = False
    assert await finish_all(site) == 3


async def finish_all(site: Site) -> int:
    """What the finisher of any sender does, without waiting for it to be its turn."""
    pool = await database.connect(site.database.url("sender", "worker"), application_name="finisher")
    store = DispatchStore(pool)
    channel = open_channel("neighbours", Address.parse(site.neighbours.address), Transport(), lambda: "token")
    stopping = Stopping(store, DispatcherServiceStub(channel), InboxServiceStub(channel), Changes())
    try:
        return await CancelFinisher(store, stopping, older_than_s=0).finish_all()
    finally:
        await channel.close()
        await pool.close()


async def _count(found: list[str]) -> int:
    return len(found)
