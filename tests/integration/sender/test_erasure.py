"""Whoever is erased is in no broadcast's words or targeting any more; what they did stays on record."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from wedsync.broadcast.v1 import common_pb2, sender_pb2

from services.sender.privacy_store import ErasureStore
from tests.integration.sender.limits import persist, use_up
from tests.integration.sender.site import Metadata, ServingSite, a_send, ahead
from tests.integration.shared.edge import refusal_of

Code = grpc.StatusCode
NIL = str(UUID(int=0))
MARK = "Your salary is 4,711"
_COPIES = """
    INSERT INTO sender.broadcasts (
        broadcast_id, type, priority, title, message, everyone, user_ids, roles, tiers, segment_ids, wedding_ids,
        scheduled_for, created_by, created_by_service, created_at, targeted, state
    )
    SELECT gen_random_uuid(), 'tier.downgraded', priority, title, message, everyone, user_ids, roles, tiers,
        segment_ids, wedding_ids, scheduled_for, created_by, created_by_service, created_at, targeted, state
    FROM sender.broadcasts, generate_series(1, 120)
    WHERE broadcast_id = $1
"""


async def erase(site: ServingSite, user_id: str) -> None:
    """What the directory asks for about somebody whom it has erased."""
    site.neighbours.preferences.people.pop(user_id, None)
    request = sender_pb2.ErasePersonRequest(user_id=user_id)
    await site.stub.ErasePerson(request, metadata=site.service("internal", name="preferences"))


async def send_to(site: ServingSite, caller: Metadata, *user_ids: str, **fields: object) -> str:
    """A broadcast to some people by their ids."""
    request = a_send(
        targeting=common_pb2.Targeting(user_ids=user_ids),
        title=MARK,
        message=f"{MARK}.",
        action=common_pb2.Action(label="Open", url="/salaries/4711"),
        **fields,
    )
    return (await persist(site.stub, caller, request)).broadcast.broadcast_id


async def words(site: ServingSite, broadcast_id: str) -> tuple[str, str, str | None, list[str]]:
    """What is kept of a broadcast's words, and whom it names."""
    row = await site.admin.fetchrow(
        "SELECT title, message, action_url, user_ids FROM sender.broadcasts WHERE broadcast_id = $1",
        broadcast_id,
    )
    return row["title"], row["message"], row["action_url"], [str(each) for each in row["user_ids"]]


async def test_what_was_meant_for_them_alone_says_nothing_any_more(site: ServingSite) -> None:
    """Scheduled ones too, also about a wedding; and inboxes are told to fetch what they say now."""
    person, _ = site.person("couple")
    _, admin = site.person("admin")
    wedding_id = site.wedding(person)
    ids = [
        await send_to(site, admin, person),
        await send_to(site, admin, person, scheduled_for=ahead(days=7)),
        await send_to(site, admin, person, type="journey.updated", wedding_id=wedding_id),
    ]
    await erase(site, person)
    for each in ids:
        title, message, url, named = await words(site, each)
        assert (title, url, named) == ("Erased", None, [NIL])
        assert MARK not in message
    assert set(ids) <= set(site.neighbours.inbox.refreshed)


async def test_what_was_meant_for_others_too_keeps_its_words(site: ServingSite) -> None:
    """And says no more whom it named; how many is still to be seen."""
    (person, _), (other, _), (_, admin) = site.person("couple"), site.person("couple"), site.person("admin")
    shared = await send_to(site, admin, person, other)
    by_role = a_send(targeting=common_pb2.Targeting(user_ids=[person], roles=["florist"]), title=MARK)
    with_role = (await site.send(admin, by_role)).broadcast.broadcast_id
    await erase(site, person)
    title, _, url, named = await words(site, shared)
    assert (title, url, sorted(named)) == (MARK, "/salaries/4711", sorted([NIL, other]))
    assert (await words(site, with_role))[0] == MARK
    # The last of those for whom it was meant.
    await erase(site, other)
    assert (await words(site, shared))[0] == "Erased"


async def test_answers_of_others_are_repeated_without_them(site: ServingSite) -> None:
    """A retry is still the same send, and says neither the words nor the id."""
    (person, _), (_, admin) = site.person("couple"), site.person("admin")
    request = a_send(
        request_id=str(uuid4()), targeting=common_pb2.Targeting(user_ids=[person.upper()]), title=MARK
    )
    first = await site.send(admin, request)
    assert first.broadcast.title == MARK
    await erase(site, person)
    again = await site.send(admin, request)
    assert again.broadcast.broadcast_id == first.broadcast.broadcast_id
    assert (again.broadcast.title, list(again.broadcast.targeting.user_ids)) == ("Erased", [NIL])
    assert again.quota == first.quota
    kept = await site.admin.fetch("SELECT response FROM sender.requests")
    assert not [row for row in kept if MARK.encode() in row["response"] or person.encode() in row["response"]]


async def test_their_own_answers_and_counts_go(site: ServingSite) -> None:
    """With the refusals that were remembered of them, here and in Redis; what they sent stays theirs."""
    person, metadata = site.person("admin")
    accepted = await use_up(site, metadata, type="tier.upgraded")
    await site.send(metadata, a_send(request_id=str(uuid4())))
    assert (await refusal_of(site.send(metadata, a_send(type="tier.upgraded")))).reason == "RATE_LIMITED"
    await erase(site, person)
    for table in ("requests", "counted_sends"):
        query = f"SELECT count(*) FROM sender.{table} WHERE caller = $1"  # noqa: S608 names of ours
        assert await site.admin.fetchval(query, person) == 0
    query = "SELECT count(*) FROM sender.broadcasts WHERE created_by = $1"
    assert await site.admin.fetchval(query, person) == len(accepted) + 1
    # Somebody unknown is refused for that, and not for a limit.
    assert (
        await refusal_of(site.send(metadata, a_send(type="tier.upgraded")))
    ).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    "step", ["replace_words", "take_out", "find_answers_naming", "change_answers", "remove_own"]
)
async def test_what_is_interrupted_is_finished_by_the_next_call(
    site: ServingSite, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A broadcast names the person until inboxes have heard of it."""
    (person, _), (_, admin) = site.person("couple"), site.person("admin")
    broadcast_id = await send_to(site, admin, person)

    async def done_and_lost(*arguments: object) -> None:
        await whole(*arguments)
        raise RuntimeError("lost")

    whole = getattr(ErasureStore, step)
    with monkeypatch.context() as patch:
        patch.setattr(ErasureStore, step, done_and_lost)
        assert (await refusal_of(erase(site, person))).code is Code.INTERNAL
    await erase(site, person)
    assert (await words(site, broadcast_id))[::3] == ("Erased", [NIL])
    assert broadcast_id in site.neighbours.inbox.refreshed


async def test_an_inbox_that_is_away_is_told_and_nothing_is_forgotten(site: ServingSite) -> None:
    """The call is UNAVAILABLE, and the next one tells the inbox."""
    (person, _), (_, admin) = site.person("couple"), site.person("admin")
    broadcast_id = await send_to(site, admin, person)
    site.neighbours.inbox.is_down = True
    try:
        assert (await refusal_of(erase(site, person))).code is Code.UNAVAILABLE
        assert (await words(site, broadcast_id))[3] == [person]
    finally:
        site.neighbours.inbox.is_down = False
    await erase(site, person)
    assert broadcast_id in site.neighbours.inbox.refreshed


async def test_more_than_a_step_takes_is_all_done(site: ServingSite) -> None:
    """A hundred at a time, until there is none left."""
    (person, _), (_, admin) = site.person("couple"), site.person("admin")
    await site.admin.execute(_COPIES, await send_to(site, admin, person))
    await erase(site, person)
    query = "SELECT count(*) FROM sender.broadcasts WHERE type = 'tier.downgraded' AND title = 'Erased'"
    assert await site.admin.fetchval(query) == 120


async def test_a_send_that_races_with_an_erasure_is_cleared_by_the_second(site: ServingSite) -> None:
    """The directory asks twice, because a call that had found the person may write after the first time."""
    (person, _), (_, admin) = site.person("couple"), site.person("admin")
    results = await asyncio.gather(
        *(send_to(site, admin, person) for _ in range(5)),
        erase(site, person),
        *(send_to(site, admin, person) for _ in range(5)),
    )
    await erase(site, person)
    for broadcast_id in filter(None, results):
        assert (await words(site, broadcast_id))[::3] == ("Erased", [NIL])


async def test_the_audit_log_stays_as_it_was(site: ServingSite) -> None:
    """Its chain holds, and says who did what."""
    person, metadata = site.person("coordinator")
    wedding_id = site.wedding(person)
    await site.send(
        metadata, a_send(type="wedding.emergency", priority=1, wedding_id=wedding_id, targeting=None)
    )
    await erase(site, person)
    auditor = site.service("audit.read")
    verified = await site.stub.VerifyAuditLog(sender_pb2.VerifyAuditLogRequest(), metadata=auditor)
    assert not verified.HasField("flaw")
    found = await site.stub.ListAuditEvents(sender_pb2.ListAuditEventsRequest(actor=person), metadata=auditor)
    assert [each.actor for each in found.events] == [person]


@asynccontextmanager
async def _as_login(site: ServingSite, login: str) -> AsyncIterator[None]:
    """Everything in the block is asked by this login, and forgotten."""
    transaction = site.admin.transaction()
    await transaction.start()
    try:
        await site.admin.execute(f"SET LOCAL ROLE {login}")
        yield
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("login", ["sender_api", "sender_worker"])
async def test_no_login_changes_what_a_broadcast_says(site: ServingSite, login: str) -> None:
    """Only the functions that erase do, and they are the worker's alone, for what names whom they erase."""
    (person, _), (other, _), (_, admin) = site.person("couple"), site.person("couple"), site.person("admin")
    broadcast_id = await send_to(site, admin, person)
    statement = "UPDATE sender.broadcasts SET title = 'x' WHERE broadcast_id = $1"
    async with _as_login(site, login):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await site.admin.execute(statement, broadcast_id)
    erase_words = "SELECT sender.erase_words($1, 'x', 'x', 10)"
    async with _as_login(site, login):
        if login == "sender_api":
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await site.admin.fetch(erase_words, UUID(other))
        else:
            assert await site.admin.fetch(erase_words, UUID(other)) == []
    assert (await words(site, broadcast_id))[0] == MARK


async def exported(site: ServingSite, user_id: str) -> list[tuple[str, dict[str, object]]]:
    """All records of somebody, page by page."""
    found: list[tuple[str, dict[str, object]]] = []
    token = ""
    while True:
        request = sender_pb2.ExportPersonRequest(user_id=user_id, page_token=token)
        page = await site.stub.ExportPerson(request, metadata=site.service("internal"))
        found += [(each.kind, json.loads(each.json)) for each in page.records]
        token = page.next_page_token
        if not token:
            return found


async def test_all_that_is_kept_is_exported(site: ServingSite) -> None:
    """What they sent, what names them, limits, calls and the audit log; of others no id and no name."""
    (other, _), (boss, admin) = site.person("couple"), site.person("admin")
    person, metadata = site.person("admin")
    sent = [await send_to(site, metadata, other, type="trial.ending", priority=4) for _ in range(3)]
    await site.send(metadata, a_send(type="security.alert", priority=1, request_id=str(uuid4())))
    named = await send_to(site, admin, person, scheduled_for=ahead(days=1))
    walled = await send_to(site, admin, person, type="journey.updated", wedding_id=site.wedding(other))
    records = await exported(site, person)
    kinds = {kind: [each for known, each in records if known == kind] for kind, _ in records}
    assert [each["broadcast_id"] for each in kinds["broadcast_sent"]][:3] == sent
    assert kinds["broadcast_sent"][0]["named_users"] == 1
    naming = {each["broadcast_id"]: each["title"] for each in kinds["broadcast_naming_you"]}
    assert naming == {named: MARK, walled: None}
    assert {each["type"]: each["sends"] for each in kinds["counted_sends"]} == {
        "trial.ending": 3,
        "security.alert": 1,
    }
    assert [each["method"] for each in kinds["remembered_call"]] == ["SendBroadcast"]
    [entry] = kinds["audit_entry"]
    assert (entry["action"], entry["by_you"]) == ("critical_accepted", True)
    told = json.dumps(records)
    assert not [each for each in (other, boss) if each in told]


async def test_a_token_that_was_made_up_is_refused_by_its_field(site: ServingSite) -> None:
    """Whatever it is."""
    person, _ = site.person("couple")
    for token in ("x", "AQ", "sent"):
        request = sender_pb2.ExportPersonRequest(user_id=person, page_token=token)
        refused = await refusal_of(site.stub.ExportPerson(request, metadata=site.service("internal")))
        assert (refused.code, refused.fields) == (Code.INVALID_ARGUMENT, ("page_token",))
