"""How long broadcasts and first answers are kept, and that none goes that is shown, unfinished or critical."""

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from functools import partial
from uuid import uuid4

import grpc
import pytest
from wedsync.broadcast.v1 import sender_pb2
from wedsync.broadcast.v1.inbox_pb2_grpc import InboxServiceStub

from services.sender.retention import RetentionTerms, own_cleaner
from shared.channels import open_channel
from shared.cleaning import Batch, Cleaned, Cleaner, Hasty
from shared.clock import SystemClock
from shared.database import connect
from shared.errors import DependencyUnavailable
from shared.settings import Address, Environment
from shared.tls import Transport
from tests.integration.sender.limits import counted, quota, sent_before
from tests.integration.sender.records import Recorded, forget_all, put_on_record
from tests.integration.sender.site import Metadata, ServingSite, a_send
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

TERMS = RetentionTerms.read(Environment({}))
_END = """
    UPDATE sender.broadcasts
    SET ended_at = now() - $2::interval, expires_at = scheduled_for + $3::interval
    WHERE broadcast_id = $1
"""


@pytest.fixture
async def cleaner(site: ServingSite) -> AsyncIterator[Cleaner]:
    """The sender's own, by the usual settings. What takes long is not broken off: machines that test may be busy."""
    await empty(site)
    url = site.database.url("sender", "worker")
    worked = await connect(url, application_name="test")
    address = Address.parse(site.neighbours.address)
    async with open_channel("inbox", address, Transport(), lambda: "token") as channel:
        own = own_cleaner(worked, url, InboxServiceStub(channel), TERMS, SystemClock())
        own._opening = partial(connect, url, application_name="test")
        yield own
    await worked.close()
    await empty(site)


async def empty(site: ServingSite) -> None:
    """Nothing was ever sent."""
    await forget_all(site.admin)
    await site.admin.execute(
        "DELETE FROM sender.requests; DELETE FROM sender.outbox; DELETE FROM sender.counted_sends"
    )


async def clean_up(cleaner: Cleaner, *, dry_run: bool = False) -> dict[str, int]:
    """Clean up once; how much of each kind."""
    cleaned: list[Cleaned] = await cleaner.clean_up(dry_run=dry_run)
    assert [each for each in cleaned if each.error] == []
    return {each.what: each.count for each in cleaned}


async def ended(site: ServingSite, days: float, *, expires: timedelta | None = None, **fields: object) -> str:
    """The id of a broadcast that came to its end so long ago, and expires so long after it was due."""
    recorded = Recorded("somebody", **fields)  # type: ignore[arg-type]
    await put_on_record(site.admin, [recorded])
    await site.admin.execute(_END, recorded.broadcast_id, timedelta(days=days), expires)
    return str(recorded.broadcast_id)


async def kept(site: ServingSite) -> set[str]:
    """The broadcasts that are still there."""
    return {
        str(row["broadcast_id"])
        for row in await site.admin.fetch("SELECT broadcast_id FROM sender.broadcasts")
    }


EXPIRED, NOT_YET = timedelta(seconds=1), timedelta(days=10_000)


async def test_a_broadcast_goes_when_nothing_shows_it_any_more(site: ServingSite, cleaner: Cleaner) -> None:
    """After 90 days, with its wall; not while it is in somebody's inbox, however long that is."""
    old = await ended(site, 90.01, wall=(str(uuid4()),))
    young, shown = await ended(site, 89.99), await ended(site, 400)
    site.neighbours.inbox.shown = {shown}
    assert (await clean_up(cleaner))["broadcasts"] == 1
    assert await kept(site) == {young, shown}
    assert await site.admin.fetchval("SELECT count(*) FROM sender.walls WHERE broadcast_id = $1", old) == 0


async def test_an_expired_one_goes_thirty_days_after_its_end(site: ServingSite, cleaner: Cleaner) -> None:
    """Nobody is shown it, so no inbox is asked; one that expires later is kept on."""
    await ended(site, 30.01, expires=EXPIRED)
    young, open_still = await ended(site, 29.99, expires=EXPIRED), await ended(site, 89, expires=NOT_YET)
    site.neighbours.inbox.is_down = True
    assert (await clean_up(cleaner))["broadcasts"] == 1
    assert await kept(site) == {young, open_still}


@pytest.mark.parametrize("state", ["sent", "failed", "cancelled", "expired", "rejected"])
async def test_every_end_is_one(site: ServingSite, cleaner: Cleaner, state: str) -> None:
    """However it came to it."""
    await ended(site, 91, state=state)
    assert (await clean_up(cleaner))["broadcasts"] == 1
    assert await kept(site) == set()


@pytest.mark.parametrize("state", ["awaiting_approval", "pending", "dispatching"])
async def test_what_is_under_way_is_never_removed(site: ServingSite, cleaner: Cleaner, state: str) -> None:
    """It has no end, so none was long ago."""
    waiting = Recorded("somebody", state=state)
    await put_on_record(site.admin, [waiting])
    assert (await clean_up(cleaner))["broadcasts"] == 0
    assert await kept(site) == {str(waiting.broadcast_id)}


async def test_critical_ones_are_kept_for_good(site: ServingSite, cleaner: Cleaner) -> None:
    """With their receipts, which would be about nothing without them."""
    critical = await ended(site, 4_000, expires=EXPIRED, priority=1)
    assert (await clean_up(cleaner))["broadcasts"] == 0
    assert await kept(site) == {critical}


@pytest.mark.parametrize(
    ("state", "unfinished"),
    [("sent", "cancel_requested_at = now()"), ("cancelled", "retract = true, retracted = false")],
)
async def test_a_cancel_is_finished_first(
    site: ServingSite, cleaner: Cleaner, state: str, unfinished: str
) -> None:
    """What still has to be taken out of inboxes is known until it is."""
    # Otherwise the sender itself would finish it meanwhile.
    site.neighbours.dispatcher.is_down = True
    cancelling = await ended(site, 400, state=state)
    await site.admin.execute(
        f"UPDATE sender.broadcasts SET {unfinished} WHERE broadcast_id = $1",  # noqa: S608
        cancelling,
    )
    assert (await clean_up(cleaner))["broadcasts"] == 0
    assert await kept(site) == {cancelling}


async def test_the_end_is_noted_whatever_brought_it(site: ServingSite, cleaner: Cleaner) -> None:
    """As the state moves, and not before: from then on the time runs."""
    _, admin = site.person("admin")
    broadcast_id = (await site.send(admin, a_send())).broadcast.broadcast_id
    query = "SELECT ended_at IS NOT NULL FROM sender.broadcasts WHERE broadcast_id = $1"
    await site.plan(broadcast_id)
    assert await site.admin.fetchval(query, broadcast_id) is False
    await site.report(broadcast_id, "sent")
    await until_equal("sent", lambda: site.state(broadcast_id))
    assert await site.admin.fetchval(query, broadcast_id) is True
    assert (await clean_up(cleaner))["broadcasts"] == 0


async def test_more_than_a_page_goes_around_those_that_are_shown(site: ServingSite, cleaner: Cleaner) -> None:
    """Each is looked at once, whatever stays among them; a dry run counts the same, ahead of what leaves inboxes."""
    ids = [await ended(site, 100 + place / 100) for place in range(230)]
    inbox = site.neighbours.inbox
    inbox.shown, inbox.leaving = set(ids[::3]), set(ids[::6])
    counted = await clean_up(cleaner, dry_run=True)
    assert counted["broadcasts"] == len(ids) - len(inbox.shown - inbox.leaving)
    assert await clean_up(cleaner, dry_run=True) == counted
    assert await kept(site) == set(ids)
    inbox.shown -= inbox.leaving
    inbox.asked.clear()
    assert await clean_up(cleaner) == counted
    assert sorted(inbox.asked) == sorted(ids)
    assert await kept(site) == inbox.shown
    assert await clean_up(cleaner) == dict.fromkeys(counted, 0)


async def test_nothing_goes_on_a_guess(site: ServingSite, cleaner: Cleaner) -> None:
    """Without the inbox nobody knows whether a broadcast is shown: it stays, and the rest is done."""
    asked = await ended(site, 400)
    await old_answers(site, [25])
    site.neighbours.inbox.is_down = True
    cleaned = {each.what: each for each in await cleaner.clean_up()}
    assert (cleaned["broadcasts"].count, cleaned["broadcasts"].error) == (0, "DEPENDENCY_UNAVAILABLE")
    assert (cleaned["requests"].count, cleaned["requests"].error) == (1, "")
    assert await kept(site) == {asked}


async def test_after_a_run_that_was_broken_off_the_next_looks_at_all(
    site: ServingSite, cleaner: Cleaner
) -> None:
    """Also at those that were shown while the first one passed."""
    ids = [await ended(site, 100) for _ in range(120)]
    inbox, broadcasts = site.neighbours.inbox, cleaner._chores[0]
    database = await cleaner._opening()
    hasty = Hasty(database, SystemClock())
    inbox.shown = set(ids)
    assert await broadcasts.remove(hasty, 100) == Batch(0, is_last=False)
    inbox.is_down = True
    with pytest.raises(DependencyUnavailable):
        await broadcasts.remove(hasty, 100)
    await database.close()
    inbox.is_down, inbox.shown = False, set()
    assert (await clean_up(cleaner, dry_run=True))["broadcasts"] == len(ids)
    assert (await clean_up(cleaner))["broadcasts"] == len(ids)


async def old_answers(site: ServingSite, hours: Iterable[float]) -> None:
    """First answers that were given so long ago."""
    await site.admin.executemany(
        "INSERT INTO sender.requests (caller, method, request_id, body_hash, response, at)"
        " VALUES ('billing', 'Send', $1, $2, '', now() - $3::interval)",
        [(uuid4(), bytes(32), timedelta(hours=each)) for each in hours],
    )


async def test_an_answer_is_given_again_for_a_day(site: ServingSite, cleaner: Cleaner) -> None:
    """Then its request_id is a new one."""
    await old_answers(site, [23.9, 24.1, 100, 1_000])
    assert (await clean_up(cleaner, dry_run=True))["requests"] == 3
    assert (await clean_up(cleaner))["requests"] == 3
    assert await site.count("requests") == 1


DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
PAST = [DAY + HOUR + number * MINUTE for number in range(1, 8)]


async def test_sends_that_count_no_more_go_in_small_parts(site: ServingSite, cleaner: Cleaner) -> None:
    """Also where several were sent at one moment; what counts, or did an hour ago, stays."""
    user_id, admin = site.person("admin")
    other = str(uuid4())
    await sent_before(site, user_id, *PAST, DAY + MINUTE, DAY - MINUTE, HOUR - MINUTE)
    await sent_before(site, other, *PAST)
    before = await quota(site, admin)
    assert (await clean_up(cleaner, dry_run=True))["counted sends"] == 2 * len(PAST)
    database = await cleaner._opening()
    hasty, batches = Hasty(database, SystemClock()), []
    while not batches or not batches[-1].is_last:
        batches.append(await cleaner._chores[2].remove(hasty, 3))
    await database.close()
    assert sum(each.removed for each in batches) == 2 * len(PAST)
    assert max(each.removed for each in batches) <= 4
    assert (await counted(site, user_id), await counted(site, other)) == (3, 0)
    assert await quota(site, admin) == before
    assert (before.hour_remaining, before.day_remaining) == (24, 98)


async def test_who_has_only_past_sends_begins_anew(site: ServingSite, cleaner: Cleaner) -> None:
    """With all that a limit allows, and the next send is counted as the first."""
    user_id, admin = site.person("admin")
    await sent_before(site, user_id, *PAST)
    assert (await clean_up(cleaner))["counted sends"] == len(PAST)
    assert [(await site.send(admin)).quota.hour_remaining for _ in range(2)] == [24, 23]
    ordinals = await site.admin.fetch(
        "SELECT ordinal FROM sender.counted_sends WHERE caller = $1 ORDER BY at", user_id
    )
    assert [row["ordinal"] for row in ordinals] == [1, 2]


async def test_a_sender_does_it_by_itself(site: ServingSite) -> None:
    """Now and then; nobody has to ask."""
    name = str(uuid4())
    await sent_before(site, name, *PAST)
    await site.restart(SENDER_RETENTION_INTERVAL_S="1")
    await until_equal(0, lambda: counted(site, name))


async def test_announcements_go_a_week_after_they_were_over(site: ServingSite, cleaner: Cleaner) -> None:
    """Those that wait for their time stay, however long ago they were written."""
    await site.admin.execute(
        "INSERT INTO sender.outbox (key, subject, payload, due_at, rank, settle, state, created_at)"
        " SELECT 'row ' || number, 'broadcast.due.low', '', now() + interval '1 year', 3, 'report',"
        " CASE WHEN number < 3 THEN 'done' ELSE 'pending' END, now() - interval '8 days'"
        " FROM generate_series(1, 4) AS number"
    )
    assert (await clean_up(cleaner, dry_run=True))["outbox"] == 2
    assert (await clean_up(cleaner))["outbox"] == 2
    assert await site.count("outbox") == 2


async def called(
    site: ServingSite, caller: Metadata, *, dry_run: bool
) -> dict[str, sender_pb2.ServiceCleanUp]:
    """What CleanUp answers, by service."""
    answer = await site.stub.CleanUp(sender_pb2.CleanUpRequest(dry_run=dry_run), metadata=caller)
    return {each.service: each for each in answer.services}


@pytest.mark.parametrize("dry_run", [True, False])
async def test_every_service_cleans_up_and_answers(
    site: ServingSite, cleaner: Cleaner, *, dry_run: bool
) -> None:
    """Each once, inboxes before broadcasts: what they stop showing goes in the same call."""
    old = await ended(site, 400)
    inbox = site.neighbours.inbox
    inbox.shown, inbox.leaving = {old}, {old}
    _, admin = site.person("admin")
    answer = await called(site, admin, dry_run=dry_run)
    counts = {name: {each.what: each.count for each in one.cleaned} for name, one in answer.items()}
    assert counts == {
        "sender": {"broadcasts": 1, "requests": 0, "counted sends": 0, "outbox": 0},
        "inbox": {"items": 5},
        "dispatcher": {"dispatches": 3},
        "preferences": {"log": 7},
    }
    told = (inbox, site.neighbours.dispatcher, site.neighbours.directory)
    assert [each.cleaned for each in told] == [[dry_run]] * 3
    assert await kept(site) == ({old} if dry_run else set())
    assert all(each.HasField("longest_batch") != dry_run for each in answer["sender"].cleaned)


async def test_a_repeated_clean_up_gets_the_first_answer(site: ServingSite, cleaner: Cleaner) -> None:
    """And removes nothing more, here or anywhere else."""
    await ended(site, 400)
    _, admin = site.person("admin")
    request = sender_pb2.CleanUpRequest(request_id=str(uuid4()))
    answer = await site.stub.CleanUp(request, metadata=admin)
    later = await ended(site, 400)
    assert await site.stub.CleanUp(request, metadata=admin) == answer
    assert (await kept(site), site.neighbours.inbox.cleaned) == ({later}, [False])


async def test_who_cannot_be_reached_keeps_no_other_back(site: ServingSite, cleaner: Cleaner) -> None:
    """The answer says who it was; the others are done, and what depends on it is left."""
    await ended(site, 31, expires=EXPIRED)
    asked = await ended(site, 400)
    site.neighbours.inbox.is_down = site.neighbours.directory.is_down = True
    answer = await called(site, site.service("dispatch.operate"), dry_run=False)
    errors = {name: one.error for name, one in answer.items()}
    down = "DEPENDENCY_UNAVAILABLE"
    assert errors == {"sender": "", "inbox": down, "dispatcher": "", "preferences": down}
    (broadcasts,) = [each for each in answer["sender"].cleaned if each.what == "broadcasts"]
    assert broadcasts.error == down
    assert asked in await kept(site)


async def test_only_operators_clean_up(site: ServingSite) -> None:
    """Nobody else learns what there is."""
    _, coordinator = site.person("coordinator")
    for caller in (coordinator, site.service("broadcast.send")):
        refusal = await refusal_of(called(site, caller, dry_run=True))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
    assert site.neighbours.inbox.cleaned == []
