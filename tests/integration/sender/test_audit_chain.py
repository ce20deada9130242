"""Whatever an owner of the database does to the audit log behind its back is found out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from wedsync.broadcast.v1 import sender_pb2

from services.sender.audit import BEGINNING, follow
from services.sender.audit_keeper import CheckpointKeeper
from services.sender.audit_store import AuditChain
from shared import database
from stack.provision import SuiteDatabase
from tests.integration.sender.audit_log import flaw, past_its_guards, verified
from tests.integration.sender.neighbours import Neighbours
from tests.integration.sender.site import Servers, ServingSite, Site, serving_site
from tests.integration.sender.test_audit import an_event, record
from tests.integration.shared.edge import refusal_of
from tests.integration.shared.polling import until_equal

ENTRIES = 400
KEPT = 300
"""Where the log's only checkpoint is."""


@pytest.fixture(scope="module")
async def sender_database(make_suite: Callable[..., Awaitable[SuiteDatabase]]) -> SuiteDatabase:
    """A log of this module's own: long enough to be read in parts, with a checkpoint that is not at its end."""
    suite = await make_suite("sender")
    worker = await database.connect(suite.url("sender", "worker"), application_name="sender")
    try:
        await _add(worker, KEPT)
        assert await CheckpointKeeper(AuditChain(worker), 60).keep()
        await _add(worker, ENTRIES - KEPT)
    finally:
        await worker.close()
    return suite


@pytest.fixture
async def site(
    tmp_path: Path, sender_database: SuiteDatabase, servers: Servers, beside: Neighbours
) -> AsyncIterator[ServingSite]:
    """A sender on that log, which adds no checkpoints while a test runs."""
    admin = await asyncpg.connect(sender_database.admin_url)
    await take_later_checkpoints(admin)
    never = {"SENDER_AUDIT_CHECKPOINT_S": "3600"}
    async with serving_site(tmp_path, sender_database, servers, beside, **never) as running:
        # It adds one when it begins.
        query = "SELECT max(position) FROM sender.audit_checkpoints"
        await until_equal(ENTRIES, lambda: admin.fetchval(query))
        await take_later_checkpoints(admin)
        yield running
    await admin.close()


async def take_later_checkpoints(admin: asyncpg.Connection) -> None:
    """Take away those that senders have added when they began and ended."""
    await admin.execute("SET session_replication_role TO replica")
    await admin.execute("DELETE FROM sender.audit_checkpoints WHERE position > $1", KEPT)
    await admin.execute("RESET session_replication_role")


async def _add(worker: database.Database, entries: int) -> None:
    await worker.execute(
        """
        INSERT INTO audit_log (at, source, actor, action, user_id, role_before, role_after)
        SELECT now(), 'preferences', 'forms', 'role_changed', gen_random_uuid(), 'couple', 'coordinator'
        FROM generate_series(1, $1::integer)
        """,
        entries,
    )


async def test_log_that_nobody_touched_is_right(site: Site) -> None:
    """To its end, with a checkpoint to keep, and again from there and up to there."""
    answer = await verified(site)
    assert (flaw(answer), answer.complete, answer.checked, answer.through.position) == (
        None, True, ENTRIES, ENTRIES,
    )  # fmt: skip
    for fields in ({"since": answer.through}, {"expected": answer.through}):
        again = await verified(site, **fields)
        assert (flaw(again), again.complete, again.through) == (None, True, answer.through)


async def test_log_is_checked_in_parts(site: Site) -> None:
    """Each goes on where the one before has ended, and they add up to all of it."""
    since, parts = sender_pb2.AuditCheckpoint(), []
    while True:
        answer = await verified(site, since=since, page_size=150)
        parts.append(answer.checked)
        since = answer.through
        if answer.complete:
            break
    assert parts == [150, 150, 100]
    assert (flaw(answer), since.position) == (None, ENTRIES)


SET = {
    "event_id": "gen_random_uuid()",
    "recorded_at": "recorded_at + interval '1 microsecond'",
    "at": "at - interval '1 day'",
    "source": "'sender'",
    "actor": "'somebody'",
    "action": "'team_left'",
    "broadcast_id": "gen_random_uuid()",
    "broadcast_type": "'security.alert'",
    "targeted": "1",
    "retract": "false",
    "stopped": "0",
    "already_sent": "0",
    "user_id": "gen_random_uuid()",
    "wedding_id": "gen_random_uuid()",
    "role_before": "NULL",
    "role_after": "'admin'",
    "segment_id": "gen_random_uuid()",
    "previous_hash": "sha256('x')",
    "hash": "sha256('x')",
}


@pytest.mark.parametrize("column", SET)
async def test_changed_entry_is_found(site: Site, column: str) -> None:
    """In any column, wherever it is in the log."""
    for position in (1, 200, ENTRIES):
        async with past_its_guards(site.admin):
            await site.admin.execute(
                f"UPDATE audit_log SET {column} = {SET[column]} WHERE position = $1",  # noqa: S608 names of ours
                position,
            )
            answer = await verified(site)
        assert (flaw(answer), answer.complete) == (("entry_changed", position), False)
        assert answer.through.position == position - 1
    assert flaw(await verified(site)) is None


async def test_every_column_is_looked_at(site: Site) -> None:
    """A new one that nobody hashes fails this; method and attempts are those of another action."""
    rows = await site.admin.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'sender.audit_log'::regclass AND attnum > 0"
    )
    guarded = {"position", "format", "method", "attempts"}
    assert {row["attname"] for row in rows} == SET.keys() | guarded


async def test_entry_of_the_first_form_stays_right(site: Site) -> None:
    """Written before there was another: it is hashed as it was then, and nobody can say that it is one."""
    async with past_its_guards(site.admin):
        for change in ("format = 1", "hash = audit_hash(audit_log)"):
            await site.admin.execute(f"UPDATE audit_log SET {change} WHERE position = $1", ENTRIES)  # noqa: S608
        assert flaw(await verified(site)) is None
        await site.admin.execute("UPDATE audit_log SET format = 2 WHERE position = $1", ENTRIES)
        assert flaw(await verified(site)) == ("entry_changed", ENTRIES)


async def test_action_that_none_of_ours_wrote_is_found(site: Site) -> None:
    """And shown, as what it is: nothing that we know."""
    async with past_its_guards(site.admin):
        await site.admin.execute("UPDATE audit_log SET action = 'nothing' WHERE position = 7")
        assert flaw(await verified(site)) == ("entry_changed", 7)
        request = sender_pb2.ListAuditEventsRequest(page_size=100)
        while True:
            page = await site.stub.ListAuditEvents(request, metadata=site.service("audit.read"))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    assert page.events[-7].action == sender_pb2.AUDIT_ACTION_UNSPECIFIED


@pytest.mark.parametrize("position", [1, 200, ENTRIES - 1])
async def test_removed_entry_is_found(site: Site, position: int) -> None:
    """At the beginning and in the middle; also when what follows moves up."""
    async with past_its_guards(site.admin):
        await site.admin.execute("DELETE FROM audit_log WHERE position = $1", position)
        assert flaw(await verified(site)) == ("entry_missing", position)
        await site.admin.execute("ALTER TABLE audit_log DROP CONSTRAINT audit_log_pkey")
        await site.admin.execute("UPDATE audit_log SET position = position - 1 WHERE position > $1", position)
        await site.admin.execute("ALTER TABLE audit_log ADD PRIMARY KEY (position)")
        assert flaw(await verified(site)) == ("entry_changed", position)


@pytest.mark.parametrize("left", [0, 100, KEPT - 1])
async def test_removed_tail_is_found(site: Site, left: int) -> None:
    """By the checkpoint beyond it, as long as the log does not reach that again."""
    async with past_its_guards(site.admin):
        await site.admin.execute("DELETE FROM audit_log WHERE position > $1", left)
        answer = await verified(site)
    assert (flaw(answer), answer.through.position) == (("tail_missing", left + 1), left)


async def test_tail_that_grew_again_is_found(site: Site) -> None:
    """Another entry is at the checkpoint's place, with another hash."""
    async with past_its_guards(site.admin):
        await site.admin.execute("DELETE FROM audit_log WHERE position > $1", KEPT - 1)
        await record(site, an_event(), an_event())
        assert flaw(await verified(site)) == ("checkpoint_differs", KEPT)


async def test_tail_beyond_every_checkpoint_is_found_by_who_has_kept_one(site: Site) -> None:
    """The database alone cannot know that; given what was kept elsewhere, it is told."""
    kept = (await verified(site)).through
    async with past_its_guards(site.admin):
        await site.admin.execute("DELETE FROM audit_log WHERE position > $1", KEPT + 10)
        assert flaw(await verified(site)) is None
        for fields in ({"since": kept}, {"expected": kept}):
            assert flaw(await verified(site, **fields)) == ("tail_missing", KEPT + 11)


REWRITE = """
DO $block$
DECLARE
    entry audit_log;
    before bytea;
BEGIN
    FOR entry IN SELECT * FROM audit_log ORDER BY position LOOP
        entry.actor := 'nobody';
        entry.previous_hash := coalesce(before, entry.previous_hash);
        entry.hash := audit_hash(entry);
        UPDATE audit_log SET actor = entry.actor, previous_hash = entry.previous_hash, hash = entry.hash
        WHERE position = entry.position;
        before := entry.hash;
    END LOOP;
END
$block$
"""


async def test_log_that_was_written_anew_is_found(site: Site) -> None:
    """By the checkpoint; and when that was written anew as well, by whoever has kept one elsewhere."""
    kept = (await verified(site)).through
    async with past_its_guards(site.admin):
        await site.admin.execute(REWRITE)
        assert flaw(await verified(site)) == ("checkpoint_differs", KEPT)
        await site.admin.execute(
            "UPDATE audit_checkpoints SET hash = audit_log.hash FROM audit_log "
            "WHERE audit_log.position = audit_checkpoints.position"
        )
        assert flaw(await verified(site)) is None
        for fields in ({"since": kept}, {"expected": kept}):
            assert flaw(await verified(site, **fields)) == ("checkpoint_differs", ENTRIES)


async def test_entry_that_was_replaced_is_found(site: Site) -> None:
    """It has the hash that fits it, and what follows does not follow it."""
    async with past_its_guards(site.admin):
        await site.admin.execute("UPDATE audit_log SET actor = 'nobody' WHERE position = 50")
        await site.admin.execute("UPDATE audit_log SET hash = audit_hash(audit_log) WHERE position = 50")
        assert flaw(await verified(site)) == ("chain_broken", 51)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("SET hash = sha256('x')", ("checkpoint_differs", KEPT)),
        ("SET position = 200", ("checkpoint_differs", 200)),
        ("SET position = 500", ("tail_missing", ENTRIES + 1)),
    ],
)
async def test_changed_checkpoint_is_found(site: Site, change: str, found: tuple[str, int]) -> None:
    """It does not agree with the log any more, and one of them is wrong."""
    async with past_its_guards(site.admin):
        await site.admin.execute(f"UPDATE audit_checkpoints {change}")
        assert flaw(await verified(site)) == found


async def test_checkpoint_that_was_made_up_is_told(site: Site) -> None:
    """Another hash, a place that the log has not; and what is no checkpoint at all is a bad field."""
    good = (await verified(site)).through
    forged = sender_pb2.AuditCheckpoint(position=good.position, hash=bytes(32))
    beyond = sender_pb2.AuditCheckpoint(position=good.position + 5, hash=good.hash)
    for name in ("since", "expected"):
        assert flaw(await verified(site, **{name: forged})) == ("checkpoint_differs", ENTRIES)
        assert flaw(await verified(site, **{name: beyond})) == ("tail_missing", ENTRIES + 1)
        for wrong in ({"position": 1}, {"position": 1, "hash": b"x"}, {"hash": bytes(32)}, {"position": -1}):
            refusal = await refusal_of(verified(site, **{name: sender_pb2.AuditCheckpoint(**wrong)}))
            assert refusal.fields[0].startswith(name)
    for size in (-1, 100_001):
        assert (await refusal_of(verified(site, page_size=size))).fields == ("page_size",)


async def test_entry_that_a_kept_checkpoint_names_is_missing(site: Site) -> None:
    """Told as missing from the middle, not as a tail that was cut off."""
    row = await site.admin.fetchrow("SELECT position, hash FROM sender.audit_log WHERE position = 120")
    kept = sender_pb2.AuditCheckpoint(position=row["position"], hash=row["hash"])
    async with past_its_guards(site.admin):
        await site.admin.execute("DELETE FROM audit_log WHERE position = 120")
        assert flaw(await verified(site, expected=kept)) == ("entry_missing", 120)


async def test_place_in_the_chain_is_not_for_who_adds_to_choose(site: Site) -> None:
    """Position, times and hashes that an INSERT brings along are not taken."""
    worker = await asyncpg.connect(site.database.url("sender", "worker"))
    async with past_its_guards(site.admin):
        await worker.execute(
            """
            INSERT INTO audit_log (
                position, format, recorded_at, at, actor, action, user_id, previous_hash, hash
            )
            VALUES (7, 1, '2000-01-01Z', now(), 'x', 'erased', $1, sha256('x'), sha256('x'))
            """,
            uuid4(),
        )
        rows = await site.admin.fetch("SELECT position, recorded_at FROM audit_log WHERE actor = 'x'")
        assert [(row["position"], row["recorded_at"].year > 2000) for row in rows] == [(ENTRIES + 1, True)]
        assert flaw(await verified(site)) is None
    await worker.close()


async def test_chain_that_is_checked_while_it_grows_is_right(site: Site) -> None:
    """Eight callers add, checkpoints are kept all the while, and no check in between finds anything."""
    worker = await database.connect(site.database.url("sender", "worker"), application_name="sender")
    chain, ended = AuditChain(worker), asyncio.Event()

    async def add() -> None:
        for _ in range(25):
            await record(site, an_event(), an_event())

    async def keep() -> None:
        while not ended.is_set():
            await CheckpointKeeper(chain, 60).keep()

    async def check() -> set[tuple[str, int] | None]:
        found = set()
        while not ended.is_set():
            found.add(flaw(await verified(site)))
        return found

    async with past_its_guards(site.admin):
        keeping, checking = asyncio.create_task(keep()), asyncio.create_task(check())
        await asyncio.gather(*(add() for _ in range(8)))
        ended.set()
        await keeping
        assert await checking == {None}
        entries = await chain.read_after(0, 10_000)
    await worker.close()
    assert [entry.position for entry in entries] == list(range(1, ENTRIES + 401))
    # The database chains and this process checks, each by an implementation of its own.
    assert follow(BEGINNING, entries, {})[1] is None
