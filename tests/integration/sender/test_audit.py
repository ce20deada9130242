"""The audit log: one entry for each thing that it is about, whatever is repeated, interrupted or refused."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import grpc
import pytest
from structlog.testing import capture_logs
from wedsync.broadcast.v1 import common_pb2, dispatcher_pb2, sender_pb2

from shared.failpoints import armed
from tests.integration.sender.audit_log import about, listed, verified, word
from tests.integration.sender.site import Metadata, ServingSite, Site, a_send
from tests.integration.sender.test_cancel import cancel, finish_all
from tests.integration.sender.waiting import approve, reject, waiting
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

TEXTS = ("New seating plans", "Try them.", "Wrong date.", "Amara")


def a_critical_send(**fields: object) -> sender_pb2.SendBroadcastRequest:
    """A critical send that an admin may make."""
    usual = {"type": "security.alert", "priority": common_pb2.PRIORITY_CRITICAL}
    return a_send(**(usual | fields))


def an_event(**fields: object) -> sender_pb2.RecordedAuditEvent:
    """What the preferences service may tell, with some fields otherwise."""
    event = sender_pb2.RecordedAuditEvent(
        event_id=str(uuid4()),
        actor="forms",
        action=sender_pb2.AUDIT_ACTION_ROLE_CHANGED,
        user_id=str(uuid4()),
        role_before="couple",
        role_after="coordinator",
    )
    event.time.GetCurrentTime()
    event.MergeFrom(sender_pb2.RecordedAuditEvent(**fields))  # type: ignore[arg-type]
    return event


async def record(site: Site, *events: sender_pb2.RecordedAuditEvent) -> None:
    """What another service does."""
    await site.stub.RecordAuditEvents(
        sender_pb2.RecordAuditEventsRequest(events=events),
        metadata=site.service("internal", name="preferences"),
    )


async def test_critical_send_is_on_record(site: Site) -> None:
    """By whom, of which type, about which wedding, for how many; and an ordinary one is not."""
    user_id, admin = site.person("admin")
    wedding_id = site.wedding(user_id)
    sent = await site.send(
        admin, a_critical_send(type="wedding.emergency", wedding_id=wedding_id, targeting={})
    )
    (event,) = await listed(site, broadcast_id=sent.broadcast.broadcast_id)
    assert (word(event), event.actor, event.broadcast_type, event.wedding_id, event.targeted) == (
        "critical_accepted",
        user_id,
        "wedding.emergency",
        wedding_id,
        1,
    )
    assert event.source == "sender"
    assert abs(event.time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds() < 60
    ordinary = await site.send(admin)
    assert await about(site, ordinary.broadcast.broadcast_id) == []


async def test_service_account_is_on_record_by_its_name(site: Site) -> None:
    """Not by an id of a person."""
    sent = await site.send(site.service("broadcast.send", name="monitoring"), a_critical_send())
    (event,) = await listed(site, broadcast_id=sent.broadcast.broadcast_id)
    assert event.actor == "monitoring"
    assert await listed(site, actor="monitoring") == [event]


async def test_cancel_is_on_record(site: Site) -> None:
    """Who asked for it, which need not be who sent it, and what it came to."""
    _, author = site.person("admin")
    canceller, other = site.person("admin")
    broadcast_id = (await site.send(author)).broadcast.broadcast_id
    await site.plan(broadcast_id)
    site.neighbours.dispatcher.dispatches[broadcast_id] = dispatcher_pb2.Dispatch(targeted=10)
    site.neighbours.inbox.engagements[broadcast_id] = common_pb2.Engagement(delivered=4)
    await cancel(site, other, broadcast_id, reason="Wrong date.", retract=True)
    done, asked = await listed(site, broadcast_id=broadcast_id)
    assert (word(asked), asked.actor, asked.retract, asked.HasField("stopped")) == (
        "cancel_requested",
        canceller,
        True,
        False,
    )
    assert (word(done), done.actor, done.retract) == ("cancelled", "sender_worker", True)
    assert (done.stopped, done.already_sent) == (6, 4)


async def test_what_is_cancelled_again_is_on_record_once(site: Site) -> None:
    """Until it is also to be taken back, which is another thing that somebody asks for."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    for retract in (False, False, True, True, False):
        await cancel(site, admin, broadcast_id, retract=retract)
    events = await listed(site, broadcast_id=broadcast_id)
    assert [(word(event), event.retract) for event in reversed(events)] == [
        ("cancel_requested", False),
        ("cancelled", False),
        ("cancel_requested", True),
        ("cancelled", True),
    ]


async def test_nothing_that_anybody_wrote_is_in_it(site: Site) -> None:
    """No title, no text, no reason, no name."""
    _, admin = site.person("admin")
    wedding_id = site.wedding()
    sent = await site.send(
        admin, a_critical_send(type="wedding.emergency", wedding_id=wedding_id, targeting={})
    )
    await cancel(site, admin, sent.broadcast.broadcast_id, reason="Wrong date.")
    rows = await site.admin.fetch("SELECT audit_log::text AS row FROM sender.audit_log")
    assert rows
    assert [row["row"] for row in rows if any(text in row["row"] for text in TEXTS)] == []


async def test_repeated_send_is_on_record_once(site: Site) -> None:
    """Ten at once under one request_id, and one more."""
    _, admin = site.person("admin")
    request = a_critical_send(request_id=str(uuid4()))
    answers = await asyncio.gather(*(site.send(admin, request) for _ in range(10)), site.send(admin, request))
    (broadcast_id,) = {answer.broadcast.broadcast_id for answer in answers}
    assert await about(site, broadcast_id) == ["critical_accepted"]


async def test_send_whose_answer_is_lost_is_on_record_once(site: Site) -> None:
    """A process that dies before the commit leaves nothing, one that dies after it leaves the entry."""
    user_id, admin = site.person("admin")
    request = a_critical_send(request_id=str(uuid4()))
    for moment, entries in (("before_commit", 0), ("after_commit", 1)):
        with armed(f"sender.send.{moment}=error@1"):
            await refusal_of(site.send(admin, request))
        assert len(await listed(site, actor=user_id)) == entries
    sent = await site.send(admin, request)
    assert await about(site, sent.broadcast.broadcast_id) == ["critical_accepted"]


async def test_simultaneous_cancels_are_on_record_once(site: Site) -> None:
    """Ten at once: one asks, one is done."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    with armed("sender.cancel.after_stop=delay:0.02"):
        await asyncio.gather(*(cancel(site, admin, broadcast_id) for _ in range(10)))
    assert await about(site, broadcast_id) == ["cancel_requested", "cancelled"]


async def test_cancel_that_another_process_finishes_is_on_record_once(site: Site) -> None:
    """Whoever asked is in the first entry, whatever became of them."""
    user_id, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    with armed("sender.cancel.after_stop=error@1"):
        await refusal_of(cancel(site, admin, broadcast_id))
    assert await about(site, broadcast_id) == ["cancel_requested"]
    assert await finish_all(site) == 1
    done, asked = await listed(site, broadcast_id=broadcast_id)
    assert (word(asked), asked.actor, word(done)) == ("cancel_requested", user_id, "cancelled")


async def test_without_an_entry_nothing_critical_is_sent(site: Site) -> None:
    """When the log cannot be written, the send is refused and leaves nothing; an ordinary one goes on."""
    _, admin = site.person("admin")
    before = await site.count("broadcasts")
    await site.admin.execute("REVOKE INSERT ON sender.audit_log FROM sender_api")
    try:
        refusal = await refusal_of(site.send(admin, a_critical_send()))
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert await site.count("broadcasts") == before
        broadcast_id = (await site.send(admin)).broadcast.broadcast_id
        refusal = await refusal_of(cancel(site, admin, broadcast_id))
        assert refusal.code is grpc.StatusCode.INTERNAL
        assert await site.state(broadcast_id) == "pending"
    finally:
        await site.admin.execute("GRANT INSERT ON sender.audit_log TO sender_api")
    assert (await site.send(admin, a_critical_send())).broadcast.broadcast_id


async def test_send_that_is_not_critical_never_waits_for_the_chain(site: Site) -> None:
    """Whoever holds its end holds up critical sends alone, and those for no longer than that."""
    _, admin = site.person("admin")
    async with site.admin.transaction():
        await site.admin.execute(
            "INSERT INTO sender.audit_log (at, actor, action) VALUES (now(), 'postgres', 'erased')"
        )
        critical = asyncio.create_task(site.send(admin, a_critical_send()))
        await asyncio.gather(*(site.send(admin) for _ in range(20)))
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until_equal(1, lambda: site.admin.fetchval(query))
        assert not critical.done()
    assert await about(site, (await critical).broadcast.broadcast_id) == ["critical_accepted"]


@pytest.mark.parametrize(("decide", "action"), [(approve, "approved"), (reject, "rejected")])
async def test_decision_about_a_broadcast_is_on_record(
    site: Site, decide: Callable[..., Awaitable[object]], action: str
) -> None:
    """Once, by whoever decided, however often they say so; what did not come to pass is not, nor the reason."""
    _, author = site.person("admin")
    decider, other = site.person("admin")
    _, late = site.person("admin")
    broadcast_id = await waiting(site, author)
    await refusal_of(decide(site, author, broadcast_id))
    for _ in range(2):
        await decide(site, other, broadcast_id)
    for another in (approve, reject):
        await refusal_of(another(site, late, broadcast_id))
    accepted, decided = reversed(await listed(site, broadcast_id=broadcast_id))
    assert (word(accepted), word(decided), decided.actor) == ("critical_accepted", action, decider)


async def test_what_is_done_by_hand_is_on_record_by_its_login(site: Site) -> None:
    """An administrator who changes a row names nobody."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    await site.admin.execute(
        "UPDATE sender.broadcasts SET cancel_requested_at = now() WHERE broadcast_id = $1", UUID(broadcast_id)
    )
    (event,) = await listed(site, broadcast_id=broadcast_id)
    assert (word(event), event.actor) == ("cancel_requested", "postgres")
    await cancel(site, admin, broadcast_id)


async def test_what_others_saw_is_added_once_and_in_order(site: Site) -> None:
    """Told again whole or in part, one by one or at once, as from the service in the token."""
    events = [an_event(actor=f"forms-{number}") for number in range(50)]
    await record(site, *events[:20])
    await record(site, *events[10:30])
    await asyncio.gather(*(record(site, *events) for _ in range(8)))
    found = [
        event for event in reversed(await listed(site)) if event.event_id in {e.event_id for e in events}
    ]
    assert [event.event_id for event in found] == [event.event_id for event in events]
    assert {event.source for event in found} == {"preferences"}
    first = found[0]
    assert (word(first), first.actor, first.user_id) == ("role_changed", "forms-0", events[0].user_id)
    assert (first.role_before, first.role_after, first.time) == ("couple", "coordinator", events[0].time)


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": sender_pb2.AUDIT_ACTION_CRITICAL_ACCEPTED},
        {"action": sender_pb2.AUDIT_ACTION_WALL_REFUSED},
        {"action": 99},
        {"event_id": "x"},
        {"attempts": 1},
        {"user_id": "somebody"},
    ],
)
async def test_what_nobody_could_have_seen_is_refused(site: Site, wrong: dict[str, object]) -> None:
    """What is done to broadcasts no other service sees; and nothing of the call is added."""
    good = an_event()
    refusal = await refusal_of(record(site, good, an_event(**wrong)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields[0].startswith("events[1]")
    assert await listed(site, user_id=good.user_id) == []


async def refuse_some(site: ServingSite, caller: Metadata, wedding_id: str, broadcast_id: str) -> None:
    """One attempt at each wall of the sender."""
    by_id = {"broadcast_id": broadcast_id}
    about_it = {"type": "timeline.changed", "wedding_id": wedding_id}
    for call in (
        site.stub.SendBroadcast(a_send(targeting={}, **about_it), metadata=caller),
        site.stub.PreviewAudience(sender_pb2.PreviewAudienceRequest(**about_it), metadata=caller),
        site.stub.GetBroadcast(sender_pb2.GetBroadcastRequest(**by_id), metadata=caller),
        site.stub.CancelBroadcast(sender_pb2.CancelBroadcastRequest(**by_id), metadata=caller),
        site.stub.WatchBroadcast(sender_pb2.WatchBroadcastRequest(**by_id), metadata=caller).read(),
    ):
        await refusal_of(call)


async def test_attempts_at_a_wall_are_on_record_when_their_process_ends(site: ServingSite) -> None:
    """Each method that refused, with how often; whether the thing exists or not."""
    user_id, outsider = site.person("coordinator")
    _, admin = site.person("admin")
    wedding_id = site.wedding()
    broadcast_id = (await site.send(admin)).broadcast.broadcast_id
    await refuse_some(site, outsider, wedding_id, broadcast_id)
    await refuse_some(site, outsider, str(uuid4()), str(uuid4()))
    await site.restart()
    events = await listed(site, actor=user_id)
    assert {(word(event), event.method, event.attempts) for event in events} == {
        ("wall_refused", f"SenderService/{method}", 2)
        for method in (
            "SendBroadcast",
            "PreviewAudience",
            "GetBroadcast",
            "CancelBroadcast",
            "WatchBroadcast",
        )
    }
    assert {event.source for event in events} == {"sender"}
    assert all(event.time.seconds % 60 == 0 for event in events)


async def test_who_sees_everything_meets_no_wall(site: ServingSite) -> None:
    """An admin who mistypes an id has tried nothing."""
    user_id, admin = site.person("admin")
    missing = sender_pb2.GetBroadcastRequest(broadcast_id=str(uuid4()))
    await refusal_of(site.stub.GetBroadcast(missing, metadata=admin))
    await refusal_of(site.send(admin, a_send(type="timeline.changed", wedding_id=str(uuid4()), targeting={})))
    await site.restart()
    assert await listed(site, actor=user_id) == []


async def test_flood_of_attempts_neither_fills_nor_stalls_the_log(site: ServingSite) -> None:
    """1,200 by 300 callers are 101 entries a minute at most; critical sends get through meanwhile, with theirs."""
    _, admin = site.person("admin")
    outsiders = [site.person("coordinator") for _ in range(300)]
    wedding_id, limit = site.wedding(), asyncio.Semaphore(32)
    before = await site.count("audit_log")

    async def attempt(caller: Metadata) -> None:
        request = a_send(type="timeline.changed", wedding_id=wedding_id, targeting={})
        async with limit:
            assert (await refusal_of(site.send(caller, request))).reason in (
                "OUTSIDE_REACH",
                "TOO_MANY_CALLS",
            )

    flood = asyncio.gather(*(attempt(caller) for _, caller in outsiders for _ in range(4)))
    for _ in range(3):
        sent = await site.send(admin, a_critical_send())
        assert await about(site, sent.broadcast.broadcast_id) == ["critical_accepted"]
    await flood
    await site.restart()
    refused = [
        event
        for event in await listed(site, actions=[sender_pb2.AUDIT_ACTION_WALL_REFUSED])
        if event.position > before
    ]
    by_minute: dict[int, list[sender_pb2.AuditEvent]] = {}
    for event in refused:
        by_minute.setdefault(event.time.seconds, []).append(event)
    assert max(len(events) for events in by_minute.values()) <= 101
    assert {event.actor for event in refused} - {user_id for user_id, _ in outsiders} == {""}
    assert 1_000 < sum(event.attempts for event in refused) <= 1_200


async def test_end_of_the_log_is_kept_and_told(site: ServingSite) -> None:
    """Soon after an entry was added, in a table of its own and in a line that leaves the database; each end once."""
    _, admin = site.person("admin")
    with capture_logs() as logs:
        await site.restart(SENDER_AUDIT_CHECKPOINT_S="0.05")
        sent = await site.send(admin, a_critical_send())
        (event,) = await listed(site, broadcast_id=sent.broadcast.broadcast_id)
        query = "SELECT hash FROM sender.audit_checkpoints WHERE position = $1"
        await until_equal(event.hash, lambda: site.admin.fetchval(query, event.position))
        await until_equal(True, lambda: _told(logs, event))
        await site.restart(SENDER_AUDIT_CHECKPOINT_S="0.05")
    lines = [
        line for line in logs if line["event"] == "audit_checkpoint" and line["position"] == event.position
    ]
    assert [line["hash"] for line in lines] == [event.hash.hex()]
    assert not (await verified(site)).HasField("flaw")


async def _told(logs: list[dict[str, object]], event: sender_pb2.AuditEvent) -> bool:
    return any(line["event"] == "audit_checkpoint" and line["position"] == event.position for line in logs)
