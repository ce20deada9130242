"""What a dispatcher makes of messages that come twice, late or broken, and of neighbours that do not answer."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from wedsync.broadcast.v1 import events_pb2

from services.dispatcher.domain import Kind
from shared import subjects
from shared.audience import Audience
from shared.errors import DependencyUnavailable, IllegalState, NotFound, SenderLostRight
from tests.integration.dispatcher.site import Caller, Site
from tests.integration.dispatcher.stand_ins import now_on_both
from tests.integration.shared.polling import until, until_equal

PEOPLE = Audience.of(range(10, 20))


@pytest.fixture(scope="module")
async def dispatcher(surroundings: Site) -> AsyncIterator[Caller]:
    """A dispatcher with all lanes, whose leases are short."""
    async with surroundings.dispatching(DISPATCHER_LEASE_S="0.3", DISPATCHER_LEASE_CEILING_S="0.6") as caller:
        yield caller


async def letters(admin: asyncpg.Connection, broadcast_id: UUID | None) -> list[tuple[str, int | None, str]]:
    """What was put aside about a broadcast."""
    rows = await admin.fetch(
        "SELECT subject, chunk, error FROM dead_letters WHERE broadcast_id IS NOT DISTINCT FROM $1 ORDER BY id",
        broadcast_id,
    )
    return [(row["subject"], row["chunk"], row["error"]) for row in rows]


async def test_a_due_message_that_comes_again_makes_no_second_snapshot(
    surroundings: Site, dispatcher: Caller
) -> None:
    """Nobody gets it twice, the audience is not asked for again, and the sender hears once more that it was sent."""
    sent = await surroundings.send(now_on_both(PEOPLE))
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])
    surroundings.decision(sent).snapshot = now_on_both(Audience.of(range(1000)))
    await surroundings.announce(sent, epoch=2)
    await until(lambda: surroundings.told(sent) == [("SENT", 10), ("SENT", 10)])
    assert surroundings.directory.resolved.count(surroundings.sender.orders[str(sent)].type) == 1
    assert surroundings.inbox.people(sent, Kind.ITEM) == PEOPLE


async def test_a_lost_report_comes_when_the_chunk_is_sent_again(
    surroundings: Site, dispatcher: Caller
) -> None:
    """The chunk goes out under the next epoch, unchanged; the inbox merges it once and reports it again."""
    surroundings.inbox.is_mute = True
    sent = await surroundings.send(now_on_both(PEOPLE))
    await until(lambda: len(surroundings.inbox.of(sent)) == 1)
    surroundings.inbox.is_mute = False
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])
    (arrival,) = surroundings.inbox.of(sent).values()
    assert arrival.members == PEOPLE
    assert arrival.epochs[:2] == [1, 2]
    assert await dispatcher.ledger(sent) == {("in_app", "delivered"): 10, ("realtime", "sent"): 10}


@pytest.mark.parametrize("refusal", [IllegalState(), SenderLostRight()])
async def test_an_order_that_is_refused_is_dropped(
    surroundings: Site,
    dispatcher: Caller,
    admin: asyncpg.Connection,
    refusal: IllegalState | SenderLostRight,
) -> None:
    """The sender knows why: nothing is planned, told or put aside."""
    broadcast = surroundings.add(now_on_both(PEOPLE))
    surroundings.sender.refusals[str(broadcast)] = refusal
    await surroundings.announce(broadcast)
    marker = await surroundings.send(now_on_both(PEOPLE))
    await until(lambda: surroundings.told(marker) != [])
    await until(lambda: str(broadcast) in surroundings.sender.asked)
    assert surroundings.told(broadcast) == []
    assert await letters(admin, broadcast) == []
    assert await admin.fetchval("SELECT count(*) FROM dispatches WHERE broadcast_id = $1", broadcast) == 0
    # Inboxes are told of what begins, and of nothing that the sender holds back.
    await until(lambda: str(marker) in surroundings.inbox.begun)
    assert str(broadcast) not in surroundings.inbox.begun


async def test_a_broadcast_that_nobody_knows_is_put_aside(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """The message is not tried again."""
    stranger = uuid4()
    await surroundings.announce(stranger)
    await until_equal([("broadcast.due.high", None, "UNKNOWN_BROADCAST")], lambda: letters(admin, stranger))
    assert surroundings.sender.asked.count(str(stranger)) == 1


@pytest.mark.parametrize(
    "failure",
    [
        NotFound("A wedding that the targeting names does not exist."),
        IllegalState("A segment that the targeting names is not active."),
    ],
)
async def test_an_audience_that_is_gone_fails_the_broadcast(
    surroundings: Site,
    dispatcher: Caller,
    admin: asyncpg.Connection,
    failure: NotFound | IllegalState,
) -> None:
    """What does not exist any more, or is out of use, is not waited for: the sender hears that it failed, and why."""
    broadcast = surroundings.add(now_on_both(PEOPLE))
    surroundings.decision(broadcast).failure = failure
    await surroundings.announce(broadcast)
    await until(lambda: surroundings.told(broadcast) == [("FAILED", 0)])
    errors = [each.error for each in surroundings.states if each.broadcast_id == str(broadcast)]
    assert errors == [f"{failure.reason_name}: {failure.message}"]
    assert await letters(admin, broadcast) == [("broadcast.due.high", None, "UNRESOLVABLE_AUDIENCE")]


async def test_a_neighbour_that_is_out_of_reach_is_waited_for(surroundings: Site, dispatcher: Caller) -> None:
    """The message comes again until the directory answers; meanwhile others are not kept waiting."""
    broadcast = surroundings.add(now_on_both(PEOPLE))
    surroundings.decision(broadcast).failure = DependencyUnavailable()
    await surroundings.announce(broadcast)
    name = surroundings.sender.orders[str(broadcast)].type
    await until(lambda: name in surroundings.directory.resolved)
    other = await surroundings.send(now_on_both(PEOPLE))
    await until(lambda: surroundings.told(other) == [("SENT", 10)])
    surroundings.decision(broadcast).failure = None
    await until(lambda: surroundings.told(broadcast) == [("SENT", 10)])


async def test_a_broadcast_that_defeats_every_attempt_fails(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """After many attempts that ended in a crash or a defect it is put aside, and its neighbours go on."""
    broadcast = surroundings.add(now_on_both(PEOPLE))
    await admin.execute(
        "INSERT INTO plan_attempts (broadcast_id, attempts, at) VALUES ($1, 20, now())", broadcast
    )
    await surroundings.announce(broadcast, epoch=2)
    await until(lambda: surroundings.told(broadcast) == [("FAILED", 0)])
    assert await letters(admin, broadcast) == [("broadcast.due.high", None, "DEFECT")]
    assert str(broadcast) not in surroundings.sender.asked


async def test_a_defect_is_counted_and_an_outage_is_not(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """A snapshot that contradicts itself is the message's own fault, a directory that is away is not."""
    broken, waiting = surroundings.add(now_on_both(PEOPLE)), surroundings.add(now_on_both(PEOPLE))
    surroundings.decision(broken).targeted = 11
    surroundings.decision(waiting).failure = DependencyUnavailable()

    async def attempts(broadcast_id: UUID) -> int | None:
        count: int | None = await admin.fetchval(
            "SELECT attempts FROM plan_attempts WHERE broadcast_id = $1", broadcast_id
        )
        return count

    for each in (broken, waiting):
        await surroundings.announce(each, epoch=2)
    await until_equal(1, lambda: attempts(broken))
    await until(lambda: str(waiting) in surroundings.sender.asked)
    await until_equal(None, lambda: attempts(waiting))
    surroundings.decision(broken).targeted = 10
    surroundings.decision(waiting).failure = None
    await until(lambda: surroundings.told(broken) == surroundings.told(waiting) == [("SENT", 10)])
    assert await attempts(broken) is None


async def test_an_expired_broadcast_is_not_dispatched(surroundings: Site, dispatcher: Caller) -> None:
    """Nobody is asked for, nobody is targeted, and the sender hears that it expired."""
    broadcast = surroundings.add(now_on_both(PEOPLE), expires_at=datetime(2026, 1, 1, tzinfo=UTC))
    await surroundings.announce(broadcast)
    await until(lambda: surroundings.told(broadcast) == [("EXPIRED", 0)])
    assert surroundings.sender.orders[str(broadcast)].type not in surroundings.directory.resolved
    await surroundings.announce(broadcast, epoch=2)
    await until(lambda: surroundings.told(broadcast) == [("EXPIRED", 0)] * 2)


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("broadcast.due.high", b"\xff\xff no protobuf"),
        ("broadcast.due.high", events_pb2.BroadcastDue(broadcast_id="nobody").SerializeToString()),
    ],
)
async def test_what_is_no_message_is_put_aside(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection, subject: str, payload: bytes
) -> None:
    """It is not tried again, and says nothing of what was in it."""
    await admin.execute("DELETE FROM dead_letters")
    await surroundings.publisher.publish(subject, payload, str(uuid4()))
    await until_equal([(subject, None, "BROKEN_MESSAGE")], lambda: letters(admin, None))


def report(broadcast_id: str, chunk: int, size: int, outcome: int = 1) -> bytes:
    """What an inbox that has gone wrong may say."""
    message = events_pb2.DeliveryReport(broadcast_id=broadcast_id, chunk=chunk, size=size)
    message.outcome = events_pb2.ReportOutcome.ValueType(outcome)
    return events_pb2.DeliveryReports(reports=[message]).SerializeToString()


async def test_reports_that_cannot_be_are_put_aside(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """Broken ones, and those about chunks that were never sent; true ones beside them count."""
    await admin.execute("DELETE FROM dead_letters")
    stranger = uuid4()
    sent = await surroundings.send(now_on_both(PEOPLE))
    for payload in (
        report("nobody", 0, 1),
        report(str(stranger), 0, 1, outcome=0),
        report(str(stranger), -1, 1),
        report(str(stranger), 3, 2**62),
    ):
        await surroundings.inbox.messaging.publish(subjects.DELIVERY_REPORT, payload, str(uuid4()))
    unknown = [("delivery.report", 3, "UNKNOWN_CHUNK")]
    await until_equal(unknown, lambda: letters(admin, stranger))
    await until_equal([("delivery.report", None, "BROKEN_MESSAGE")], lambda: letters(admin, None))
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])


async def test_a_merge_of_another_size_is_not_believed(
    surroundings: Site, dispatcher: Caller, admin: asyncpg.Connection
) -> None:
    """The chunk stays pending in the ledger, is sent again, and counts once the inbox says its true size."""
    surroundings.inbox.is_mute = True
    sent = await surroundings.send(now_on_both(PEOPLE))
    await until(lambda: len(surroundings.inbox.of(sent)) == 1)
    await surroundings.inbox.messaging.publish(
        subjects.DELIVERY_REPORT, report(str(sent), 0, 9), str(uuid4())
    )
    await until_equal([("delivery.report", 0, "SIZE_DIFFERS")], lambda: letters(admin, sent))
    assert await dispatcher.ledger(sent) == {("in_app", "pending"): 10, ("realtime", "pending"): 10}
    surroundings.inbox.is_mute = False
    await until(lambda: surroundings.told(sent) == [("SENT", 10)])
